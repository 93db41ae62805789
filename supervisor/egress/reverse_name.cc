#include "supervisor/egress/reverse_name.h"

#include <string>
#include <string_view>
#include <vector>

namespace kai::egress {
namespace {

/// nullopt: not `base`'s number below `limit`, or with a zero in front.
std::optional<unsigned> number(std::string_view digits, unsigned base, unsigned limit) {
  if (digits.empty() || digits.size() > 3 || (digits.size() > 1 && digits.front() == '0')) return std::nullopt;
  unsigned value = 0;
  for (const char c : digits) {
    const std::size_t digit = std::string_view("0123456789abcdef").find(c);
    if (digit >= base) return std::nullopt;
    value = value * base + static_cast<unsigned>(digit);
  }
  return value < limit ? std::optional(value) : std::nullopt;
}

/// From the last label in front of `zone` to the first: the address's first part stands last.
std::optional<std::vector<unsigned>> parts_of(std::string_view text, std::string_view zone, unsigned base,
                                              unsigned limit) {
  if (!text.ends_with(zone)) return std::nullopt;
  text.remove_suffix(zone.size());
  std::vector<unsigned> parts;
  while (!text.empty()) {
    const std::size_t dot = text.rfind('.');
    const auto part = number(dot == std::string_view::npos ? text : text.substr(dot + 1), base, limit);
    if (!part) return std::nullopt;
    parts.push_back(*part);
    text = text.substr(0, dot == std::string_view::npos ? 0 : dot);
  }
  return parts;
}

}  // namespace

std::optional<Address> address_of_reverse(const dns::Name& name) {
  std::string text = name.text();
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  Address address;
  if (const auto bytes = parts_of(text, ".in-addr.arpa", 10, 256); bytes && bytes->size() == 4) {
    address.bits = 32;
    for (std::size_t at = 0; at < 4; ++at) address.bytes[at] = static_cast<std::uint8_t>((*bytes)[at]);
    return address;
  }
  const auto nibbles = parts_of(text, ".ip6.arpa", 16, 16);
  if (!nibbles || nibbles->size() != 32) return std::nullopt;
  for (std::size_t at = 0; at < 16; ++at) {
    address.bytes[at] = static_cast<std::uint8_t>((*nibbles)[2 * at] << 4U | (*nibbles)[2 * at + 1]);
  }
  return address;
}

}  // namespace kai::egress
