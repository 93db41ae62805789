#include "policies/listed_address.h"

#include <algorithm>
#include <charconv>

namespace kai {
namespace {

constexpr const char* kForm =
    "must be a name, or an address in its one strict spelling: 10.1.2.3, fd00::1, 10.1.2.3:8080, [fd00::1]:443, "
    "10.1.0.0/16";

constexpr const char* kNoPath =
    "must be a name or an address alone, not a URL: no https:// in front and no path behind";

struct Parts {
  std::string_view address;
  std::string_view port;  ///< digits; without data: not said
};

/// [ADDRESS]:PORT, ADDRESS:PORT of IPv4, or an address alone.
Parts split(std::string_view text) {
  if (text.starts_with('[')) {
    const std::size_t end = text.find("]:");
    if (end == std::string_view::npos) return {.address = text};  // which is none
    return {.address = text.substr(1, end - 1), .port = text.substr(end + 2)};
  }
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos || text.find(':', colon + 1) != std::string_view::npos) return {.address = text};
  return {.address = text.substr(0, colon), .port = text.substr(colon + 1)};
}

std::optional<std::uint16_t> read_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  const bool fine = error == std::errc{} && end == text.data() + text.size() && port != 0 && text.front() != '0';
  return fine ? std::optional(port) : std::nullopt;
}

/// Of the last label, or of what has a colon, a bracket or a slash: no DNS name has it.
bool ends_in_number(std::string_view name) {
  while (name.ends_with('.')) name.remove_suffix(1);
  const std::string_view label = name.substr(name.rfind('.') + 1);
  return label.starts_with("0x") || label.starts_with("0X") ||
         (!label.empty() && std::all_of(label.begin(), label.end(), [](char c) { return c >= '0' && c <= '9'; }));
}

}  // namespace

bool looks_like_address(std::string_view text) {
  if (text.starts_with('[') || text.find('/') != std::string_view::npos) return true;
  const std::size_t colon = text.find(':');
  if (colon != std::string_view::npos && text.find(':', colon + 1) != std::string_view::npos) return true;
  return ends_in_number(text.substr(0, colon));
}

const char* listed_address_fault(std::string_view text) {
  const std::size_t slash = text.find('/');
  if (slash != std::string_view::npos) return read_address(text.substr(0, slash)) ? cidr_fault(text) : kNoPath;
  const Parts parts = split(text);
  const auto address = read_address(parts.address);
  if (!address) return kForm;
  const bool is_ipv6_text = parts.address.find(':') != std::string_view::npos;
  // Two spellings of one address, and a reader that does not see that they are.
  if (is_ipv6_text && (address->bits == 32 || parts.address.find('.') != std::string_view::npos)) {
    return "must not write an IPv4 address as IPv6";
  }
  if (text.starts_with('[') != (is_ipv6_text && parts.port.data() != nullptr)) return kForm;
  if (parts.port.data() != nullptr && !read_port(parts.port)) return "must have a port from 1 to 65535 after the colon";
  return nullptr;
}

std::optional<ListedAddress> read_listed_address(std::string_view text) {
  if (!looks_like_address(text) || listed_address_fault(text) != nullptr) return std::nullopt;
  if (const auto block = read_cidr(text)) return ListedAddress{.block = *block};
  const Parts parts = split(text);
  const Address address = *read_address(parts.address);
  ListedAddress listed{.block = {.network = address, .prefix = address.bits}};
  if (parts.port.data() != nullptr) listed.port = *read_port(parts.port);
  return listed;
}

}  // namespace kai
