// Literal IP addresses and blocks of them. Pure. Only the one strict spelling of each: inet_aton's others (octal, hex,
// fewer than four numbers) and zone ids are no addresses here.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kai {

struct Address {
  std::array<std::uint8_t, 16> bytes{};  ///< network order; an IPv4 address is the first four
  unsigned bits = 128;                   ///< 32 or 128
};

/// nullopt: no address. ::ffff:a.b.c.d is the IPv4 address that it stands for.
std::optional<Address> read_address(std::string_view text);

/// As inet_ntop(3) writes it.
std::string address_text(const Address& address);

struct Cidr {
  Address network;
  unsigned prefix = 0;
};

/// nullptr: well-formed; else what is wrong, for "must …" or "has …".
const char* cidr_fault(std::string_view text);
/// nullopt where cidr_fault has something to say.
std::optional<Cidr> read_cidr(std::string_view text);

bool contains(const Cidr& cidr, const Address& address);

}  // namespace kai
