#include "supervisor/keeper/audit_record.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace kai::keeper {
namespace {

constexpr std::size_t kMaxText = 8 << 10;  // MAX_AUDIT_MESSAGE_LENGTH is 8,970 and holds several paths
constexpr std::size_t kMaxPath = 1024;     // the end of a longer one is left out

template <typename Number>
std::optional<Number> number(std::string_view text, int base = 10) {
  Number value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

int hex_digit(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

/// Text of a process's choice stands in quotes, or as hexadecimal digits where it holds anything but plain characters
/// (audit_log_untrustedstring). Anything else is the kernel's own word, like (null).
std::string untrusted(std::string_view value) {
  value = value.substr(0, 2 * kMaxPath);
  if (value.size() >= 2 && value.front() == '"') return std::string(value.substr(1, value.rfind('"') - 1));
  std::string bytes;
  for (std::size_t at = 0; at + 1 < value.size(); at += 2) {
    const int high = hex_digit(value[at]), low = hex_digit(value[at + 1]);
    if (high < 0 || low < 0) return std::string(value);
    bytes += static_cast<char>(high * 16 + low);
  }
  return value.size() % 2 == 0 ? bytes : std::string(value);
}

struct Field {
  std::string_view key, value;
};

/// Takes the first `key=value` off `text`.
std::optional<Field> next_field(std::string_view& text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos) return std::nullopt;
  Field field{text.substr(0, equals), {}};
  const std::string_view rest = text.substr(equals + 1);
  std::size_t end = rest.starts_with('"') ? rest.find('"', 1) : rest.find(' ');
  if (end != std::string_view::npos && rest[end] == '"') ++end;
  field.value = rest.substr(0, end);
  text = end == std::string_view::npos ? std::string_view() : rest.substr(end);
  return field;
}

void take(const Field& field, AuditRecord& record) {
  const auto [key, value] = field;
  if (key == "domain") record.domain = number<std::uint64_t>(value, 16).value_or(0);
  if (key == "pid") record.pid = number<pid_t>(value).value_or(0);
  if (key == "comm") record.comm = untrusted(value);
  if (key == "status") record.deallocated = value == "deallocated";
  if (key == "blockers") record.blockers = value.substr(0, 256);
  if (key == "path") record.path = untrusted(value);
  if (key == "daddr") record.path = value.substr(0, 64);
  if (key == "dest") record.path += ":" + std::string(value.substr(0, 8));
}

}  // namespace

std::optional<AuditRecord> parse_audit_record(std::uint16_t type, std::string_view text) {
  if (type != kAuditSyscall && type != kAuditLandlockAccess && type != kAuditLandlockDomain) return std::nullopt;
  constexpr std::string_view kBegin = "audit(";
  text = text.substr(0, std::min(kMaxText, text.find('\0')));
  const std::size_t colon = text.find(':'), end = text.find("): ");
  if (!text.starts_with(kBegin) || end == std::string_view::npos || colon > end) return std::nullopt;
  const auto serial = number<std::uint64_t>(text.substr(colon + 1, end - colon - 1));
  if (!serial) return std::nullopt;
  AuditRecord record{.type = type, .serial = *serial};
  text.remove_prefix(end + 3);
  while (const auto field = next_field(text)) take(*field, record);
  const bool whole = type == kAuditSyscall ? record.pid > 0 : record.domain != 0;
  return whole ? std::optional(std::move(record)) : std::nullopt;
}

}  // namespace kai::keeper
