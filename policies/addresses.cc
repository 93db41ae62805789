#include "policies/addresses.h"

#include <algorithm>
#include <charconv>

#include <arpa/inet.h>

namespace kai {
namespace {

constexpr std::array<std::uint8_t, 12> kMappedPrefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

bool is_mapped(const Address& address) {
  return address.bits == 128 && std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), address.bytes.begin());
}

/// As it is written: ::ffff:a.b.c.d stays IPv6.
std::optional<Address> read_literal(std::string_view text) {
  Address address;
  const std::string copy(text);
  if (copy.find('\0') != std::string::npos) return std::nullopt;
  if (inet_pton(AF_INET, copy.c_str(), address.bytes.data()) == 1) {
    address.bits = 32;
    return address;
  }
  if (inet_pton(AF_INET6, copy.c_str(), address.bytes.data()) == 1) return address;
  return std::nullopt;
}

bool bit(const Address& address, unsigned at) {
  return ((std::uint32_t{address.bytes[at / 8]} >> (7U - at % 8U)) & 1U) != 0;
}

}  // namespace

std::optional<Address> read_address(std::string_view text) {
  std::optional<Address> address = read_literal(text);
  if (!address || !is_mapped(*address)) return address;
  Address ipv4{.bits = 32};
  std::copy_n(address->bytes.begin() + kMappedPrefix.size(), 4, ipv4.bytes.begin());
  return ipv4;
}

std::string address_text(const Address& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  inet_ntop(address.bits == 32 ? AF_INET : AF_INET6, address.bytes.data(), text.data(), text.size());
  return text.data();
}

const char* cidr_fault(std::string_view text) {
  constexpr const char* kForm =
      "must be a block of addresses such as 10.1.0.0/16 or fd00:1::/32 (one address: /32, /128)";
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) return kForm;
  const std::optional<Address> network = read_literal(text.substr(0, slash));
  const std::string_view digits = text.substr(slash + 1);
  unsigned prefix = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), prefix);
  const bool is_number =
      error == std::errc{} && end == digits.data() + digits.size() && (digits.size() == 1 || digits.front() != '0');
  if (!network || !is_number || prefix > network->bits) return kForm;
  if (is_mapped(*network)) return "must be written as IPv4, not as ::ffff: in front of it";
  for (unsigned at = prefix; at < network->bits; ++at) {
    if (bit(*network, at)) return "has bits behind the prefix that are not 0: write the first address of the block";
  }
  return nullptr;
}

std::optional<Cidr> read_cidr(std::string_view text) {
  if (cidr_fault(text) != nullptr) return std::nullopt;
  const std::size_t slash = text.find('/');
  Cidr cidr{.network = *read_literal(text.substr(0, slash))};
  (void)std::from_chars(text.data() + slash + 1, text.data() + text.size(), cidr.prefix);
  return cidr;
}

bool contains(const Cidr& cidr, const Address& address) {
  if (cidr.network.bits != address.bits) return false;
  for (unsigned at = 0; at < cidr.prefix; ++at) {
    if (bit(cidr.network, at) != bit(address, at)) return false;
  }
  return true;
}

}  // namespace kai
