#include "supervisor/egress/socket_address.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <arpa/inet.h>

namespace kai::egress {
namespace {

struct Native {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

Native native(const Address& address, std::uint16_t port) {
  Native made;
  if (address.bits == 32) {
    sockaddr_in four{};
    four.sin_family = AF_INET;
    four.sin_port = htons(port);
    std::memcpy(&four.sin_addr, address.bytes.data(), sizeof four.sin_addr);
    std::memcpy(&made.storage, &four, made.size = sizeof four);
    return made;
  }
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  six.sin6_port = htons(port);
  std::memcpy(&six.sin6_addr, address.bytes.data(), sizeof six.sin6_addr);
  std::memcpy(&made.storage, &six, made.size = sizeof six);
  return made;
}

/// Whether the kernel says that `address` is local: success means that where others than local ones are not accepted.
Result<bool> is_bindable(const Address& address) {
  auto socket = make_socket(address, SOCK_DGRAM);
  if (!socket) return tl::unexpected(socket.error());
  const Native at = native(address, 0);
  if (bind(socket->get(), reinterpret_cast<const sockaddr*>(&at.storage), at.size) == 0) return true;
  return errno == EADDRINUSE;  // of ports: the address has passed
}

/// Whether net.ipv4.ip_nonlocal_bind, or IPv6's, lets a socket be bound to any address: to one that is for
/// documentation only (RFC 5737, 3849) then too. Files are out of reach here.
Result<bool> is_anything_bindable(unsigned bits) {
  return is_bindable(*read_address(bits == 32 ? "192.0.2.1" : "2001:db8::1"));
}

/// Whether the kernel takes `address` as source of what goes to it. It does not for a further address of a network of
/// which it has several.
Result<bool> is_own_source(const Address& address) {
  auto socket = make_socket(address, SOCK_DGRAM);
  if (!socket) return tl::unexpected(socket.error());
  constexpr std::uint16_t kAnyPort = 9;
  if (auto done = connect_to(socket->get(), address, kAnyPort); !done) return false;  // no route: not here, not there
  auto source = local_address(socket->get());
  if (!source) return tl::unexpected(source.error());
  return source->address.bits == address.bits && source->address.bytes == address.bytes;
}

}  // namespace

SocketAddress from_native(const sockaddr_storage& storage) {
  SocketAddress found;
  if (storage.ss_family == AF_INET) {
    sockaddr_in four{};
    std::memcpy(&four, &storage, sizeof four);
    found.address.bits = 32;
    std::memcpy(found.address.bytes.data(), &four.sin_addr, sizeof four.sin_addr);
    found.port = ntohs(four.sin_port);
    return found;
  }
  sockaddr_in6 six{};
  std::memcpy(&six, &storage, sizeof six);
  found.port = ntohs(six.sin6_port);
  const auto* bytes = six.sin6_addr.s6_addr;
  const bool mapped = IN6_IS_ADDR_V4MAPPED(&six.sin6_addr) != 0;
  found.address.bits = mapped ? 32 : 128;
  std::copy(bytes + (mapped ? 12 : 0), bytes + 16, found.address.bytes.begin());
  return found;
}

Result<SocketAddress> local_address(int socket) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&storage), &size) < 0) return errno_failure("getsockname");
  if (storage.ss_family != AF_INET && storage.ss_family != AF_INET6) return failure("getsockname", "no IP address");
  return from_native(storage);
}

Result<Fd> make_socket(const Address& address, int type) {
  Fd socket(::socket(address.bits == 32 ? AF_INET : AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return errno_failure("socket");
  return socket;
}

Result<> connect_to(int socket, const Address& address, std::uint16_t port) {
  const Native to = native(address, port);
  if (connect(socket, reinterpret_cast<const sockaddr*>(&to.storage), to.size) == 0) return {};
  if (errno == EINPROGRESS) return {};
  return errno_failure("connect");
}

Result<bool> is_own_address(const Address& address) {
  auto bindable = is_bindable(address);
  // A host without IPv6 has no such address, and will not reach it either.
  if (!bindable && bindable.error().error_number == EAFNOSUPPORT) return false;
  if (!bindable) return bindable;
  if (*bindable) {
    const auto proves_nothing = is_anything_bindable(address.bits);
    if (!proves_nothing) return proves_nothing;
    if (!*proves_nothing) return true;
  }
  return is_own_source(address);
}

bool is_loopback(const Address& address) {
  if (address.bits == 32) return address.bytes[0] == IN_LOOPBACKNET;
  return std::memcmp(address.bytes.data(), &in6addr_loopback, sizeof in6addr_loopback) == 0;
}

std::uint32_t server_buffer(std::uint32_t connections) {
  constexpr std::uint32_t kTogether = 64 << 20, kLeast = 256 << 10, kMost = 1 << 20;
  return std::clamp(kTogether / std::max(connections, 1U), kLeast, kMost);
}

void bound_buffers(int socket, std::uint32_t bytes) {
  const int half = static_cast<int>(bytes / 2);  // the kernel doubles it
  (void)setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &half, sizeof half);
  (void)setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &half, sizeof half);
  // Of what a peer does not take, no more than this waits in the socket, and then nothing more is read for it.
  constexpr int kNotSent = 128 << 10;
  (void)setsockopt(socket, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &kNotSent, sizeof kNotSent);
}

void reset_on_close(int socket) {
  const linger now{.l_onoff = 1, .l_linger = 0};
  (void)setsockopt(socket, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

void end_in_order(int socket) {
  const linger in_background{};
  (void)setsockopt(socket, SOL_SOCKET, SO_LINGER, &in_background, sizeof in_background);
  (void)shutdown(socket, SHUT_WR);
}

}  // namespace kai::egress
