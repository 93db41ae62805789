// Addresses that no name on the Internet should lead to (network_rules.h): IANA's special-purpose registries (RFC
// 6890), multicast, and where clouds answer with an instance's credentials.
#include <algorithm>
#include <iterator>
#include <optional>
#include <span>

#include "policies/network_rules.h"

namespace kai {
namespace {

constexpr const char* kMetadata = "is where a cloud answers with this machine's metadata and credentials";
constexpr const char* kPrivate = "is a private address (RFC 1918)";
constexpr const char* kDocumentation = "is an address for documentation";
constexpr const char* kProtocols = "is reserved for protocols";

struct Range {
  std::array<std::uint8_t, 16> network;
  unsigned prefix;
  const char* reason;
};

// The first that has the address says why: the narrower before the wider.
constexpr Range kIpv4[] = {
    {{169, 254, 169, 254}, 32, kMetadata},  // AWS, Google, Azure, OpenStack and others
    {{168, 63, 129, 16}, 32, kMetadata},    // Azure's platform, at a public address
    {{100, 100, 100, 200}, 32, kMetadata},  // Alibaba
    {{0}, 8, "is of this network (0.0.0.0/8), which means the machine itself"},
    {{10}, 8, kPrivate},
    {{100, 64}, 10, "is a provider's shared address (RFC 6598)"},
    {{127}, 8, "is a loopback address"},
    {{169, 254}, 16, "is a link-local address"},
    {{172, 16}, 12, kPrivate},
    {{192, 0, 0}, 24, kProtocols},
    {{192, 0, 2}, 24, kDocumentation},
    {{192, 88, 99}, 24, "is of the former 6to4 relays (RFC 7526)"},
    {{192, 168}, 16, kPrivate},
    {{198, 18}, 15, "is for measurements (RFC 2544), and stands for names inside a sandbox"},
    {{198, 51, 100}, 24, kDocumentation},
    {{203, 0, 113}, 24, kDocumentation},
    {{224}, 4, "is a multicast address"},
    {{255, 255, 255, 255}, 32, "is the broadcast address"},
    {{240}, 4, "is reserved (240.0.0.0/4)"},
};
constexpr Range kIpv6[] = {
    {{0xFD, 0x00, 0x0E, 0xC2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54}, 128, kMetadata},  // AWS
    {{0xFD, 0x20, 0x00, 0xCE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54}, 128, kMetadata},  // Google
    {{0}, 128, "is the unspecified address"},
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 128, "is the loopback address"},
    {{0}, 96, "is an IPv4-compatible address, which nobody routes (RFC 4291)"},
    {{0, 0x64, 0xFF, 0x9B, 0, 1}, 48, "is of a network's own translation to IPv4 (RFC 8215)"},
    {{0x01}, 64, "is a discard address (RFC 6666)"},
    {{0x20, 0x01, 0, 0}, 32, "is a Teredo address, which hides an IPv4 one (RFC 4380)"},
    {{0x20, 0x01, 0}, 23, kProtocols},
    {{0x20, 0x01, 0x0D, 0xB8}, 32, kDocumentation},
    {{0x3F, 0xFF, 0}, 20, kDocumentation},
    {{0xFC}, 7, "is a unique local address, a private one (RFC 4193)"},
    {{0xFE, 0x80}, 10, "is a link-local address"},
    {{0xFE, 0xC0}, 10, "is a site-local address, a private one (RFC 3879)"},
    {{0xFF}, 8, "is a multicast address"},
};

bool has(const Range& range, const Address& address) {
  return contains({.network = {.bytes = range.network, .bits = address.bits}, .prefix = range.prefix}, address);
}

/// Where the address carries an IPv4 one: at which of its bytes.
std::optional<std::size_t> embedded_at(const Address& address) {
  struct Form {
    std::array<std::uint8_t, 16> network;
    unsigned prefix;
    std::size_t at;
  };
  constexpr Form kForms[] = {
      {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF}, 96, 12},  // IPv4-mapped (RFC 4291)
      {{0, 0x64, 0xFF, 0x9B}, 96, 12},                       // NAT64 (RFC 6052)
      {{0x20, 0x02}, 16, 2},                                 // 6to4 (RFC 3056)
  };
  const auto* form = std::find_if(std::begin(kForms), std::end(kForms), [&](const Form& each) {
    return contains({.network = {.bytes = each.network}, .prefix = each.prefix}, address);
  });
  if (form == std::end(kForms)) return std::nullopt;
  return form->at;
}

const char* reason_in(std::span<const Range> ranges, const Address& address) {
  const auto found =
      std::find_if(ranges.begin(), ranges.end(), [&](const Range& range) { return has(range, address); });
  return found == ranges.end() ? nullptr : found->reason;
}

}  // namespace

std::optional<Address> carried_address(const Address& address) {
  const auto at = address.bits == 128 ? embedded_at(address) : std::nullopt;
  if (!at) return std::nullopt;
  Address carried{.bits = 32};
  std::copy_n(address.bytes.begin() + *at, 4, carried.bytes.begin());
  return carried;
}

const char* special_address(const Address& address) {
  if (address.bits == 32) return reason_in(kIpv4, address);
  if (const auto carried = carried_address(address)) return reason_in(kIpv4, *carried);
  if (const char* reason = reason_in(kIpv6, address)) return reason;
  // RFC 4291, 2.4: all that is given out of global unicast so far.
  constexpr Range kGlobal = {{0x20}, 3, nullptr};
  return has(kGlobal, address) ? nullptr : "is no global address: only 2000::/3 is given out";
}

}  // namespace kai
