#include "supervisor/egress/dns_server.h"

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "supervisor/egress/dns_intake.h"
#include "supervisor/egress/dns_message.h"
#include "supervisor/egress/dns_questions.h"
#include "supervisor/egress/dns_streams.h"

namespace kai::egress {
namespace {

/// No question is longer; what is, is cut off by the kernel and then not well-formed.
constexpr std::size_t kMaxDatagram = 2048;
/// For some 500 questions that were not read yet: the most that any kernel gives unless it is told otherwise
/// (net.core.rmem_max); it doubles it, for what is its own (socket(7)).
constexpr int kReceiveBuffer = 212992;

/// Who asked, and at which address: the answer has to come from there.
struct Asker {
  sockaddr_in6 peer{};  ///< or a sockaddr_in, which is smaller
  socklen_t peer_length = 0;
  alignas(cmsghdr) std::array<std::uint8_t, CMSG_SPACE(sizeof(in6_pktinfo))> asked{};  ///< one control message
  std::size_t asked_length = 0;
};

Result<> set_option(const Fd& socket, int level, int option, const char* name, int value = 1) {
  if (setsockopt(socket.get(), level, option, &value, sizeof value) < 0) return errno_failure("setsockopt", name);
  return {};
}

/// The address that was asked comes with each datagram, and may be any: none of them is on an interface.
Result<> prepare(const Fd& datagrams, bool ipv6) {
  if (auto done = set_option(datagrams, SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF", kReceiveBuffer); !done) return done;
  if (!ipv6) return set_option(datagrams, IPPROTO_IP, IP_PKTINFO, "IP_PKTINFO");
  if (auto done = set_option(datagrams, IPPROTO_IPV6, IPV6_RECVPKTINFO, "IPV6_RECVPKTINFO"); !done) return done;
  return set_option(datagrams, IPPROTO_IPV6, IPV6_FREEBIND, "IPV6_FREEBIND");
}

/// The control message that was received is, as it is, the one that says where an answer comes from; but for IPv4,
/// which has a place for either.
void take_asked(msghdr& message, Asker& asker) {
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    const bool is_v6 = header->cmsg_level == IPPROTO_IPV6 && header->cmsg_type == IPV6_PKTINFO;
    const bool is_v4 = header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_PKTINFO;
    if (!is_v6 && !is_v4) continue;
    if (is_v4) {
      in_pktinfo info{};
      std::memcpy(&info, CMSG_DATA(header), sizeof info);
      info.ipi_spec_dst = info.ipi_addr;
      std::memcpy(CMSG_DATA(header), &info, sizeof info);
    }
    asker.asked_length = CMSG_SPACE(header->cmsg_len - CMSG_LEN(0));
    std::memcpy(asker.asked.data(), header, std::min<std::size_t>(header->cmsg_len, asker.asked.size()));
    return;
  }
}

class Server : public DnsServer {
 public:
  Server(Agent agent, bool ipv6, Fd datagrams, Fd streams)
      : agent_(agent),
        intake_(agent.reactor,
                [this] {
                  on_datagrams();
                  streams_.resume();
                }),
        questions_(std::move(agent), ipv6),
        datagrams_(std::move(datagrams)),
        streams_(agent_.reactor, questions_, intake_, std::move(streams)) {}

  Result<> start() {
    auto watch = agent_.reactor.watch(datagrams_.get(), EPOLLIN, [this](std::uint32_t) { on_datagrams(); });
    if (!watch) return tl::unexpected(watch.error());
    watch_ = std::move(*watch);
    return streams_.start();
  }

  void rules_changed() override { questions_.rules_changed(); }
  [[nodiscard]] std::uint64_t questions() const override { return questions_.asked(); }

 private:
  void on_datagrams() {
    while (intake_.take()) {
      if (!receive_one()) return;
    }
  }

  /// False: nothing is there.
  bool receive_one() {
    std::array<std::uint8_t, kMaxDatagram> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init): by recvmsg
    alignas(cmsghdr) std::array<std::uint8_t, 128> control;  // NOLINT(cppcoreguidelines-pro-type-member-init): likewise
    Asker asker;
    iovec bytes{.iov_base = buffer.data(), .iov_len = buffer.size()};
    msghdr message{.msg_name = &asker.peer,
                   .msg_namelen = sizeof asker.peer,
                   .msg_iov = &bytes,
                   .msg_iovlen = 1,
                   .msg_control = control.data(),
                   .msg_controllen = control.size()};
    const ssize_t size = recvmsg(datagrams_.get(), &message, MSG_DONTWAIT);
    if (size < 0) return errno != EAGAIN;
    asker.peer_length = message.msg_namelen;
    take_asked(message, asker);
    auto query = dns::read_query(dns::Bytes(buffer).first(static_cast<std::size_t>(size)));
    if (!query) return true;
    questions_.ask(std::move(*query), [this, asker](const dns::Query& asked, const dns::Answer& answer) {
      send_answer(asker, dns::write_answer(asked, answer, asked.udp_bytes));
    });
    return true;
  }

  /// An answer that the agent's queue has no room for is lost, like any datagram.
  void send_answer(Asker asker, std::string text) {
    iovec bytes{.iov_base = text.data(), .iov_len = text.size()};
    const msghdr message{.msg_name = &asker.peer,
                         .msg_namelen = asker.peer_length,
                         .msg_iov = &bytes,
                         .msg_iovlen = 1,
                         .msg_control = asker.asked.data(),
                         .msg_controllen = asker.asked_length};
    (void)sendmsg(datagrams_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  }

  Agent agent_;
  DnsIntake intake_;
  DnsQuestions questions_;
  Fd datagrams_;
  Reactor::Watch watch_;
  DnsStreams streams_;
};

}  // namespace

Result<std::unique_ptr<DnsServer>> DnsServer::create(Agent agent, Fd datagrams, Fd streams) {
  int family = 0;
  socklen_t length = sizeof family;
  if (getsockopt(datagrams.get(), SOL_SOCKET, SO_DOMAIN, &family, &length) < 0) {
    return errno_failure("getsockopt", "SO_DOMAIN");
  }
  const bool ipv6 = family == AF_INET6;
  if (auto done = prepare(datagrams, ipv6); !done) return tl::unexpected(done.error());
  auto server = std::make_unique<Server>(std::move(agent), ipv6, std::move(datagrams), std::move(streams));
  if (auto done = server->start(); !done) return tl::unexpected(done.error());
  return server;
}

}  // namespace kai::egress
