// What a person is handed as an export file, key and remembered checkpoint: never a crash, never unbounded, and what
// holds is an export that somebody made with a key, not whatever bytes. The first line of the input is the key, the
// second a remembered checkpoint as JSON string (or empty), the rest the file.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "audit/checkpoint.h"
#include "audit/export.h"
#include "audit/record.h"
#include "base/text.h"

namespace {

std::string_view take_line(std::string_view& text) {
  const std::size_t end = text.find('\n');
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return line;
}

/// Parts that are read by themselves elsewhere: what is read is written again as it was.
void round_trips(std::string_view text) {
  using namespace kai::audit;
  if (const auto listed = parse_listed(text)) {
    if (format_listed(listed->record, listed->proof) != text) __builtin_trap();
    if (const auto proof = parse_proof(listed->proof); proof && format_proof(*proof) != listed->proof) __builtin_trap();
  }
  if (const auto record = parse_record(text); record && record->agent_id.empty()) __builtin_trap();
  if (const auto checkpoint = parse_checkpoint(text); checkpoint && checkpoint->origin.empty()) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  round_trips(text);
  const auto key = kai::audit::PublicKey::parse(take_line(text));
  const auto remembered = nlohmann::json::parse(take_line(text), nullptr, false);
  if (!key) return 0;
  kai::audit::ExportCheck check(*key, remembered.is_string() ? remembered.get<std::string>() : std::string());
  std::uint64_t lines = 0;
  while (!text.empty()) {
    const std::string_view line = take_line(text);
    round_trips(line);
    ++lines;
    if (!check.line(line)) break;
  }
  const kai::audit::Report report = check.finish();
  if (report.records > lines || report.findings.size() > kai::audit::Report::kMaxFindings) __builtin_trap();
  if (report.valid() && (report.records == 0 || report.checkpoints != 1)) __builtin_trap();
  if (!nlohmann::json::accept(report.json())) __builtin_trap();
  return 0;
}
