#include "supervisor/egress/refusals.h"

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>

#include "policies/network_rules.h"
#include "supervisor/egress/socket_address.h"

namespace kai::egress {
namespace {

constexpr std::size_t kSeenBytes = 128;  // two IPv6 headers, ICMPv6's and two ports
constexpr std::size_t kIcmpHeader = 8;
constexpr std::uint8_t kIcmpUnreachable = 3, kIcmp6Unreachable = 1;

std::uint16_t port_at(std::span<const std::uint8_t> bytes, std::size_t at) {
  return static_cast<std::uint16_t>(bytes[at] << 8U | bytes[at + 1]);
}

/// An IP header taken apart. No extension headers: the kernel makes none in a refusal on lo.
struct Packet {
  std::uint8_t protocol = 0;
  Address destination;
  std::span<const std::uint8_t> payload;
};

Address address_at(std::span<const std::uint8_t> bytes, std::size_t at, std::size_t size) {
  Address address;
  address.bits = static_cast<unsigned>(size * 8);
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), size, address.bytes.begin());
  return address;
}

std::optional<Packet> read_packet(std::span<const std::uint8_t> bytes) {
  if (bytes.empty()) return std::nullopt;
  const unsigned version = bytes[0] >> 4U;
  if (version == 4) {
    const std::size_t header = (bytes[0] & 0x0FU) * 4U;
    if (header < 20 || bytes.size() < header) return std::nullopt;
    return Packet{bytes[9], address_at(bytes, 16, 4), bytes.subspan(header)};
  }
  if (version != 6 || bytes.size() < 40) return std::nullopt;
  return Packet{bytes[6], address_at(bytes, 24, 16), bytes.subspan(40)};
}

}  // namespace

std::optional<RefusedPort> read_refusal(int protocol, const Address& from, std::span<const std::uint8_t> bytes) {
  if (from.bits == 32) {
    const auto packet = read_packet(bytes);
    if (!packet) return std::nullopt;
    bytes = packet->payload;
  }
  if (protocol == IPPROTO_TCP) {  // it comes from where the agent meant to go
    if (bytes.size() < 4) return std::nullopt;
    return RefusedPort{from, port_at(bytes, 0), false};
  }
  const std::uint8_t unreachable = protocol == IPPROTO_ICMP ? kIcmpUnreachable : kIcmp6Unreachable;
  if (bytes.size() < kIcmpHeader || bytes[0] != unreachable) return std::nullopt;
  const auto refused = read_packet(bytes.subspan(kIcmpHeader));
  if (!refused || refused->protocol != IPPROTO_UDP || refused->payload.size() < 4) return std::nullopt;
  // An answer of egress's own DNS, for which the client did not wait: nothing that the agent sent.
  if (port_at(refused->payload, 0) == kDnsPort) return std::nullopt;
  return RefusedPort{refused->destination, port_at(refused->payload, 2), true};
}

struct RefusalTap::State : std::enable_shared_from_this<State> {
  State(Reactor& its_reactor, Fd its_socket, OnRefused action)
      : reactor(its_reactor), socket(std::move(its_socket)), on_refused(std::move(action)) {}

  void read() {
    std::array<std::uint8_t, kSeenBytes> bytes{};
    for (int seen = 0; seen < kMostInOneTurn; ++seen) {
      sockaddr_storage from{};
      socklen_t length = sizeof from;
      const ssize_t size =
          recvfrom(socket.get(), bytes.data(), bytes.size(), MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&from), &length);
      if (size < 0) return;
      const auto refused =
          read_refusal(protocol, from_native(from).address, std::span(bytes).first(static_cast<std::size_t>(size)));
      if (refused) on_refused(*refused);
    }
    reactor.later([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->read();
    });
  }

  Reactor& reactor;
  Fd socket;
  int protocol = 0;
  OnRefused on_refused;
  Reactor::Watch watch;
};

Result<RefusalTap> RefusalTap::create(Reactor& reactor, Fd socket, OnRefused on_refused) {
  auto state = std::make_shared<State>(reactor, std::move(socket), std::move(on_refused));
  socklen_t length = sizeof state->protocol;
  if (getsockopt(state->socket.get(), SOL_SOCKET, SO_PROTOCOL, &state->protocol, &length) < 0) {
    return errno_failure("getsockopt", "SO_PROTOCOL");
  }
  auto watch = reactor.watch(state->socket.get(), EPOLLIN, [raw = state.get()](std::uint32_t) { raw->read(); });
  if (!watch) return tl::unexpected(watch.error());
  state->watch = std::move(*watch);
  return RefusalTap(std::move(state));
}

}  // namespace kai::egress
