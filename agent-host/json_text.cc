#include "agent-host/json_text.h"

#include <array>
#include <charconv>
#include <cstdio>

#include "base/text.h"

namespace kai {

void append_json_number(std::string& out, double value) {
  std::array<char, 32> digits;
  const int length = std::snprintf(digits.data(), digits.size(), "%.15g", value);
  out.append(digits.data(), static_cast<std::size_t>(length));
}

void append_decimal(std::string& out, std::uint64_t value) {
  std::array<char, 20> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  out.append(digits.data(), end);
}

void append_json_on_one_line(std::string& out, std::string_view json) {
  const std::size_t start = out.size();
  out += json;
  for (std::size_t at = start; at < out.size(); ++at) {
    if (out[at] == '\n' || out[at] == '\r') out[at] = ' ';
  }
}

void append_name(std::string& out, std::string_view name) {
  if (!out.empty() && out.back() != '{') out += ',';
  out += '"';
  out += name;
  out += "\":";
}

}  // namespace kai
