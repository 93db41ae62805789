// Whom agents reach: what the keeper tells egress, which the test stands in for, and what it does not take from
// control.
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <doctest/doctest.h>

#include "base/unix.h"
#include "policies/network_rules.h"
#include "policies/policy_yaml.h"
#include "sandbox/network.h"
#include "tests/unit/keeper/kaid.h"

namespace {

namespace fs = std::filesystem;
using namespace kai::keeper::test;
using kai::Fd;
using kai::egress::Command;
using kai::keeper::Reply;
using kai::keeper::Request;

constexpr const char* kPolicy = "policies:\n- name: web\n  network: {allowedDomains: [example.org]}\n";

/// Connects to whom each line of its input names, "ADDRESS PORT", says how that went, and waits for the end of each.
constexpr const char* kClient = R"(
import os, socket, sys
print('fds', len(os.listdir('/proc/self/fd')), flush=True)
for line in sys.stdin:
    host, port = line.split()
    try:
        with socket.create_connection((host, int(port)), 20) as peer:
            print('connected', flush=True)
            while peer.recv(1): pass
    except OSError as error:
        print(error.strerror, flush=True)
)";

kai::egress::Rules rules_of(const std::string& policies = kPolicy) {
  const auto set = kai::parse_policies({{"10-test.yaml", policies}}, geteuid() != 0);
  REQUIRE(set);
  kai::Manifest manifest;
  manifest.id = "disk-test";
  manifest.security.network.allow_outbound = true;
  manifest.security.network.allowed_domains = {"example.org"};
  return kai::network_rules(manifest, set->policies.front(), {});
}

/// Rules that allow nothing.
kai::egress::Rules nobody() {
  kai::egress::Rules rules;
  rules.set_agent_id("disk-test");
  return rules;
}

kai::spec::SandboxSpec client() {
  auto spec = python(kClient);
  *spec.mutable_network() = rules_of();
  return spec;
}

std::string read_line(const Fd& from) {
  std::string line;
  for (char byte = 0; line.empty() || line.back() != '\n'; line.push_back(byte)) {
    pollfd wanted{from.get(), POLLIN, 0};
    REQUIRE(poll(&wanted, 1, kPatienceMs) == 1);
    if (read(from.get(), &byte, 1) != 1) break;
  }
  return line;
}

/// Where the next connection at `listener` meant to go.
std::string accept_from(const Fd& listener, Fd& connection) {
  pollfd wanted{listener.get(), POLLIN, 0};
  REQUIRE(poll(&wanted, 1, kPatienceMs) == 1);
  connection.reset(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  sockaddr_in6 own{};
  socklen_t length = sizeof own;
  REQUIRE(getsockname(connection.get(), reinterpret_cast<sockaddr*>(&own), &length) == 0);
  std::array<char, INET6_ADDRSTRLEN> text{};
  return inet_ntop(AF_INET6, &own.sin6_addr, text.data(), text.size());
}

kai::egress::Rules rules_in(const Fd& memfd) {
  const auto bytes = kai::read_all(memfd.get(), 1 << 20);
  kai::egress::Rules rules;
  REQUIRE(bytes);
  REQUIRE(rules.ParseFromString(*bytes));
  return rules;
}

/// What an egress is told first: whom to ask, and where control is.
Fd first_words(const Kaid::Egress& egress) {
  auto upstream = egress.next();
  CHECK(upstream.first.has_upstream());
  auto control = egress.next();
  CHECK(control.first.has_control());
  REQUIRE(control.second.size() == 1);
  return std::move(control.second[0]);
}

bool egress_event(const Reply& reply) {
  return reply.has_egress();
}

Request set_network() {
  Request request;
  request.mutable_set_network()->set_instance(1);
  return request;
}

Fd memfd_of(const kai::egress::Rules& rules) {
  auto memfd = kai::sealed_memfd("rules", rules.SerializeAsString());
  REQUIRE(memfd);
  return std::move(*memfd);
}

void ask_for(const Kaid& kaid, const std::string& whom) {
  REQUIRE(kai::write_all(kaid.input.at(1).get(), whom + "\n"));
}

}  // namespace

TEST_CASE("egress comes with the first agent that may reach somebody, and is told all that it needs") {
  Kaid kaid;
  kaid.policy(kPolicy);
  std::ofstream(kaid.top / "kaid.yaml", std::ios::app) << "upstreamDns: [127.0.0.1:5353]\n";
  kaid.start();
  REQUIRE(kaid.spawn(client(), 1).has_spawned());
  const auto egress = kaid.next_egress();
  const auto upstream = egress.next();
  REQUIRE(upstream.first.upstream().servers_size() == 1);
  CHECK(upstream.first.upstream().servers(0) == "127.0.0.1:5353");
  CHECK(egress.next().first.has_control());
  CHECK_FALSE(kaid.event(egress_event).egress().again());
  const auto added = egress.next();
  CHECK(added.first.add().instance() == 1);
  REQUIRE(added.second.size() == 1 + kai::sandbox::kFirstListener + 2);
  CHECK(rules_in(added.second[0]).policy() == "web");
  // 0 to 2, and listdir's own: nothing of its network is the agent's.
  CHECK(read_line(kaid.output.at(1)) == "fds 4\n");
  ask_for(kaid, "198.18.0.1 443");
  Fd connection;
  CHECK(accept_from(added.second[1 + kai::sandbox::kFirstListener + 1], connection) == "::ffff:198.18.0.1");
  CHECK(read_line(kaid.output.at(1)) == "connected\n");
  ask_for(kaid, "198.18.0.1 22");
  connection.reset();
  CHECK(read_line(kaid.output.at(1)) == "Connection refused\n");

  Request kill;
  kill.mutable_kill()->set_instance(1);
  (void)kaid.ask(kill);
  CHECK(egress.next().first.remove().instance() == 1);
  (void)kaid.exited();
  CHECK(kaid.stop() == 0);
  char byte = 0;
  CHECK(read(egress.alive.get(), &byte, 1) == 0);  // it ended with kaid
}

TEST_CASE("egress has no privilege, and sees neither state nor runtime directory") {
  Kaid kaid;
  kaid.policy(kPolicy);
  kaid.start();
  REQUIRE(kaid.spawn(client(), 1).has_spawned());
  const auto egress = kaid.next_egress();
  const std::string process = "/proc/" + std::to_string(egress.pid);
  std::ifstream environment(process + "/environ");
  REQUIRE(environment);
  CHECK(environment.peek() == std::ifstream::traits_type::eof());
  std::ostringstream status;
  status << std::ifstream(process + "/status").rdbuf();
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapAmb"}) {
    CHECK(status.str().find(std::string(set) + ":\t0000000000000000") != std::string::npos);
  }
  CHECK(status.str().find("NoNewPrivs:\t1") != std::string::npos);
  if (geteuid() == 0) {
    CHECK(status.str().find("CapBnd:\t0000000000000000") != std::string::npos);
    CHECK(status.str().find("Uid:\t0\t") == std::string::npos);
    CHECK(egress.pid != kaid.control());
    CHECK_FALSE(fs::exists(process + "/root" + kaid.top.string() + "/state"));
    CHECK_FALSE(fs::exists(process + "/root" + kaid.top.string() + "/run"));
    CHECK(fs::exists(process + "/root" + kaid.top.string() + "/bin/kai-egress"));
  }
  CHECK(kaid.stop() == 0);
}

TEST_CASE("an egress that was killed is followed by another, which has the same agent with the same listeners") {
  Kaid kaid;
  kaid.policy(kPolicy);
  kaid.start();
  REQUIRE(kaid.spawn(client(), 1).has_spawned());
  CHECK(read_line(kaid.output.at(1)) == "fds 4\n");
  {
    const auto egress = kaid.next_egress();
    (void)first_words(egress);
    CHECK(egress.next().first.has_add());
    CHECK_FALSE(kaid.event(egress_event).egress().again());
    REQUIRE(kill(egress.pid, SIGKILL) == 0);
  }
  const auto egress = kaid.next_egress();
  const Fd control = first_words(egress);
  CHECK(kaid.event(egress_event).egress().again());
  REQUIRE(kaid.fds.size() == 1);
  REQUIRE(kai::send_packet(control.get(), "event"));
  CHECK(kai::receive_packet(kaid.fds[0].get(), 64)->bytes == "event");
  const auto added = egress.next();
  CHECK(added.first.add().instance() == 1);
  ask_for(kaid, "2001:db8::1 80");
  Fd connection;
  CHECK(accept_from(added.second.at(1 + kai::sandbox::kFirstListener), connection) == "2001:db8::1");
  connection.reset();

  // Another control gets its own socket to the same egress.
  (void)kaid.kill_control();
  CHECK(egress.next().first.has_control());
  CHECK_FALSE(kaid.event(egress_event).egress().again());
  CHECK(kaid.stop() == 0);
}

TEST_CASE("an egress that ends again and again is started once a second") {
  Kaid kaid;
  kaid.policy(kPolicy);
  kaid.start();
  REQUIRE(kaid.spawn(client(), 1).has_spawned());
  const auto began = std::chrono::steady_clock::now();
  for (int round = 0; round < 5; ++round) REQUIRE(kill(kaid.next_egress().pid, SIGKILL) == 0);
  CHECK(std::chrono::steady_clock::now() - began < std::chrono::milliseconds(900));
  const auto sixth = kaid.next_egress();
  CHECK(std::chrono::steady_clock::now() - began >= std::chrono::milliseconds(900));
  CHECK(kaid.stop() == 0);
}

TEST_CASE("other rules for an agent that runs: within its policy, kept for the next egress, and none for no rules") {
  Kaid kaid;
  const std::string wider =
      "policies:\n- name: web\n  network: {allowedDomains: [example.org, example.net], ports: [80]}\n";
  kaid.policy(kPolicy);
  kaid.start();
  REQUIRE(kaid.spawn(client(), 1).has_spawned());
  auto egress = kaid.next_egress();
  (void)first_words(egress);
  CHECK(egress.next().first.has_add());

  const Fd beyond = memfd_of(rules_of(wider));
  const Reply refused = kaid.ask(set_network(), {beyond.get()});
  CHECK(refused.failed().step() == "request");
  CHECK(refused.failed().detail() == "the network rules go beyond the policy's allowedDomains: web");
  const auto cut = egress.next();
  CHECK(cut.first.set_rules().instance() == 1);
  CHECK(rules_in(cut.second.at(0)).SerializeAsString() == nobody().SerializeAsString());

  kaid.policy(wider);
  Request reload;
  reload.mutable_read_policies();
  CHECK(kaid.ask(reload).reload().error() == "");
  CHECK(egress.next().first.has_upstream());
  REQUIRE(kaid.ask(set_network(), {beyond.get()}).has_done());
  auto set = egress.next();
  CHECK(set.first.set_rules().instance() == 1);
  CHECK(rules_in(set.second.at(0)).allowed_size() == 2);

  REQUIRE(kaid.ask(set_network()).has_done());
  set = egress.next();
  CHECK(rules_in(set.second.at(0)).allowed_size() == 0);
  REQUIRE(kill(egress.pid, SIGKILL) == 0);
  egress = kaid.next_egress();
  (void)first_words(egress);
  set = egress.next();
  CHECK(set.first.has_add());
  CHECK(rules_in(set.second.at(0)).allowed_size() == 0);
  CHECK(set.second.size() == 1 + kai::sandbox::kFirstListener + 2);  // the ports are those of its start
  CHECK(kaid.stop() == 0);
}

TEST_CASE("an agent that starts takes other rules as one that runs") {
  Kaid kaid;
  kaid.policy(kPolicy);
  kaid.start();
  kaid.behind_spawn = set_network();
  Fd beyond;
  bool refused = false;
  SUBCASE("none") {}
  SUBCASE("that are refused") {
    refused = true;
    auto rules = rules_of();
    rules.mutable_limits()->set_connections(1'000'000);
    beyond = memfd_of(rules);
    kaid.fds_behind = {beyond.get()};
  }
  REQUIRE(kaid.spawn(client(), 1).has_spawned());
  CHECK(kaid.answer_to(kaid.answer_behind).has_failed() == refused);
  const auto egress = kaid.next_egress();
  (void)first_words(egress);
  const auto told = egress.next();
  CHECK(told.first.has_add());
  // As a rule egress begins with them; a starter that was faster than the test has them follow.
  auto rules = rules_in(told.second.at(0));
  if (rules.allowed_size() > 0) rules = rules_in(egress.next().second.at(0));
  CHECK(rules.SerializeAsString() == nobody().SerializeAsString());
  CHECK(kaid.stop() == 0);
}

TEST_CASE("what other policies do not allow any more ends without control too") {
  const std::string other = "policies:\n- name: web\n  network: {allowedDomains: [example.net]}\n";
  Kaid kaid;
  kaid.policy(kPolicy);
  kaid.start();
  REQUIRE(kaid.spawn(client(), 1).has_spawned());
  auto egress = kaid.next_egress();
  (void)first_words(egress);
  CHECK(egress.next().first.has_add());
  kaid.policy(other);
  SUBCASE("some time after they were read anew") {
    Request reload;
    reload.mutable_read_policies();
    CHECK(kaid.ask(reload).reload().error() == "");
    CHECK(egress.next().first.has_upstream());
    const auto cut = egress.next();
    CHECK(cut.first.set_rules().instance() == 1);
    CHECK(rules_in(cut.second.at(0)).SerializeAsString() == nobody().SerializeAsString());
  }
  SUBCASE("at once where another keeper begins with them") {
    CHECK(kaid.replace_programs().hello().adoptable() == 1);
    egress = kaid.next_egress();
    (void)first_words(egress);
    CHECK(kaid.event(egress_event).egress().again());
    const auto added = egress.next();
    CHECK(added.first.add().instance() == 1);
    CHECK(rules_in(added.second.at(0)).SerializeAsString() == nobody().SerializeAsString());
  }
  CHECK(kaid.stop() == 0);
}

TEST_CASE("egress can send nothing to the keeper, and no descriptor to control") {
  Kaid kaid;
  kaid.policy(kPolicy);
  kaid.start();
  REQUIRE(kaid.spawn(client(), 1).has_spawned());
  const auto egress = kaid.next_egress();
  const Fd control = first_words(egress);
  const int own = control.get();
  const auto to_keeper = kai::send_packet(egress.channel.get(), "word", std::span(&own, 1));
  REQUIRE_FALSE(to_keeper);
  CHECK(!kai::send_packet(egress.channel.get(), "word"));
  const auto to_control = kai::send_packet(control.get(), "word", std::span(&own, 1));
  constexpr int kPassRights = 83;  // SO_PASSRIGHTS
  int passes = 0;
  socklen_t length = sizeof passes;
  const bool known = getsockopt(control.get(), SOL_SOCKET, kPassRights, &passes, &length) == 0;
  CHECK(to_control.has_value() == !known);  // from Linux 6.16 on
  CHECK(kaid.stop() == 0);
}

TEST_CASE("an agent without a network gets none later, and starts no egress") {
  Kaid kaid;
  kaid.policy(kPolicy);
  kaid.start();
  REQUIRE(kaid.spawn(python(kClient), 1).has_spawned());
  CHECK(read_line(kaid.output.at(1)) == "fds 4\n");
  ask_for(kaid, "198.18.0.1 443");
  CHECK(read_line(kaid.output.at(1)) == "Network is unreachable\n");
  const Fd rules = memfd_of(rules_of());
  CHECK(kaid.ask(set_network(), {rules.get()}).failed().detail() == "it began without a network; restart it");
  CHECK(kaid.stop() == 0);
}

TEST_CASE("rules beyond the policy that they name, or of another agent, start nothing") {
  Kaid kaid;
  kaid.policy(kPolicy);
  kaid.start();
  auto spec = client();
  spec.mutable_network()->mutable_limits()->set_connections(1'000'000);
  CHECK(kaid.spawn(spec, 1).failed().step() == "request");
  spec = client();
  spec.mutable_network()->set_agent_id("another");
  CHECK(kaid.spawn(spec, 2).failed().step() == "request");
  CHECK(kaid.stop() == 0);
}

TEST_CASE("an egress that does not read what it is told is ended") {
  Kaid kaid;
  kaid.policy(kPolicy);
  kaid.start();
  REQUIRE(kaid.spawn(client(), 1).has_spawned());
  const auto egress = kaid.next_egress();
  // Each is told by itself until the socket is full, and the last of them when the next egress is told.
  bool full = false;
  for (int count = 0; !full; ++count) {
    REQUIRE(count < 10'000);
    kaid.send(set_network());
    full = !kaid.answers_within(500);
  }
  char byte = 0;
  pollfd ended{egress.alive.get(), POLLIN, 0};
  REQUIRE(poll(&ended, 1, kPatienceMs) == 1);
  CHECK(read(egress.alive.get(), &byte, 1) == 0);
  const auto next = kaid.next_egress();
  (void)first_words(next);
  CHECK(next.next().first.has_add());
  CHECK(kaid.stop() == 0);
}

TEST_CASE("an egress that leaves its last command unread is ended") {
  Kaid kaid;
  kaid.policy(kPolicy);
  kaid.start();
  REQUIRE(kaid.spawn(client(), 1).has_spawned());
  const auto egress = kaid.next_egress();
  char byte = 0;
  pollfd ended{egress.alive.get(), POLLIN, 0};
  REQUIRE(poll(&ended, 1, kPatienceMs) == 1);
  CHECK(read(egress.alive.get(), &byte, 1) == 0);
  const auto next = kaid.next_egress();
  (void)first_words(next);
  CHECK(next.next().first.has_add());
  CHECK(kaid.stop() == 0);
}

TEST_CASE("SIGUSR2 replaces egress too; agents keep their listeners and rules") {
  Kaid kaid;
  kaid.policy(kPolicy);
  kaid.start();
  REQUIRE(kaid.spawn(client(), 1).has_spawned());
  CHECK(read_line(kaid.output.at(1)) == "fds 4\n");
  const auto old = kaid.next_egress();
  (void)first_words(old);
  CHECK(kaid.replace_programs().hello().adoptable() == 1);
  char byte = 0;
  CHECK(read(old.alive.get(), &byte, 1) == 0);
  const auto egress = kaid.next_egress();
  (void)first_words(egress);
  CHECK(kaid.event(egress_event).egress().again());
  const auto added = egress.next();
  CHECK(rules_in(added.second.at(0)).policy() == "web");
  ask_for(kaid, "198.18.0.1 443");
  Fd connection;
  CHECK(accept_from(added.second.at(1 + kai::sandbox::kFirstListener + 1), connection) == "::ffff:198.18.0.1");
  connection.reset();
  CHECK(read_line(kaid.output.at(1)) == "connected\n");
  CHECK(kaid.stop() == 0);
}
