// What the agent's kernel refused by itself, as nothing listens there: seen on the raw sockets that its starter made
// (sandbox/network.h), whose filters pass the kernel's own refusals alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "base/fd.h"
#include "policies/addresses.h"
#include "supervisor/egress/reactor.h"

namespace kai::egress {

/// Where the agent meant to go.
struct RefusedPort {
  Address address;
  std::uint16_t port = 0;
  bool datagram = false;
};

/// Of what a raw socket of `protocol` (IPPROTO_TCP, IPPROTO_ICMP, IPPROTO_ICMPV6) gave: a RST, or a port unreachable
/// with the packet that it answers. `from`: its source; of IPv4 the packet begins with its IP header (raw(7)), of IPv6
/// behind it (ipv6(7)). nullopt: neither, or cut short.
std::optional<RefusedPort> read_refusal(int protocol, const Address& from, std::span<const std::uint8_t> packet);

class RefusalTap {
 public:
  static constexpr int kMostInOneTurn = 16;  ///< more waits in the socket's small buffer, or is dropped there

  using OnRefused = std::function<void(const RefusedPort& refused)>;
  static Result<RefusalTap> create(Reactor& reactor, Fd socket, OnRefused on_refused);

 private:
  struct State;
  explicit RefusalTap(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace kai::egress
