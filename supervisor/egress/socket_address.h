// Addresses as sockets have them, and whose they are.
#pragma once

#include <sys/socket.h>

#include <cstdint>

#include "base/fd.h"
#include "base/result.h"
#include "policies/addresses.h"

namespace kai::egress {

struct SocketAddress {
  Address address;
  std::uint16_t port = 0;
};

/// Of AF_INET or AF_INET6; ::ffff:a.b.c.d is the IPv4 address.
SocketAddress from_native(const sockaddr_storage& native);

/// getsockname(2). What a listener of both families calls ::ffff:a.b.c.d is the IPv4 address.
Result<SocketAddress> local_address(int socket);

/// For connect(2): a TCP or UDP socket of the address's family (SOCK_STREAM, SOCK_DGRAM), non-blocking.
Result<Fd> make_socket(const Address& address, int type);
/// connect(2); EINPROGRESS is success.
Result<> connect_to(int socket, const Address& address, std::uint16_t port);

/// Whether `address` is one of this host's own: the kernel lets a socket be bound to it, or takes it as source of what
/// goes to it. Nothing is sent.
Result<bool> is_own_address(const Address& address);

bool is_loopback(const Address& address);

/// Kernel memory of a connection's socket to its agent, each way; at most what server_buffer() says.
inline constexpr std::uint32_t kAgentBuffer = 512 << 10;
/// The same of the socket to its server, where `connections` may be open: together 64 MB each way, but each at least
/// 256 KB, and at most 1 MB. Nearly as much is its window (half of it before Linux 6.6): 1 MB carries 10 MB/s at 100 ms,
/// the default bandwidthLimit.
std::uint32_t server_buffer(std::uint32_t connections);
/// What a TCP socket may hold each way, in bytes of kernel memory. The kernel's own tuning grows a socket to tens of MB
/// (net.ipv4.tcp_rmem, tcp_wmem), outside every limit of the agent's, and whoever stops reading keeps them.
/// TCP_WINDOW_CLAMP does not hold: the tuning overwrites it. Before connect(2), so that the window's scale is right.
/// net.core.rmem_max and wmem_max, of Debian's kernel 208 KB, allow at most twice as much as they say.
void bound_buffers(int socket, std::uint32_t bytes);

/// close(2) is a RST from now on, and what was not sent yet is dropped: also where this process dies.
void reset_on_close(int socket);
/// Everything that was written arrives, and then FIN, whatever becomes of this process.
void end_in_order(int socket);

}  // namespace kai::egress
