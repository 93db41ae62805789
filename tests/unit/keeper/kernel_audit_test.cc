// What becomes of audit records when the kernel loses some: fed through sockets of the test's own.
#include "supervisor/keeper/kernel_audit.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "base/unix.h"

using kai::Fd;
using kai::keeper::KernelAudit;
using kai::keeper::LandlockDenial;

namespace {

struct Fed {
  Fed() : Fed(*kai::socket_pair(SOCK_SEQPACKET | SOCK_NONBLOCK)) {}
  explicit Fed(std::pair<Fd, Fd> pair) : kernel(std::move(pair.first)), audit(std::move(pair.second)) {}

  std::vector<LandlockDenial> read(std::uint16_t type, const std::string& text) {
    nlmsghdr header{};
    header.nlmsg_type = type;
    std::string packet(sizeof header, '\0');
    std::memcpy(packet.data(), &header, sizeof header);
    REQUIRE(kai::send_packet(kernel.get(), packet + text));
    return audit.read(now);
  }

  Fd kernel;
  KernelAudit audit;
  KernelAudit::Clock::time_point now = KernelAudit::Clock::now();
};

const std::string kAccess = "domain=ab blockers=fs.read_file path=\"/etc/shadow\"";
const std::string kCall = "pid=301 comm=\"cat\"";

}  // namespace

TEST_CASE("a refusal in a known domain is of who made the domain") {
  Fed fed;
  CHECK(fed.read(1423, "audit(1.2:3): " + kAccess).empty());
  CHECK(fed.read(1424, "audit(1.2:3): domain=ab status=allocated pid=300").empty());
  const auto told = fed.read(1300, "audit(1.2:3): " + kCall);
  REQUIRE(told.size() == 1);
  CHECK(told[0].agent == 300);
  CHECK(told[0].pid == 301);
  CHECK(told[0].path == "/etc/shadow");
}

TEST_CASE("with the domain's record lost, who was refused is still told") {
  Fed fed;
  CHECK(fed.read(1423, "audit(1.2:3): " + kAccess).empty());
  const auto told = fed.read(1300, "audit(1.2:3): " + kCall);
  REQUIRE(told.size() == 1);
  CHECK(told[0].agent == 0);
  CHECK(told[0].pid == 301);
  CHECK(told[0].comm == "cat");
}

TEST_CASE("a refusal of which nothing else came is left out") {
  Fed fed;
  CHECK(fed.read(1423, "audit(1.2:3): " + kAccess).empty());
  CHECK(fed.audit.waiting());
  CHECK(fed.audit.take_overdue(fed.now + std::chrono::seconds(1)).empty());
  CHECK_FALSE(fed.audit.waiting());
  CHECK(fed.audit.take_lost(fed.now) == 0);
}

TEST_CASE("lost records are counted, and said once a minute" * doctest::skip(geteuid() != 0)) {
  Fd receiver(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_USERSOCK));
  const Fd sender(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_USERSOCK));
  constexpr int kSmall = 4096;
  REQUIRE(setsockopt(receiver.get(), SOL_SOCKET, SO_RCVBUF, &kSmall, sizeof kSmall) == 0);
  sockaddr_nl group{};
  group.nl_family = AF_NETLINK;
  group.nl_groups = 1;
  REQUIRE(bind(receiver.get(), reinterpret_cast<const sockaddr*>(&group), sizeof group) == 0);
  const auto flood = [&]() {
    const std::array<char, 1024> record{};
    for (int at = 0; at < 100; ++at) {
      (void)sendto(sender.get(), record.data(), record.size(), 0, reinterpret_cast<const sockaddr*>(&group),
                   sizeof group);
    }
  };
  KernelAudit audit(std::move(receiver));
  const auto now = KernelAudit::Clock::now();
  CHECK(audit.take_lost(now) == 0);
  flood();
  const auto lost = audit.take_lost(now);
  CHECK(lost > 90);
  CHECK(lost <= 100);
  flood();
  CHECK(audit.take_lost(now + std::chrono::seconds(59)) == 0);
  CHECK(audit.take_lost(now + std::chrono::seconds(60)) == 100);
  CHECK(audit.take_lost(now + std::chrono::seconds(600)) == 0);
}
