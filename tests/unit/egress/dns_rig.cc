#include "dns_rig.h"

#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <doctest/doctest.h>

#include "dns_wire.h"
#include "sandbox/network.h"
#include "supervisor/egress/socket_address.h"
#include "supervisor/egress/upstream.h"

namespace kai::egress {
namespace {

void lo_up() {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP;
  REQUIRE(ioctl(socket.get(), SIOCSIFFLAGS, &request) == 0);
}

Fd network_namespace() {
  Fd fd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  REQUIRE(fd.valid());
  return fd;
}

struct Namespaces {
  Fd agent, host;
};

/// Of this process, made once. Whoever calls is in the host's.
const Namespaces& namespaces() {
  static const Namespaces made = [] {
    Namespaces both;
    REQUIRE(unshare(geteuid() == 0 ? CLONE_NEWNET : CLONE_NEWUSER | CLONE_NEWNET) == 0);
    lo_up();
    both.agent = network_namespace();
    REQUIRE(unshare(CLONE_NEWNET) == 0);
    lo_up();
    both.host = network_namespace();
    return both;
  }();
  return made;
}

/// The same for all tests: a namespace has one port 53, and its routes are made once.
std::vector<Fd> agent_sockets() {
  static const std::vector<Fd> opened = [] {
    std::vector<Fd> made;
    DnsRig::in_agent([&] {
      auto network = sandbox::prepare_network();
      REQUIRE(network);
      REQUIRE(sandbox::open_network(*network, {}));
      made = std::move(*network);
    });
    return made;
  }();
  std::vector<Fd> copies;
  for (const std::size_t at : {sandbox::kDnsDatagrams, sandbox::kDnsStreams}) {
    copies.emplace_back(fcntl(opened[at].get(), F_DUPFD_CLOEXEC, 0));
    REQUIRE(copies.back().valid());
  }
  return copies;
}

std::uint16_t number_at(const std::string& text, std::size_t at) {
  return static_cast<std::uint16_t>(static_cast<std::uint8_t>(text[at]) << 8U |
                                    static_cast<std::uint8_t>(text[at + 1]));
}

void allow(Rules& rules, const std::string& name, bool subdomains) {
  for (Pattern* pattern : {rules.add_asked(), rules.add_allowed()}) {
    pattern->set_name(name);
    pattern->set_subdomains(subdomains);
    pattern->set_rule("policy.yaml:7");
  }
}

}  // namespace

std::string DnsAnswer::address() const {
  if (answers != 1 || rest.size() < 12) return "";
  const std::size_t size = number_at(rest, 10);
  if ((size != 4 && size != 16) || rest.size() < 12 + size) return "";
  Address address{.bits = static_cast<unsigned>(size * 8)};
  std::memcpy(address.bytes.data(), rest.data() + 12, size);
  return address_text(address);
}

DnsRig::DnsRig() : reactor(*Reactor::create()) {
  (void)namespaces();
  rules.set_agent_id("agent");
  rules.set_policy("policy");
  for (const char* name : {"allowed.test", "mapped.test", "none.test", "empty.test", "broken.test"}) {
    allow(rules, name, false);
  }
  allow(rules, "wide.test", true);
  rules.set_allowed_rule("policy.yaml:6");
  rules.add_ports(443);
  rules.add_protocols(Protocol::TLS);
  StaticHost& host = *rules.add_hosts();
  host.set_name("mapped.test");
  host.set_address("\x0A\x01\x01\x01");
  rules.mutable_limits()->set_connections(64);
  rules.mutable_limits()->set_lookups(1000);
  rules.mutable_limits()->set_name_bits(8192);
  upstream = std::make_unique<FakeDns>(*reactor, [](const FakeDns::Asked& asked) {
    if (asked.name == "none.test") return asked.answer(0, "", 0x8183);
    if (asked.name == "empty.test") return asked.answer(0, "");
    if (asked.name == "broken.test") return asked.answer(0, "", 0x8182);
    one_address()(asked);
  });
  resolver = std::make_unique<Resolver>(*reactor);
  REQUIRE(resolver->use_servers({upstream->address()}).empty());
  names = std::make_unique<SyntheticNames>(rules);
  auto sockets = agent_sockets();
  auto made = DnsServer::create({.reactor = *reactor,
                                 .resolver = *resolver,
                                 .names = *names,
                                 .rules = rules,
                                 .on_refused = [this](const RefusedLookup& lookup) { refused.push_back(lookup); }},
                                std::move(sockets[0]), std::move(sockets[1]));
  REQUIRE(made);
  server = std::move(*made);
}

bool DnsRig::until(const std::function<bool()>& done, std::chrono::milliseconds patience) {
  return turn_until(*reactor, done, patience);
}

void DnsRig::in_agent(const std::function<void()>& body) {
  REQUIRE(setns(namespaces().agent.get(), CLONE_NEWNET) == 0);
  body();
  REQUIRE(setns(namespaces().host.get(), CLONE_NEWNET) == 0);
}

Fd DnsRig::client(int type, const std::string& address, int receive_buffer) {
  const auto server = DnsServerAddress::read(address);
  REQUIRE(server);
  Fd socket;
  in_agent([&] { socket = *make_socket(server->address, type); });
  if (receive_buffer > 0) {
    REQUIRE(setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer) == 0);
  }
  REQUIRE(connect_to(socket.get(), server->address, server->port));
  return socket;
}

std::string DnsRig::question(const std::string& name, std::uint16_t type, std::uint16_t id) {
  return wire_header(id, 0x0100, 1, 0, 0, 1) + wire_question(name, type) + wire_opt(1232);
}

std::optional<DnsAnswer> DnsRig::read_answer(const std::string& bytes) {
  if (bytes.size() < 12) return std::nullopt;
  DnsAnswer answer{.bytes = bytes,
                   .id = number_at(bytes, 0),
                   .flags = number_at(bytes, 2),
                   .answers = number_at(bytes, 6),
                   .authorities = number_at(bytes, 8),
                   .additionals = number_at(bytes, 10)};
  std::size_t at = 12;
  if (number_at(bytes, 4) == 1) at = bytes.find('\0', 12) + 5;
  answer.question = bytes.substr(12, at - 12);
  answer.rest = bytes.substr(at);
  return answer;
}

std::optional<DnsAnswer> DnsRig::ask(const std::string& name, std::uint16_t type, const std::string& address) {
  return ask_bytes(question(name, type), address);
}

std::optional<DnsAnswer> DnsRig::ask_bytes(const std::string& message, const std::string& address,
                                           std::chrono::milliseconds patience) {
  const Fd socket = client(SOCK_DGRAM, address);
  REQUIRE(send(socket.get(), message.data(), message.size(), 0) == static_cast<ssize_t>(message.size()));
  std::array<char, 4096> buffer{};
  ssize_t size = -1;
  (void)until([&] { return (size = recv(socket.get(), buffer.data(), buffer.size(), 0)) >= 0; }, patience);
  if (size < 0) return std::nullopt;
  return read_answer(std::string(buffer.data(), static_cast<std::size_t>(size)));
}

}  // namespace kai::egress
