// The process kai-egress, without its main: the test is keeper, control, agent and server, each in a network namespace
// of this process's own.
#include "supervisor/egress/egress.h"

#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <functional>
#include <string>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "sandbox/network.h"
#include "supervisor/egress/confine.h"
#include "supervisor/egress/names.h"
#include "supervisor/egress/socket_address.h"

namespace kai::egress {
namespace {

std::pair<Fd, Fd> pair() {
  auto made = socket_pair(SOCK_SEQPACKET | SOCK_NONBLOCK);
  REQUIRE(made);
  return std::move(*made);
}

/// A network namespace with lo alone, as a starter has it.
void enter_network_namespace() {
  static const bool owner = unshare(CLONE_NEWUSER) == 0;  // once: an ordinary user may make the rest then
  REQUIRE(owner);
  REQUIRE(unshare(CLONE_NEWNET) == 0);
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  REQUIRE(ioctl(socket.get(), SIOCSIFFLAGS, &request) == 0);
}

/// The keeper's and control's ends, and the namespace that the agent's sockets were made in.
struct Process {
  Process() {
    auto keeper_pair = pair();
    keeper = std::move(keeper_pair.first);
    auto made = Egress::create(*reactor, std::move(keeper_pair.second));
    REQUIRE(made);
    egress = std::move(*made);
    auto control_pair = pair();
    control = std::move(control_pair.first);
    Command command;
    command.mutable_control();
    say(command, {control_pair.second.get()});
  }

  void say(const Command& command, std::vector<int> descriptors = {}) {
    REQUIRE(send_packet(keeper.get(), command.SerializeAsString(), descriptors));
  }
  void add(const Rules& rules) {
    auto network = sandbox::prepare_network();
    REQUIRE(network);
    const std::array<std::uint16_t, 2> ports = {80, 443};
    REQUIRE(sandbox::open_network(*network, ports));
    const auto memfd = sealed_memfd("rules", rules.SerializeAsString());
    std::vector<int> descriptors = {memfd->get()};
    for (const Fd& fd : *network) descriptors.push_back(fd.get());
    Command command;
    command.mutable_add()->set_instance(7);
    say(command, std::move(descriptors));
    turn_once();
  }
  void turn_once() { REQUIRE(reactor->turn(std::chrono::milliseconds(20))); }
  Event next_event() {
    for (;;) {
      auto packet = receive_packet(control.get(), 64 << 10, MSG_DONTWAIT);
      if (packet) {
        Event event;
        REQUIRE(event.ParseFromString(packet->bytes));
        return event;
      }
      turn_once();
    }
  }

  std::unique_ptr<Reactor> reactor = std::move(*Reactor::create());
  std::unique_ptr<Egress> egress;
  Fd keeper, control;
};

Rules allows(const std::string& name) {
  Rules rules;
  rules.set_agent_id("a1");
  rules.set_policy("web");
  for (auto* list : {rules.mutable_asked(), rules.mutable_allowed()}) {
    auto& pattern = *list->Add();
    pattern.set_name(name);
    pattern.set_rule("10-web.yaml:3");
  }
  rules.add_ports(80);
  rules.add_protocols(TCP);
  rules.set_cidrs_rule("10-web.yaml:2");
  rules.set_ports_rule("10-web.yaml:5");
  auto& host = *rules.add_hosts();
  host.set_name(name);
  host.set_address(std::string("\x0a\x01\x02\x03", 4));
  rules.mutable_limits()->set_connections(8);
  rules.mutable_limits()->set_lookups(50);
  rules.mutable_limits()->set_dial_ms(5000);
  rules.mutable_limits()->set_head_ms(5000);
  rules.mutable_limits()->set_idle_ms(60000);
  rules.mutable_limits()->set_total_ms(60000);
  rules.mutable_limits()->set_bytes_per_second(1 << 20);
  return rules;
}

Fd connect_from(const std::string& address, std::uint16_t port, int type = SOCK_STREAM) {
  const auto literal = *read_address(address);
  auto socket = make_socket(literal, type);
  REQUIRE(socket);
  (void)connect_to(socket->get(), literal, port);
  return std::move(*socket);
}

TEST_CASE("what nobody listens for is told from the kernel's own refusals, TCP and UDP, IPv4 and IPv6") {
  enter_network_namespace();
  Process rig;
  rig.add(allows("allowed.example"));
  for (const std::string address : {"93.184.216.34", "2606:2800:220:1::1"}) {
    CAPTURE(address);
    const Fd tcp = connect_from(address, 22);
    const Event port = rig.next_event();
    CHECK(port.refused().instance() == 7);
    CHECK(port.refused().kind() == Refused::PORT);
    CHECK(port.refused().address() == address);
    CHECK(port.refused().port() == 22);
    CHECK(port.refused().rule() == "10-web.yaml:2");
    CHECK(port.refused().reason().find("allowedCidrs of policy web does not have this address") == 0);
    const Fd udp = connect_from(address, 443, SOCK_DGRAM);
    REQUIRE(send(udp.get(), "quic", 4, 0) == 4);
    const Event datagram = rig.next_event();
    CHECK(datagram.refused().kind() == Refused::DATAGRAM);
    CHECK(datagram.refused().address() == address);
    CHECK(datagram.refused().port() == 443);
  }
}

TEST_CASE("a port that nobody listens at is told with what decides: the name, the rules, or that the agent is older") {
  enter_network_namespace();
  Process rig;
  Rules rules = allows("allowed.example");
  const std::string address = address_text(SyntheticNames(rules).addresses("allowed.example")->v4);
  rig.add(rules);
  const auto refused_at = [&](const std::string& at, std::uint16_t port) {
    const Fd tcp = connect_from(at, port);
    const Event event = rig.next_event();
    CHECK(event.refused().kind() == Refused::PORT);
    CHECK(event.refused().port() == port);
    return event.refused();
  };
  const Refused no_port = refused_at(address, 81);
  CHECK(no_port.name() == "allowed.example");
  CHECK(no_port.address().empty());
  CHECK(no_port.reason() == "network.ports of policy web does not have port 81: the operator can add it there");
  CHECK(no_port.rule() == "10-web.yaml:5");
  const Refused no_name = refused_at("198.18.1.1", 81);
  CHECK(no_name.address() == "198.18.1.1");
  CHECK(no_name.reason().find("stands for no name") != std::string::npos);

  rules.add_ports(81);
  Command command;
  command.mutable_set_rules()->set_instance(7);
  rig.say(command, {sealed_memfd("rules", rules.SerializeAsString())->get()});
  rig.turn_once();
  const Refused older = refused_at(address, 81);
  CHECK(older.reason().find("restart the agent to open it") != std::string::npos);
  CHECK(older.rule() == "10-web.yaml:3");

  auto& blocked = *rules.add_blocked();
  blocked.set_name("allowed.example");
  blocked.set_rule("kaid.yaml:4");
  rig.say(command, {sealed_memfd("rules", rules.SerializeAsString())->get()});
  rig.turn_once();
  CHECK(refused_at(address, 81).rule() == "kaid.yaml:4");
}

TEST_CASE("a connection to what is not allowed is reset and told; the snapshot counts it") {
  enter_network_namespace();
  Process rig;
  rig.add(allows("allowed.example"));
  const Fd literal = connect_from("169.254.169.254", 80);
  const Event refused = rig.next_event();
  CHECK(refused.refused().kind() == Refused::CONNECTION);
  CHECK(refused.refused().address() == "169.254.169.254");
  CHECK(refused.refused().rule() == "10-web.yaml:2");
  Query query;
  query.set_id(3);
  query.set_instance(7);
  REQUIRE(send_packet(rig.control.get(), query.SerializeAsString()));
  const Event answer = rig.next_event();
  CHECK(answer.snapshot().id() == 3);
  CHECK(answer.snapshot().known());
  CHECK(answer.snapshot().refused() == 1);
  query.set_instance(8);
  REQUIRE(send_packet(rig.control.get(), query.SerializeAsString()));
  CHECK_FALSE(rig.next_event().snapshot().known());
}

TEST_CASE("cut off, or with other rules, what was allowed is not any more") {
  enter_network_namespace();
  Process rig;
  rig.add(allows("allowed.example"));
  Command command;
  command.mutable_set_rules()->set_instance(7);
  Rules rules;
  SUBCASE("cut off") {}
  SUBCASE("other rules") {
    rules = allows("other.example");
  }
  const auto memfd = sealed_memfd("rules", rules.SerializeAsString());
  rig.say(command, {memfd->get()});
  rig.turn_once();
  std::array<unsigned char, 33> question = {0,   1,   1,   0,   0,   1,   0,   0,   0,   0, 0,
                                            0,   7,   'a', 'l', 'l', 'o', 'w', 'e', 'd', 7, 'e',
                                            'x', 'a', 'm', 'p', 'l', 'e', 0,   0,   1,   0, 1};
  const Fd udp = connect_from("127.0.0.1", 53, SOCK_DGRAM);
  REQUIRE(send(udp.get(), question.data(), question.size(), 0) == static_cast<ssize_t>(question.size()));
  const Event event = rig.next_event();
  CHECK(event.refused().kind() == Refused::LOOKUP);
  CHECK(event.refused().name() == "allowed.example");
}

TEST_CASE("what is no command ends egress: the keeper starts another with everything that there is") {
  enter_network_namespace();
  Process rig;
  SUBCASE("garbage") {
    REQUIRE(send_packet(rig.keeper.get(), "\xff\xff\xff"));
  }
  SUBCASE("an agent without its descriptors") {
    Command command;
    command.mutable_add()->set_instance(9);
    rig.say(command);
  }
  SUBCASE("the keeper is gone") {
    rig.keeper.reset();
  }
  CHECK(rig.reactor->run());  // it returns
}

TEST_CASE("a datagram that the agent's kernel refused is the agent's, or an answer that came too late") {
  const Address v4 = *read_address("1.2.3.4");
  std::string icmp(56, '\0');  // IPv4, ICMP 3/3, and of the refused datagram IPv4 and UDP
  icmp[0] = icmp[28] = 0x45;
  icmp[20] = icmp[21] = 3;
  icmp[37] = IPPROTO_UDP;
  icmp[50] = 0x01;
  icmp[51] = static_cast<char>(0xBB);
  const auto read = [&] {
    return read_refusal(IPPROTO_ICMP, v4, std::span(reinterpret_cast<const std::uint8_t*>(icmp.data()), icmp.size()));
  };
  REQUIRE(read());
  CHECK(read()->datagram);
  CHECK(read()->port == 443);
  icmp[49] = 53;  // from egress's own DNS
  CHECK_FALSE(read());
}

/// The exit status of a child that gave up what kai-egress gives up and then did this.
int confined(const std::function<bool()>& attempt) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) _exit(!confine() ? 2 : attempt() ? 1 : 0);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST_CASE("what egress gives up it does not get back; what it needs it keeps") {
  const pid_t parent = getpid();
  const auto made = [](int fd) { return fd >= 0; };
  CHECK(confined([&] { return made(open("/etc/hostname", O_RDONLY | O_CLOEXEC)); }) == 0);
  CHECK(confined([&] { return made(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)); }) == 0);
  CHECK(confined([&] { return made(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0)); }) == 0);
  CHECK(confined([&] { return kill(parent, 0) == 0; }) == 0);
  CHECK(confined([&] { return execl("/bin/true", "true", nullptr) == 0; }) == 0);
  CHECK(confined([&] { return fork() >= 0; }) == 0);
  // A descriptor that signals somebody when it is ready (fcntl(2)) is kill(2) by another name.
  CHECK(confined([&] {
          const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
          return fcntl(socket.get(), F_SETOWN, parent) == 0 || fcntl(socket.get(), F_SETSIG, SIGKILL) == 0;
        }) == 0);
  CHECK(confined([&] {
          return mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
        }) == 0);
  // The same attempts, as far as they are allowed: the test can fail.
  CHECK(confined([&] { return made(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)); }) == 1);
  CHECK(confined([&] {
          const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
          return set_nonblocking(socket.get()).has_value();
        }) == 1);
  CHECK(confined([&] { return mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED; }) ==
        1);
}

TEST_CASE("refusals are read with care") {
  const Address v4 = *read_address("1.2.3.4");
  std::string rst(40, '\0');
  rst[0] = 0x45;
  rst[9] = IPPROTO_TCP;
  rst[20] = 0x01;
  rst[21] = static_cast<char>(0xBB);
  const auto bytes = [](const std::string& text) {
    return std::span(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
  };
  const auto read = read_refusal(IPPROTO_TCP, v4, bytes(rst));
  REQUIRE(read);
  CHECK(read->port == 443);
  CHECK(address_text(read->address) == "1.2.3.4");
  for (std::size_t size = 0; size < 24; ++size) {
    CAPTURE(size);
    CHECK_FALSE(read_refusal(IPPROTO_TCP, v4, bytes(rst.substr(0, size))));
  }
  rst[0] = 0x4F;  // a header longer than the packet
  CHECK_FALSE(read_refusal(IPPROTO_TCP, v4, bytes(rst)));
  for (std::size_t size = 0; size < 80; ++size) {
    CHECK_FALSE(read_refusal(IPPROTO_ICMP, v4, bytes(std::string(size, '\x45'))));
    CHECK_FALSE(read_refusal(IPPROTO_ICMPV6, *read_address("2606:2800::1"), bytes(std::string(size, '\x60'))));
  }
}

}  // namespace
}  // namespace kai::egress
