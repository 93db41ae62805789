// An address or a block of addresses among the names of a manifest's allowedDomains and blockedDomains. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "policies/addresses.h"

namespace kai {

struct ListedAddress {
  Cidr block;              ///< of one address: /32 or /128
  std::uint16_t port = 0;  ///< 0: not said
};

/// Whether an entry is meant as an address: a block, or what no name can be. Only the strict spellings of addresses.h
/// are then right: 10.1.2.3, fd00::1, either with a port (10.1.2.3:8080, [fd00::1]:443), or 10.1.0.0/16 without one.
bool looks_like_address(std::string_view text);
/// nullptr: well-formed; else what is wrong, for "must …" or "has …".
const char* listed_address_fault(std::string_view text);
/// nullopt where listed_address_fault has something to say.
std::optional<ListedAddress> read_listed_address(std::string_view text);

}  // namespace kai
