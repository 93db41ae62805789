#include "sandbox/network.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

namespace kai::sandbox {
namespace {

constexpr std::uint16_t kDnsPort = 53;
constexpr int kBacklog = 512;
constexpr int kRefusalBuffer = 64 << 10;  // bytes; what comes faster is lost, and no agent's reason to stand still
constexpr int kLoopback = 1;              // the kernel makes lo the first of every network namespace

/// Neither left out of the kernel (ipv6.disable=1) nor switched off for new namespaces (ipv6.disable_ipv6=1), where lo
/// has no ::1.
bool has_ipv6() {
  const Fd fd(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in6 own{};
  own.sin6_family = AF_INET6;
  own.sin6_addr = IN6ADDR_LOOPBACK_INIT;
  return fd && bind(fd.get(), reinterpret_cast<const sockaddr*>(&own), sizeof own) == 0;
}

// ── routes (rtnetlink(7)) ──

/// `local default dev lo table local`: without RTA_DST it is the route to everywhere.
struct RouteRequest {
  nlmsghdr header;
  rtmsg route;
  rtattr output_type;
  int output;
};

Result<> acknowledgement(const Fd& netlink, std::uint32_t sequence) {
  alignas(nlmsghdr) std::array<char, 1024> answer{};
  const ssize_t length = recv(netlink.get(), answer.data(), answer.size(), 0);
  if (length < 0) return errno_failure("recv", "rtnetlink");
  nlmsghdr header{};
  nlmsgerr error{};
  if (static_cast<std::size_t>(length) < NLMSG_HDRLEN + sizeof error) return failure("rtnetlink answers too little");
  std::memcpy(&header, answer.data(), sizeof header);
  if (header.nlmsg_type != NLMSG_ERROR || header.nlmsg_seq != sequence) return failure("rtnetlink answers otherwise");
  std::memcpy(&error, answer.data() + NLMSG_HDRLEN, sizeof error);
  if (error.error != 0) return tl::unexpected(Error{"RTM_NEWROUTE", -error.error, "local default dev lo"});
  return {};
}

Result<> make_every_address_local(const Fd& netlink, std::uint8_t family) {
  RouteRequest request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = RTM_NEWROUTE;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
  request.header.nlmsg_seq = family;
  request.route.rtm_family = family;
  request.route.rtm_table = RT_TABLE_LOCAL;
  request.route.rtm_protocol = RTPROT_BOOT;
  request.route.rtm_scope = RT_SCOPE_HOST;
  request.route.rtm_type = RTN_LOCAL;
  request.output_type = {.rta_len = RTA_LENGTH(sizeof request.output), .rta_type = RTA_OIF};
  request.output = kLoopback;
  static_assert(offsetof(RouteRequest, output_type) == NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(rtmsg)));
  static_assert(offsetof(RouteRequest, output) == offsetof(RouteRequest, output_type) + RTA_LENGTH(0));
  if (send(netlink.get(), &request, sizeof request, 0) < 0) return errno_failure("send", "rtnetlink");
  return acknowledgement(netlink, request.header.nlmsg_seq);
}

Result<> add_routes(bool ipv6) {
  const Fd netlink(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!netlink) return errno_failure("socket", "AF_NETLINK");
  if (auto done = make_every_address_local(netlink, AF_INET); !done) return done;
  return ipv6 ? make_every_address_local(netlink, AF_INET6) : Result<>{};
}

// ── listeners ──

Result<> bind_everywhere(const Fd& fd, bool ipv6, std::uint16_t port) {
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  six.sin6_port = htons(port);
  sockaddr_in four{};
  four.sin_family = AF_INET;
  four.sin_port = htons(port);
  const auto* const address = ipv6 ? reinterpret_cast<const sockaddr*>(&six) : reinterpret_cast<const sockaddr*>(&four);
  const socklen_t length = ipv6 ? sizeof six : sizeof four;
  if (bind(fd.get(), address, length) < 0) return errno_failure("bind port", std::to_string(port));
  return {};
}

/// Not bound yet; with IPv6 it is for both families, whatever the host's default (bindv6only).
Result<Fd> open_socket(bool ipv6, int type) {
  Fd fd(socket(ipv6 ? AF_INET6 : AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return errno_failure("socket", ipv6 ? "AF_INET6" : "AF_INET");
  const int off = 0;
  if (ipv6 && setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) < 0) {
    return errno_failure("setsockopt", "IPV6_V6ONLY");
  }
  return fd;
}

Result<Fd> listen_everywhere(bool ipv6, std::uint16_t port) {
  auto fd = open_socket(ipv6, SOCK_STREAM);
  if (!fd) return fd;
  if (auto done = bind_everywhere(*fd, ipv6, port); !done) return tl::unexpected(done.error());
  if (listen(fd->get(), kBacklog) < 0) return errno_failure("listen port", std::to_string(port));
  return fd;
}

/// Each datagram comes with the address that it was sent to, which the answer has to come from. Of a socket for both
/// families that is one option: IPv4 addresses are mapped (ipv6(7)).
Result<Fd> receive_questions(bool ipv6) {
  auto fd = open_socket(ipv6, SOCK_DGRAM);
  if (!fd) return fd;
  const int on = 1;
  const int told = ipv6 ? setsockopt(fd->get(), IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on)
                        : setsockopt(fd->get(), IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
  if (told < 0) return errno_failure("setsockopt", ipv6 ? "IPV6_RECVPKTINFO" : "IP_PKTINFO");
  if (auto done = bind_everywhere(*fd, ipv6, kDnsPort); !done) return tl::unexpected(done.error());
  return fd;
}

// ── refusals: what the kernel answers where nothing listens ──
// Whatever is on lo came out of the kernel's own stack: an agent has no raw socket. A filter sees what its socket is
// given (IPv4: from the IP header on; IPv6: from what follows that), and the IP header at SKF_NET_OFF.

constexpr std::uint32_t kKept =
    192;  // bytes of one: headers with options, and those of the packet that an ICMP is about

/// A classic BPF program, whose checks lead to its end where they do not hold: there the packet is dropped.
class Filter {
 public:
  void load(std::uint16_t size, std::uint32_t at) { add(BPF_STMT(static_cast<std::uint16_t>(BPF_LD | size), at)); }
  void keep_bits(std::uint32_t mask) { add(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask)); }
  /// X = the length of the IPv4 header at `at`: what BPF_IND adds.
  void load_header_length(std::uint32_t at) { add(BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, at)); }
  void drop_unless(std::uint32_t value) {
    drops_.emplace_back(program_.size(), false);
    add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 0));
  }
  void drop_if(std::uint32_t value) {
    drops_.emplace_back(program_.size(), true);
    add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 0));
  }
  /// Where the value is another one the program goes on at land() of what this returns.
  std::size_t skip_unless(std::uint32_t value) {
    add(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 0));
    return program_.size() - 1;
  }
  void land(std::size_t skip) { program_[skip].jf = distance(skip); }
  void pass() { add(BPF_STMT(BPF_RET | BPF_K, kKept)); }

  /// Nothing is added after it.
  Result<> attach(const Fd& fd) {
    for (const auto& [at, if_equal] : drops_) (if_equal ? program_[at].jt : program_[at].jf) = distance(at);
    add(BPF_STMT(BPF_RET | BPF_K, 0));
    const sock_fprog program{static_cast<std::uint16_t>(program_.size()), program_.data()};
    if (setsockopt(fd.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0) return {};
    return errno_failure("setsockopt", "SO_ATTACH_FILTER");
  }

 private:
  void add(sock_filter instruction) { program_.push_back(instruction); }
  [[nodiscard]] std::uint8_t distance(std::size_t from) const {
    return static_cast<std::uint8_t>(program_.size() - from - 1);
  }

  std::vector<sock_filter> program_;
  std::vector<std::pair<std::size_t, bool>> drops_;  // instruction, and whether it drops what is equal
};

constexpr std::uint32_t kTcpSequence = offsetof(tcphdr, seq);
constexpr std::uint32_t kTcpFlags = 13;  // bit fields in tcphdr
constexpr std::uint32_t kAllFlags = TH_FIN | TH_SYN | TH_RST | TH_PUSH | TH_ACK | TH_URG;

/// The answer to a SYN where nothing listens is RST and ACK with sequence 0 (RFC 9293, 3.10.7.1); that to a packet of a
/// connection has no ACK, or its sequence. `mode`: how the TCP header at `at` is addressed.
void pass_closed_port(Filter& filter, std::uint16_t mode, std::uint32_t at) {
  filter.load(BPF_B | mode, at + kTcpFlags);
  filter.keep_bits(kAllFlags);
  filter.drop_unless(TH_RST | TH_ACK);
  filter.load(BPF_W | mode, at + kTcpSequence);
  filter.drop_unless(0);
  filter.pass();
}

// The agent's own loopback is its own affair: whoever was meant, the source of a TCP answer, the destination inside an
// ICMP one.
void drop_loopback4(Filter& filter, std::uint16_t mode, std::uint32_t address_at) {
  filter.load(BPF_B | mode, address_at);
  filter.drop_if(127);  // 127.0.0.0/8
}

void drop_loopback6(Filter& filter, std::uint32_t address_at) {
  std::array<std::size_t, 3> others{};  // ::1 is three words of zero and 1
  for (std::uint32_t word = 0; word < 3; ++word) {
    filter.load(BPF_W | BPF_ABS, address_at + 4 * word);
    others[word] = filter.skip_unless(0);
  }
  filter.load(BPF_W | BPF_ABS, address_at + 12);
  filter.drop_if(1);
  for (const std::size_t other : others) filter.land(other);
}

Filter closed_ports4() {
  Filter filter;
  drop_loopback4(filter, BPF_ABS, offsetof(iphdr, saddr));
  filter.load_header_length(0);
  pass_closed_port(filter, BPF_IND, 0);
  return filter;
}

Filter unreachable_ports4() {
  Filter filter;
  filter.load_header_length(0);
  filter.load(BPF_B | BPF_IND, offsetof(icmphdr, type));
  filter.drop_unless(ICMP_DEST_UNREACH);
  filter.load(BPF_B | BPF_IND, offsetof(icmphdr, code));
  filter.drop_unless(ICMP_PORT_UNREACH);
  drop_loopback4(filter, BPF_IND, sizeof(icmphdr) + offsetof(iphdr, daddr));
  filter.pass();
  return filter;
}

Filter closed_ports6() {
  Filter filter;
  drop_loopback6(filter, static_cast<std::uint32_t>(SKF_NET_OFF) + offsetof(ip6_hdr, ip6_src));
  pass_closed_port(filter, BPF_ABS, 0);
  return filter;
}

Filter unreachable_ports6() {
  Filter filter;
  filter.load(BPF_B | BPF_ABS, offsetof(icmp6hdr, icmp6_type));
  filter.drop_unless(ICMPV6_DEST_UNREACH);
  filter.load(BPF_B | BPF_ABS, offsetof(icmp6hdr, icmp6_code));
  filter.drop_unless(ICMPV6_PORT_UNREACH);
  drop_loopback6(filter, sizeof(icmp6hdr) + offsetof(ip6_hdr, ip6_dst));
  filter.pass();
  return filter;
}

/// Before its filter is in place nobody is there who could send anything.
Result<Fd> watch_refusals(int family, int protocol, Filter filter) {
  Fd fd(socket(family, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol));
  if (!fd) return errno_failure("socket", "SOCK_RAW");
  if (setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &kRefusalBuffer, sizeof kRefusalBuffer) < 0) {
    return errno_failure("setsockopt", "SO_RCVBUF");
  }
  if (auto done = filter.attach(fd); !done) return tl::unexpected(done.error());
  return fd;
}

Result<Fd> duplicate(const Fd& fd) {
  Fd copy(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy) return errno_failure("fcntl", "F_DUPFD_CLOEXEC");
  return copy;
}

Result<> take(std::vector<Fd>& network, Result<Fd> made) {
  if (!made) return tl::unexpected(made.error());
  network.push_back(std::move(*made));
  return {};
}

Result<> add_refusals(std::vector<Fd>& network, bool ipv6) {
  if (auto done = take(network, watch_refusals(AF_INET, IPPROTO_TCP, closed_ports4())); !done) return done;
  if (auto done = take(network, watch_refusals(AF_INET, IPPROTO_ICMP, unreachable_ports4())); !done) return done;
  if (!ipv6) {
    for (const std::size_t at : {kFirstRefusals, kFirstRefusals + 1}) {
      if (auto done = take(network, duplicate(network[at])); !done) return done;
    }
    return {};
  }
  if (auto done = take(network, watch_refusals(AF_INET6, IPPROTO_TCP, closed_ports6())); !done) return done;
  return take(network, watch_refusals(AF_INET6, IPPROTO_ICMPV6, unreachable_ports6()));
}

}  // namespace

Result<std::vector<Fd>> prepare_network() {
  const bool ipv6 = has_ipv6();
  std::vector<Fd> network;
  if (auto done = take(network, receive_questions(ipv6)); !done) return tl::unexpected(done.error());
  if (auto done = take(network, listen_everywhere(ipv6, kDnsPort)); !done) return tl::unexpected(done.error());
  if (auto done = add_refusals(network, ipv6); !done) return tl::unexpected(done.error());
  return network;
}

Result<> open_network(std::vector<Fd>& network, std::span<const std::uint16_t> ports) {
  const bool ipv6 = has_ipv6();
  if (auto done = add_routes(ipv6); !done) return done;
  for (const std::uint16_t port : ports) {
    if (auto done = take(network, listen_everywhere(ipv6, port)); !done) return done;
  }
  return {};
}

}  // namespace kai::sandbox
