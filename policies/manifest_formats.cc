#include "policies/manifest_formats.h"

#include <algorithm>
#include <array>

namespace kai::manifest {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_alphanumeric(char c) {
  return is_digit(c) || is_letter(c);
}
bool all_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}

/// Takes the part before the next `separator` off `rest`; the last part leaves `rest` without data.
std::string_view next_part(std::string_view& rest, char separator) {
  const std::size_t end = rest.find(separator);
  const std::string_view part = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  return part;
}

bool has_leading_zero(std::string_view digits) {
  return digits.size() > 1 && digits[0] == '0';
}

/// Dot-separated identifiers of a pre-release (numbers without leading zeros) or build.
bool are_identifiers(std::string_view text, bool pre_release) {
  while (true) {
    const std::string_view part = text.substr(0, text.find('.'));
    const bool fine = !part.empty() &&
                      std::all_of(part.begin(), part.end(), [](char c) { return is_alphanumeric(c) || c == '-'; }) &&
                      !(pre_release && all_digits(part) && has_leading_zero(part));
    if (!fine) return false;
    if (part.size() == text.size()) return true;
    text.remove_prefix(part.size() + 1);
  }
}

/// The number of `digits` at the start of `text`, which is taken off; -1 where they are not there.
int take_number(std::string_view& text, std::size_t digits) {
  if (text.size() < digits || !all_digits(text.substr(0, digits))) return -1;
  int number = 0;
  for (const char c : text.substr(0, digits)) number = number * 10 + (c - '0');
  text.remove_prefix(digits);
  return number;
}

bool take(std::string_view& text, char c) {
  if (text.empty() || text[0] != c) return false;
  text.remove_prefix(1);
  return true;
}

bool is_date(int year, int month, int day) {
  if (year < 0 || month < 1 || month > 12 || day < 1) return false;
  constexpr std::array<int, 12> kDays = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  return day <= kDays[static_cast<std::size_t>(month - 1)] + (month == 2 && leap ? 1 : 0);
}

bool is_offset(std::string_view text) {
  if (text == "Z") return true;
  if (!take(text, '+') && !take(text, '-')) return false;
  const int hours = take_number(text, 2);
  if (hours < 0 || hours > 23 || !take(text, ':')) return false;
  const int minutes = take_number(text, 2);
  return minutes >= 0 && minutes < 60 && text.empty();
}

bool is_label(std::string_view label) {
  return !label.empty() && label.size() <= 63 && label.front() != '-' && label.back() != '-' &&
         std::all_of(label.begin(), label.end(), [](char c) { return is_alphanumeric(c) || c == '-' || c == '_'; });
}

/// Every spelling of an IPv4 address that inet_aton(3) takes ends in a label that is a number (WHATWG URL, "ends in a
/// number").
bool ends_in_number(std::string_view name) {
  const std::string_view label = name.substr(name.rfind('.') + 1);
  return all_digits(label) || label.starts_with("0x") || label.starts_with("0X");
}

const char* name_fault(std::string_view name) {
  if (name.empty()) return "must be a DNS name";
  if (name.size() > 253) return "is longer than the 253 characters of a DNS name";
  if (name.back() == '.') return "must not end in a dot";
  if (std::any_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; })) {
    return "must be ASCII here: an international name as its A-labels (xn--…)";
  }
  if (name.find(':') != std::string_view::npos || name[0] == '[' || ends_in_number(name)) {
    return "must be a DNS name, not an address: only the operator's policy (allowedCidrs) opens addresses";
  }
  std::string_view rest = name;
  while (rest.data() != nullptr) {
    if (!is_label(next_part(rest, '.'))) return "must be a DNS name, *.name for its subdomains, or name:port";
  }
  return nullptr;
}

const char* path_component_fault(std::string_view component) {
  if (component.empty()) return "must be normalized: no // and no / at the end";
  if (component == "..") return "must not contain ..";
  if (component == ".") return "must be normalized: no . components";
  if (component.size() > 255) return "has a component of more than 255 bytes";
  if (component[0] == '-') return "must not have a component that starts with -, which programs read as an option";
  if (component.find('\\') != std::string_view::npos) return "must not contain a backslash";
  return nullptr;
}

const char* components_fault(std::string_view path) {
  while (path.data() != nullptr) {
    if (const char* fault = path_component_fault(next_part(path, '/'))) return fault;
  }
  return nullptr;
}

}  // namespace

const char* semver_fault(std::string_view text) {
  constexpr const char* kFault = "must be a semantic version such as 1.0.3 or 2.0.0-rc.1";
  std::string_view core = text.substr(0, text.find_first_of("-+"));
  std::string_view rest = text.substr(core.size());
  for (int parts = 0; parts < 3; ++parts) {
    const std::string_view number = parts < 2 ? core.substr(0, core.find('.')) : core;
    if (!all_digits(number) || has_leading_zero(number)) return kFault;
    if (parts < 2 && number.size() == core.size()) return kFault;
    core.remove_prefix(std::min(core.size(), number.size() + 1));
  }
  if (take(rest, '-')) {
    const std::string_view pre_release = rest.substr(0, rest.find('+'));
    if (!are_identifiers(pre_release, true)) return kFault;
    rest.remove_prefix(pre_release.size());
  }
  if (take(rest, '+')) return are_identifiers(rest, false) ? nullptr : kFault;
  return rest.empty() ? nullptr : kFault;
}

const char* timestamp_fault(std::string_view text) {
  constexpr const char* kFault = "must be an ISO 8601 timestamp with a time zone, such as 2024-01-15T10:00:00Z";
  const int year = take_number(text, 4);
  if (!take(text, '-')) return kFault;
  const int month = take_number(text, 2);
  if (!take(text, '-')) return kFault;
  const int day = take_number(text, 2);
  if (!is_date(year, month, day)) return kFault;
  if (!take(text, 'T')) return kFault;
  const int hour = take_number(text, 2);
  if (!take(text, ':')) return kFault;
  const int minute = take_number(text, 2);
  if (!take(text, ':')) return kFault;
  const int second = take_number(text, 2);
  // 60 is a leap second.
  if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60) return kFault;
  if (take(text, '.')) {
    const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    if (digits == 0) return kFault;
    text.remove_prefix(digits);
  }
  return is_offset(text) ? nullptr : kFault;
}

const char* domain_fault(std::string_view text) {
  std::string_view name = text;
  if (name.starts_with("*.")) name.remove_prefix(2);
  const std::size_t colon = name.rfind(':');
  if (colon != std::string_view::npos && name.find(':') == colon) {
    std::string_view port = name.substr(colon + 1);
    const std::size_t digits = port.size();
    if (digits == 0 || digits > 5 || has_leading_zero(port)) return "must have a port from 1 to 65535 after the colon";
    const int number = take_number(port, digits);
    if (number < 1 || number > 65535) return "must have a port from 1 to 65535 after the colon";
    name = name.substr(0, colon);
  }
  return name_fault(name);
}

const char* allowed_path_fault(std::string_view text) {
  if (text.empty() || text[0] != '/') return "must be an absolute path (inside the sandbox)";
  if (text == "/") return "must not be /, which is read-only in every sandbox";
  if (text.size() > 1024) return "must have at most 1024 bytes";  // the keeper's limit on a mount's target
  if (const char* fault = components_fault(text.substr(1))) return fault;
  constexpr std::array<std::string_view, 14> kOwn = {"agent", "bin",   "boot",   "dev",          "etc",  "kai",  "lib",
                                                     "lib32", "lib64", "libx32", "node_modules", "proc", "sbin", "sys"};
  std::string_view rest = text.substr(1);
  const std::string_view top = next_part(rest, '/');
  if (top == "usr" || std::find(kOwn.begin(), kOwn.end(), top) != kOwn.end()) {
    return "must not be in a directory of the sandbox's own (/agent /bin /boot /dev /etc /kai /lib* /node_modules "
           "/proc "
           "/sbin /sys /usr)";
  }
  return nullptr;
}

const char* entry_fault(std::string_view text) {
  if (text.starts_with('/')) return "must be relative to the package, not absolute";
  if (const char* fault = components_fault(text)) return fault;
  if (text == ".kai" || text.starts_with(".kai/")) return "must not be in .kai, where kaid puts what it compiles";
  return nullptr;
}

const char* capability_fault(std::string_view text) {
  const bool fine = !text.empty() && (is_alphanumeric(text[0]) || text[0] == '_') &&
                    std::all_of(text.begin(), text.end(), [](char c) {
                      return is_alphanumeric(c) || std::string_view("._:/-").find(c) != std::string_view::npos;
                    });
  return fine ? nullptr : "must start with a letter, digit or _ and have only letters, digits and . _ : / -";
}

const char* dependency_name_fault(std::string_view text) {
  const bool fine = !text.empty() && (is_alphanumeric(text[0]) || text[0] == '_' || text[0] == '@') &&
                    text.find("..") == std::string_view::npos && std::all_of(text.begin(), text.end(), [](char c) {
                      return is_alphanumeric(c) || std::string_view("._/@-").find(c) != std::string_view::npos;
                    });
  return fine ? nullptr : "must start with a letter, digit, _ or @ and have only letters, digits and . _ / @ -";
}

const char* variable_fault(std::string_view text) {
  const bool fine = !text.empty() && !is_digit(text[0]) &&
                    std::all_of(text.begin(), text.end(), [](char c) { return is_alphanumeric(c) || c == '_'; });
  if (!fine) return "must be a variable name: letters, digits and _, no digit first";
  if (text.starts_with("KAI_")) return "must not start with KAI_, which is kaid's own";
  return nullptr;
}

}  // namespace kai::manifest
