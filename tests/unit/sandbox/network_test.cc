// What a starter makes for an agent that may reach somebody, each time in a fresh network namespace.
#include "sandbox/network.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <doctest/doctest.h>

#include "base/unix.h"
#include "sandbox/namespaces.h"

namespace {

using kai::Fd;
using namespace kai::sandbox;

constexpr std::array<std::uint16_t, 2> kPorts = {80, 443};
constexpr int kPatienceMs = 5'000;

/// What `body` says in a child with a network namespace of its own, whose lo is up; as an ordinary user also a user
/// namespace.
std::string in_namespace(const std::function<std::string()>& body) {
  auto pipe = kai::make_pipe();
  REQUIRE(pipe);
  const pid_t child = fork();
  if (child == 0) {
    const auto entered = enter_starter_namespaces(geteuid() == 0, false);
    (void)kai::write_all(pipe->second.get(), entered ? body() : entered.error().message());
    _exit(0);
  }
  pipe->second.reset();
  const auto said = kai::read_all(pipe->first.get(), 1 << 16);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  return said ? *said : said.error().message();
}

struct Address {
  sockaddr_storage bytes{};
  socklen_t length = sizeof bytes;
};

Address address(const std::string& text, std::uint16_t port) {
  Address made;
  if (text.find(':') == std::string::npos) {
    auto& four = reinterpret_cast<sockaddr_in&>(made.bytes);
    four.sin_family = AF_INET;
    four.sin_port = htons(port);
    (void)inet_pton(AF_INET, text.c_str(), &four.sin_addr);
    made.length = sizeof four;
  } else {
    auto& six = reinterpret_cast<sockaddr_in6&>(made.bytes);
    six.sin6_family = AF_INET6;
    six.sin6_port = htons(port);
    (void)inet_pton(AF_INET6, text.c_str(), &six.sin6_addr);
    made.length = sizeof six;
  }
  return made;
}

std::string text(const Address& from) {
  std::array<char, INET6_ADDRSTRLEN> shown{};
  const bool four = from.bytes.ss_family == AF_INET;
  const auto& in4 = reinterpret_cast<const sockaddr_in&>(from.bytes);
  const auto& in6 = reinterpret_cast<const sockaddr_in6&>(from.bytes);
  const void* const raw = four ? static_cast<const void*>(&in4.sin_addr) : &in6.sin6_addr;
  (void)inet_ntop(from.bytes.ss_family, raw, shown.data(), shown.size());
  return std::string(shown.data()) + " " + std::to_string(ntohs(four ? in4.sin_port : in6.sin6_port));
}

std::string connected_to(const Fd& fd) {
  Address own;
  if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&own.bytes), &own.length) < 0) return std::strerror(errno);
  return text(own);
}

/// "" or why not, at once.
std::string connect_to(Fd& fd, int type, const std::string& host, std::uint16_t port) {
  const Address to = address(host, port);
  fd.reset(socket(to.bytes.ss_family, type | SOCK_CLOEXEC, 0));
  const bool connected = connect(fd.get(), reinterpret_cast<const sockaddr*>(&to.bytes), to.length) == 0;
  return connected ? "" : std::strerror(errno);
}

bool readable(const Fd& fd, int patience_ms = kPatienceMs) {
  pollfd wanted{fd.get(), POLLIN, 0};
  return poll(&wanted, 1, patience_ms) == 1;
}

/// How a datagram to where nobody listens ends.
std::string datagram_to(const std::string& host, std::uint16_t port) {
  Fd fd;
  if (auto why = connect_to(fd, SOCK_DGRAM, host, port); !why.empty()) return why;
  if (send(fd.get(), "x", 1, 0) != 1) return std::strerror(errno);
  char byte = 0;
  if (!readable(fd)) return "nothing came";
  return recv(fd.get(), &byte, 1, 0) < 0 ? std::strerror(errno) : "an answer";
}

std::string waiting(const std::vector<Fd>& network) {
  std::string counts;
  std::array<char, 65536> packet{};
  for (std::size_t at = kFirstRefusals; at < kFirstListener; ++at) {
    int count = 0;
    while (recv(network[at].get(), packet.data(), packet.size(), MSG_DONTWAIT) > 0) ++count;
    counts += " " + std::to_string(count);
  }
  return counts;
}

kai::Result<std::vector<Fd>> open_all(std::span<const std::uint16_t> ports) {
  auto network = prepare_network();
  if (!network) return network;
  if (auto done = open_network(*network, ports); !done) return tl::unexpected(done.error());
  return network;
}

std::string with_network(const std::function<std::string(std::vector<Fd>&)>& body) {
  return in_namespace([&] {
    auto network = open_all(kPorts);
    if (!network) return network.error().message();
    return body(*network);
  });
}

}  // namespace

TEST_CASE("an accepted connection's own address is the one that was meant") {
  for (const auto& [meant, own] : {std::pair<const char*, const char*>{"198.18.0.7", "::ffff:198.18.0.7 443"},
                                   {"8.8.8.8", "::ffff:8.8.8.8 443"},
                                   {"2001:db8::7", "2001:db8::7 443"},
                                   {"fd6b:6169::1", "fd6b:6169::1 443"}}) {
    CAPTURE(meant);
    CHECK(with_network([&](std::vector<Fd>& network) -> std::string {
            Fd client;
            if (auto why = connect_to(client, SOCK_STREAM, meant, 443); !why.empty()) return why;
            const Fd& listener = network[kFirstListener + 1];
            if (!readable(listener)) return "nobody came";
            const Fd accepted(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
            return accepted ? connected_to(accepted) : std::strerror(errno);
          }) == own);
  }
}

TEST_CASE("where nothing listens is refused at once, and seen; the agent's own loopback is not") {
  CHECK(with_network([](std::vector<Fd>& network) -> std::string {
          Fd fd;
          std::string said;
          const auto began = std::chrono::steady_clock::now();
          for (const char* host : {"8.8.8.8", "2001:db8::7", "127.0.0.1", "127.9.9.9", "::1"}) {
            said += connect_to(fd, SOCK_STREAM, host, 81) + ", " + datagram_to(host, 443) + "; ";
          }
          if (std::chrono::steady_clock::now() - began > std::chrono::seconds(2)) said += "slow ";
          // Allowed ones leave no trace.
          (void)connect_to(fd, SOCK_STREAM, "8.8.8.8", 443);
          (void)connect_to(fd, SOCK_STREAM, "2001:db8::7", 53);
          return said + waiting(network);
        }) ==
        "Connection refused, Connection refused; Connection refused, Connection refused; "
        "Connection refused, Connection refused; Connection refused, Connection refused; "
        "Connection refused, Connection refused;  1 1 1 1");
}

TEST_CASE("a refusal says who refused which port") {
  CHECK(with_network([](std::vector<Fd>& network) -> std::string {
          Fd fd;
          std::string said;
          for (const char* host : {"203.0.113.9", "2001:db8::9"}) {
            (void)connect_to(fd, SOCK_STREAM, host, 8443);
            (void)datagram_to(host, 4433);
          }
          for (std::size_t at = kFirstRefusals; at < kFirstListener; ++at) {
            std::array<std::uint8_t, 512> packet{};
            Address from;
            const ssize_t length = recvfrom(network[at].get(), packet.data(), packet.size(), MSG_DONTWAIT,
                                            reinterpret_cast<sockaddr*>(&from.bytes), &from.length);
            // IPv4 has its header before, ICMP the packet that it answers behind its own 8 bytes.
            const bool datagram = (at - kFirstRefusals) % 2 == 1, four = at - kFirstRefusals < 2;
            const std::size_t port = (four ? 20U : 0U) + (datagram ? 8U + (four ? 20U : 40U) + 2U : 0U);
            if (length < static_cast<ssize_t>(port + 2)) return "too short";
            const auto* const inner = packet.data() + (four ? 28 + 16 : 8 + 24);
            std::array<char, INET6_ADDRSTRLEN> shown{};
            (void)inet_ntop(four ? AF_INET : AF_INET6, inner, shown.data(), shown.size());
            said += (datagram ? std::string(shown.data()) : text(from).substr(0, text(from).find(' '))) + " " +
                    std::to_string(packet[port] * 256 + packet[port + 1]) + "; ";
          }
          return said;
        }) == "203.0.113.9 8443; 203.0.113.9 4433; 2001:db8::9 8443; 2001:db8::9 4433; ");
}

TEST_CASE("connections that end otherwise are no refusals") {
  CHECK(with_network([](std::vector<Fd>& network) -> std::string {
          for (const char* host : {"8.8.8.8", "2001:db8::7"}) {
            Fd client;
            (void)connect_to(client, SOCK_STREAM, host, 80);
            if (!readable(network[kFirstListener])) return "nobody came";
            Fd accepted(accept4(network[kFirstListener].get(), nullptr, nullptr, SOCK_CLOEXEC));
            const linger at_once{1, 0};
            (void)setsockopt(accepted.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
            accepted.reset();
            char byte = 0;
            if (recv(client.get(), &byte, 1, 0) >= 0 || errno != ECONNRESET) return "not reset";
          }
          return waiting(network);
        }) == " 0 0 0 0");
}

TEST_CASE("a question comes with the address that it was sent to") {
  for (const auto& [server, seen] : {std::pair<const char*, const char*>{"9.9.9.9", "::ffff:9.9.9.9"},
                                     {"2620:fe::fe", "2620:fe::fe"},
                                     {"127.0.0.53", "::ffff:127.0.0.53"}}) {
    CAPTURE(server);
    CHECK(with_network([&](std::vector<Fd>& network) -> std::string {
            Fd client;
            if (auto why = connect_to(client, SOCK_DGRAM, server, 53); !why.empty()) return why;
            if (send(client.get(), "question", 8, 0) != 8) return std::strerror(errno);
            if (!readable(network[kDnsDatagrams])) return "nothing came";
            std::array<char, 64> bytes{};
            alignas(cmsghdr) std::array<char, 256> beside{};
            iovec part{bytes.data(), bytes.size()};
            msghdr message{};
            message.msg_iov = &part;
            message.msg_iovlen = 1;
            message.msg_control = beside.data();
            message.msg_controllen = beside.size();
            if (recvmsg(network[kDnsDatagrams].get(), &message, 0) != 8) return "another length";
            for (cmsghdr* at = CMSG_FIRSTHDR(&message); at != nullptr; at = CMSG_NXTHDR(&message, at)) {
              if (at->cmsg_level != IPPROTO_IPV6 || at->cmsg_type != IPV6_PKTINFO) continue;
              in6_pktinfo info{};
              std::memcpy(&info, CMSG_DATA(at), sizeof info);
              std::array<char, INET6_ADDRSTRLEN> shown{};
              return inet_ntop(AF_INET6, &info.ipi6_addr, shown.data(), shown.size());
            }
            return "no address";
          }) == seen);
  }
}

TEST_CASE("nobody else can listen at its ports, every descriptor is close-on-exec, and a port twice is an error") {
  CHECK(with_network([](std::vector<Fd>& network) -> std::string {
          if (network.size() != kFirstListener + kPorts.size()) return "another number";
          for (const Fd& fd : network) {
            if (fcntl(fd.get(), F_GETFD) != FD_CLOEXEC) return "not close-on-exec";
            if ((fcntl(fd.get(), F_GETFL) & O_NONBLOCK) == 0) return "blocking";
          }
          const Fd other(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
          const Address all = address("0.0.0.0", 443);
          const bool bound = bind(other.get(), reinterpret_cast<const sockaddr*>(&all.bytes), all.length) == 0;
          return bound ? "bound" : std::strerror(errno);
        }) == "Address already in use");
  CHECK(in_namespace([] {
          const auto network = open_all(std::array<std::uint16_t, 1>{53});
          return network ? "opened" : network.error().message();
        }) == "bind port 53: Address already in use");
}

TEST_CASE("without IPv6 there are IPv4 listeners, and the refusals of IPv4 twice") {
  CHECK(in_namespace([]() -> std::string {
          // As the kernel's ipv6.disable_ipv6=1 does it for each new namespace.
          auto off = kai::write_file("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
          if (!off) return off.error().message();
          auto network = open_all(kPorts);
          if (!network) return network.error().message();
          Fd fd;
          if (auto why = connect_to(fd, SOCK_STREAM, "198.18.0.7", 443); !why.empty()) return why;
          if (!readable((*network)[kFirstListener + 1])) return "nobody came";
          const Fd accepted(accept4((*network)[kFirstListener + 1].get(), nullptr, nullptr, SOCK_CLOEXEC));
          (void)connect_to(fd, SOCK_STREAM, "198.18.0.7", 81);
          if (const auto seen = waiting(*network); seen != " 1 0 0 0") return seen;
          Fd six;
          if (connect_to(six, SOCK_STREAM, "2001:db8::1", 443).empty()) return "IPv6 is there";
          return connected_to(accepted);
        }) == "198.18.0.7 443");
}
