// The network namespace of an agent that may reach somebody: every address is local there, and listeners for what its
// rules allow are handed to kai-egress, which lives in the host's network. No NAT, no virtual device, no rule of the
// host's. getsockname(2) of an accepted connection is where the agent meant to go. Whatever has no listener the kernel
// refuses at once (RST, ICMP port unreachable).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace kai::sandbox {

/// The order of the descriptors that open_network() makes and kai-egress gets (egress.Add).
inline constexpr std::size_t kDnsDatagrams = 0;   ///< UDP [::]:53, both families, with the address that was asked
inline constexpr std::size_t kDnsStreams = 1;     ///< TCP [::]:53, listening
inline constexpr std::size_t kFirstRefusals = 2;  ///< four raw sockets: TCP, ICMP, IPv6's TCP, ICMPv6
inline constexpr std::size_t kFirstListener = 6;  ///< TCP [::]:PORT, listening, one for each port, ascending

/// For a starter that stands ready, in the network namespace of an agent to come: what does not depend on the agent,
/// which is the first kFirstListener descriptors. Nobody is there yet, and only lo.
///
/// The raw sockets have only the kernel's own refusals, by a filter: RST to a SYN where nothing listens, and port
/// unreachable; nothing of the agent's own loopback (127.0.0.0/8, ::1). A packet of theirs begins with its IPv4 header,
/// or after its IPv6 header (raw(7), ipv6(7)). No packet sockets: each close of one waits 10 ms for the kernel.
///
/// A host without IPv6 gets IPv4 sockets, and the raw ones of IPv4 twice.
Result<std::vector<Fd>> prepare_network();

/// For the same starter, before the agent is: makes every address local (`local default dev lo`, IPv4 and IPv6), and
/// adds the listeners. `ports` has no 53, which is there already. Every descriptor is non-blocking and close-on-exec,
/// and none of them stays in the agent.
Result<> open_network(std::vector<Fd>& network, std::span<const std::uint16_t> ports);

}  // namespace kai::sandbox
