// parse_policies against hostile text. It never crashes; what it refuses it refuses in one line that begins with
// file:line:column, within the file, and is fit for a terminal; what it accepts stays within the keeper's limits.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/text.h"
#include "policies/policy_yaml.h"

namespace {

void check_refusal(const std::string& message, const std::string& text) {
  constexpr std::string_view kFile = "f.yaml:";
  if (!message.starts_with(kFile) || kai::escape_for_terminal(message) != message || message.size() > 4000)
    __builtin_trap();
  const std::size_t colon = message.find(':', kFile.size());
  const long line = std::stol(message.substr(kFile.size(), colon - kFile.size()));
  const long column = std::stol(message.substr(colon + 1));
  const auto lines = std::count(text.begin(), text.end(), '\n') + 1;
  if (line < 1 || line > lines || column < 1 || column > static_cast<long>(text.size()) + 1) __builtin_trap();
}

void check_accepted(const kai::PolicySet& set) {
  if (set.policies.empty() || set.policies.back().name != "builtin") __builtin_trap();
  for (const kai::Policy& policy : set.policies) {
    const bool within = policy.memory_limit_mb >= 1 && policy.memory_limit_mb <= 1 << 20 &&
                        policy.limits.processes >= 2 && policy.backoff.base.count() > 0 &&
                        policy.backoff.base <= policy.backoff.max && policy.crash_window.count() > 0 &&
                        policy.backoff.jitter >= 0 && policy.backoff.jitter <= 1;
    if (!within) __builtin_trap();
    for (const auto& [path, file] : policy.files) {
      if (path.front() != '/' || file.host.front() != '/' || file.host.find("..") == 1) __builtin_trap();
    }
  }
  for (const std::string& warning : set.warnings) {
    if (warning.empty() || kai::escape_for_terminal(warning) != warning) __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto set = kai::parse_policies({{"f.yaml", text}}, (size & 1U) != 0);
  if (set) {
    check_accepted(*set);
  } else {
    check_refusal(set.error().message(), text);
  }
  return 0;
}
