// Who gets through: the decision about each connection of an agent, and what is looked at before anything is dialled.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "supervisor/egress/refusal_log.h"
#include "tests/unit/egress/traffic_rig.h"

namespace {

using namespace kai;
using namespace kai::egress;
using doctest::Contains;

void only(Rules& rules, const std::vector<Protocol>& protocols) {
  rules.clear_protocols();
  for (const Protocol protocol : protocols) rules.add_protocols(protocol);
}

std::string get(const std::string& host) {
  return "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n";
}

TEST_CASE("a connection to an allowed name reaches its server, and says so at its beginning and end") {
  for (const bool six : {false, true}) {
    CAPTURE(six);
    Rig rig;
    const std::string name = six ? "six.test" : "allowed.test";
    const Fd listener = rig.listen(six ? kServer6 : kServer4, kAnyPort);
    Peer agent = rig.connect(name, kAnyPort, six);
    Peer server = rig.accept(listener);
    REQUIRE(server.valid());
    REQUIRE(rig.until([&] { return !rig.opened.empty(); }));
    CHECK(rig.opened[0].name() == name);
    CHECK(rig.opened[0].address() == (six ? kServer6 : kServer4));
    CHECK(rig.opened[0].port() == kAnyPort);
    CHECK(rig.opened[0].protocol() == TCP);
    CHECK(rig.opened[0].rule() == "policy.yaml:10");
    CHECK(agent.send("question") == 8);
    CHECK(rig.until([&] { return server.received() == "question"; }));
    CHECK(server.send("answer!") == 7);
    CHECK(rig.until([&] { return agent.received() == "answer!"; }));
    const Snapshot during = rig.snapshot();
    REQUIRE(during.connections_size() == 1);
    CHECK(during.open() == 1);
    CHECK(during.connections(0).sent() == 8);
    CHECK(during.connections(0).received() == 7);
    CHECK(during.connections(0).sent_per_second() > 0);
    CHECK_FALSE(during.connections(0).connecting());
    CHECK(rig.names->entries().front().connections == 1);
    server.close();
    CHECK(rig.until([&] { return agent.ended(); }));
    agent.close();
    REQUIRE(rig.until([&] { return !rig.closed.empty(); }));
    CHECK(rig.closed[0].connection() == rig.opened[0].connection());
    CHECK(rig.closed[0].sent() == 8);
    CHECK(rig.closed[0].received() == 7);
    CHECK(rig.closed[0].cause() == "closed by the server");
    CHECK(rig.closed[0].rule() == "policy.yaml:10");
    CHECK(rig.refused.empty());
    CHECK(rig.snapshot().open() == 0);
    CHECK(rig.snapshot().total() == 1);
    CHECK(rig.snapshot().sent() == 8);
    CHECK(rig.snapshot().received() == 7);
    CHECK(rig.names->entries().front().connections == 0);
  }
}

TEST_CASE("a refused connection is reset, and one event says why, by which rule") {
  Rig rig;
  struct Case {
    std::string name, literal, reason, rule, address;
    std::uint16_t port = kAnyPort;
    Refused::Kind kind = Refused::CONNECTION;
  };
  for (const Case& each : std::vector<Case>{
           {.name = "blocked.test", .reason = "block", .rule = "policy.yaml:12"},
           {.name = "elsewhere.example", .reason = "", .rule = ""},
           {.name = "private.test", .reason = "private", .rule = ""},
           {.name = "own.test", .reason = "address of this machine", .rule = ""},
           {.literal = "198.18.77.77", .reason = "stands for no name", .rule = "builtin"},
           {.literal = "8.8.8.8", .reason = "", .rule = ""},
           {.literal = "127.0.0.1", .reason = "loopback", .rule = "builtin"},
           {.literal = "::1", .reason = "loopback", .rule = "builtin"},
           {.name = "nowhere.test",
           .reason = "tried 192.0.79.1: Network is unreachable",
           .rule = "policy.yaml:10",
           .address = "192.0.79.1",
           .kind = Refused::FAILED},
           {.name = "allowed.test",
           .reason = "tried 127.0.0.1: Connection refused",
           .rule = "policy.yaml:10",
           .address = "127.0.0.1",
           .kind = Refused::FAILED},
       }) {
    CAPTURE(each.name + each.literal);
    rig.refused.clear();
    Peer agent = each.name.empty() ? rig.connect_literal(each.literal, each.port) : rig.connect(each.name, each.port);
    CHECK(rig.until([&] { return agent.reset(); }));
    const Refused refused = rig.refusal();
    CHECK(refused.kind() == each.kind);
    CHECK(refused.name() == each.name);
    if (!each.literal.empty()) CHECK(refused.address() == each.literal);
    if (!each.address.empty()) CHECK(refused.address() == each.address);
    CHECK(refused.port() == each.port);
    CHECK_MESSAGE(refused.reason().find(each.reason) != std::string::npos, refused.reason());
    if (!each.rule.empty()) CHECK(refused.rule() == each.rule);
    if (each.kind == Refused::FAILED) CHECK(refused.reason() == each.reason);
    CHECK_FALSE(refused.rule().empty());
  }
  CHECK(rig.opened.empty());
  CHECK(rig.snapshot().refused() == 8);
  CHECK(rig.snapshot().failed() == 2);
  CHECK(rig.snapshot().refusals_size() == 8);
  CHECK(rig.snapshot().open() == 0);
  CHECK(rig.snapshot().total() == 4);  // that the rules let begin
}

TEST_CASE("TLS passes with the server_name of the name connected to, however its bytes come") {
  Rig rig;
  only(rig.rules, {TLS});
  const Fd listener = rig.listen(kServer4, kTlsPort);
  const std::string hello = client_hello("Allowed.TEST");
  Peer agent = rig.connect("allowed.test", kTlsPort);
  constexpr int kOn = 1;
  REQUIRE(setsockopt(agent.fd(), IPPROTO_TCP, TCP_NODELAY, &kOn, sizeof kOn) == 0);
  for (const char byte : hello) {
    CHECK(rig.opened.empty());
    REQUIRE(rig.until([&] { return agent.send({&byte, 1}) == 1; }));
    REQUIRE(rig.reactor->turn(std::chrono::milliseconds(1)));
  }
  Peer server = rig.accept(listener);
  REQUIRE(server.valid());
  CHECK(agent.send("more") == 4);
  CHECK(rig.until([&] { return server.received() == hello + "more"; }));
  REQUIRE(rig.opened.size() == 1);
  CHECK(rig.opened[0].protocol() == TLS);
}

TEST_CASE("what is not the TLS that was to be is refused before anything is dialled") {
  struct Case {
    std::string says, reason;
  };
  for (const Case& each : std::vector<Case>{
           {client_hello("other.test"), "other.test, and the connection was made to allowed.test"},
           {client_hello("allowed.test.evil.example"), "the connection was made to allowed.test"},
           {client_hello(""), "no server_name"},
           {client_hello("allowed.test", true), "encrypted_client_hello"},
           {get("allowed.test"), "only TLS is allowed here"},
           {std::string("\x16\x03\x01\x00\x05hello", 10), "only TLS is allowed here"},
       }) {
    CAPTURE(each.reason);
    Rig rig;
    only(rig.rules, {TLS});
    const Fd listener = rig.listen(kServer4, kTlsPort);
    Peer agent = rig.connect("allowed.test", kTlsPort);
    CHECK(rig.until([&] { return agent.send(each.says) == each.says.size(); }));
    CHECK(rig.until([&] { return agent.reset(); }));
    const Refused refused = rig.refusal();
    CHECK(refused.kind() == Refused::CONNECTION);
    CHECK_MESSAGE(refused.reason().find(each.reason) != std::string::npos, refused.reason());
    CHECK(refused.rule() == "policy.yaml:17");
    CHECK(accept4(listener.get(), nullptr, nullptr, 0) < 0);
    CHECK(rig.opened.empty());
  }
}

TEST_CASE("an address that the agent named itself may be TLS for any name, or none") {
  Rig rig;
  only(rig.rules, {TLS});
  egress::Cidr& cidr = *rig.rules.add_cidrs();
  const auto network = read_address(kOwnPublic);
  cidr.set_network(std::string(network->bytes.begin(), network->bytes.begin() + 4));
  cidr.set_prefix(32);
  *rig.rules.add_asked_addresses() = cidr;
  const Fd listener = rig.listen(kOwnPublic, kTlsPort);
  for (const std::string& hello : {client_hello("whoever.example"), client_hello("")}) {
    Peer agent = rig.connect_literal(kOwnPublic, kTlsPort);
    CHECK(rig.until([&] { return agent.send(hello) == hello.size(); }));
    Peer server = rig.accept(listener);
    REQUIRE(server.valid());
    CHECK(rig.until([&] { return server.received() == hello; }));
  }
  Peer agent = rig.connect_literal(kOwnPublic, kTlsPort);
  CHECK(rig.until([&] { return agent.send("SSH-2.0-") > 0; }));
  CHECK(rig.refusal().reason().find("only TLS") != std::string::npos);
}

TEST_CASE("every request of an HTTP connection has to name the host") {
  Rig rig;
  only(rig.rules, {HTTP});
  const Fd listener = rig.listen(kServer4, kHttpPort);
  Peer agent = rig.connect("allowed.test", kHttpPort);
  const std::string first = get("allowed.test");
  REQUIRE(rig.until([&] { return agent.send(first.substr(0, 20)) == 20; }));
  for (int turn = 0; turn < 20; ++turn) REQUIRE(rig.reactor->turn(std::chrono::milliseconds(1)));
  CHECK(accept4(listener.get(), nullptr, nullptr, 0) < 0);  // nothing is dialled for half a head
  CHECK(agent.send(first.substr(20)) == first.size() - 20);
  Peer server = rig.accept(listener);
  REQUIRE(server.valid());
  CHECK(rig.until([&] { return server.received() == first; }));
  CHECK(server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") > 0);
  CHECK(rig.until([&] { return agent.received().ends_with("\r\n\r\n"); }));
  CHECK(agent.send(first) == first.size());
  CHECK(rig.until([&] { return server.received() == first + first; }));
  REQUIRE(rig.opened.size() == 1);
  CHECK(rig.opened[0].protocol() == HTTP);

  CHECK(agent.send(get("other.test")) > 0);
  CHECK(rig.until([&] { return agent.reset() && server.reset(); }));
  CHECK(server.received() == first + first);  // nothing of the third
  const Refused refused = rig.refusal();
  CHECK(refused.kind() == Refused::CONNECTION);
  CHECK(refused.reason().find("other.test") != std::string::npos);
  REQUIRE(rig.closed.size() == 1);
  CHECK(rig.closed[0].cause() == refused.reason());
}

TEST_CASE("a first request that is wrong, or behind a right one in the same segment, does not pass") {
  for (const bool pipelined : {false, true}) {
    CAPTURE(pipelined);
    Rig rig;
    only(rig.rules, {HTTP});
    const Fd listener = rig.listen(kServer4, kHttpPort);
    Peer agent = rig.connect("allowed.test", kHttpPort);
    const std::string says = (pipelined ? get("allowed.test") : "") + get("other.test");
    CHECK(rig.until([&] { return agent.send(says) == says.size(); }));
    CHECK(rig.until([&] { return agent.reset(); }));
    CHECK(rig.refusal().reason().find("other.test") != std::string::npos);
    Peer server = pipelined ? rig.accept(listener) : Peer();
    if (pipelined) CHECK(server.received().find("other.test") == std::string::npos);
    if (!pipelined) CHECK(accept4(listener.get(), nullptr, nullptr, 0) < 0);
  }
}

TEST_CASE("an upload by HTTP arrives whole") {
  Rig rig;
  only(rig.rules, {HTTP});
  const Fd listener = rig.listen(kServer4, kHttpPort);
  Peer agent = rig.connect("allowed.test", kHttpPort);
  std::string says = "POST / HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: 3000000\r\n\r\n";
  for (std::size_t at = 0; at < 3'000'000; ++at) says += static_cast<char>('a' + static_cast<char>(at * 7 % 26));
  std::size_t sent = 0;
  REQUIRE(rig.until([&] { return (sent = agent.send(says)) > 0; }));
  Peer server = rig.accept(listener);
  REQUIRE(server.valid());
  CHECK(rig.until([&] {
    sent += agent.send(std::string_view(says).substr(sent));
    return server.received().size() == says.size();
  }));
  CHECK(server.received() == says);
}

TEST_CASE("where both are allowed, the first byte decides") {
  Rig rig;
  only(rig.rules, {TLS, HTTP});
  const Fd listener = rig.listen(kServer4, kEitherPort);
  const std::string request = get("allowed.test:8443"), hello = client_hello("allowed.test");
  for (const std::string& says : {request, hello}) {
    Peer agent = rig.connect("allowed.test", kEitherPort);
    CHECK(rig.until([&] { return agent.send(says) == says.size(); }));
    Peer server = rig.accept(listener);
    REQUIRE(server.valid());
    CHECK(rig.until([&] { return server.received() == says; }));
  }
  REQUIRE(rig.opened.size() == 2);
  CHECK(rig.opened[0].protocol() == HTTP);
  CHECK(rig.opened[1].protocol() == TLS);
  Peer agent = rig.connect("allowed.test", kEitherPort);
  CHECK(rig.until([&] { return agent.send(get("other.test")) > 0; }));
  CHECK(rig.refusal().reason().find("other.test") != std::string::npos);
}

TEST_CASE("who says nothing, or half of it, is not waited for for ever") {
  Rig rig;
  only(rig.rules, {TLS, HTTP});
  rig.rules.mutable_limits()->set_head_ms(100);
  Peer silent = rig.connect("allowed.test", kTlsPort);
  CHECK(rig.until([&] { return silent.reset(); }));
  CHECK(rig.refusal().kind() == Refused::FAILED);
  CHECK(rig.refusal().reason().find("the agent did not send a whole ClientHello in 100 ms") == 0);
  CHECK(rig.refusal().rule() == "policy.yaml:10");
  rig.refused.clear();
  silent = rig.connect("allowed.test", kEitherPort);
  CHECK(rig.until([&] { return silent.reset(); }));
  CHECK(rig.refusal().reason().find("the agent said nothing for 100 ms") == 0);
  for (const std::string& whole : {client_hello("allowed.test"), get("allowed.test")}) {
    rig.refused.clear();
    Peer slow = rig.connect("allowed.test", kEitherPort);
    CHECK(rig.until([&] { return slow.send(whole.substr(0, 30)) == 30; }));
    CHECK(rig.until([&] { return slow.reset(); }));
    CHECK(rig.refusal().reason().find("the agent did not send ") == 0);
    CHECK(rig.refusal().reason().find("100 ms") != std::string::npos);
  }
  // A later head of an open connection as well.
  rig.refused.clear();
  const Fd listener = rig.listen(kServer4, kHttpPort);
  Peer agent = rig.connect("allowed.test", kHttpPort);
  CHECK(rig.until([&] { return agent.send(get("allowed.test") + "GET / HT") > 0; }));
  CHECK(rig.until([&] { return agent.reset(); }));
  REQUIRE(rig.closed.size() == 1);
  CHECK(rig.closed[0].cause() == "the agent did not send the whole head of a request in 100 ms");
}

TEST_CASE("an agent that goes away while it is looked at leaves nothing behind") {
  Rig rig;
  only(rig.rules, {TLS});
  Peer agent = rig.connect("allowed.test", kTlsPort);
  REQUIRE(rig.until([&] { return rig.snapshot().open() == 1; }));
  CHECK(rig.snapshot().connections(0).connecting());
  CHECK(rig.snapshot().total() == 1);  // of those that are open
  agent.close();
  CHECK(rig.until([&] { return rig.snapshot().open() == 0; }));
  CHECK(rig.refused.empty());  // it had said nothing: no word about it
  Peer other = rig.connect("allowed.test", kTlsPort);
  CHECK(rig.until([&] { return other.send(client_hello("allowed.test").substr(0, 20)) == 20; }));
  other.finish();
  CHECK(rig.until([&] { return rig.snapshot().open() == 0; }));
  CHECK(rig.refusal().kind() == Refused::FAILED);
}

TEST_CASE("maxConnections holds for what is open and for what is new in a second, and a flood is told in few words") {
  Rig rig;
  rig.rules.mutable_limits()->set_connections(3);
  const Fd listener = rig.listen(kServer4, kAnyPort);
  std::vector<Peer> agents;
  for (int at = 0; at < 103; ++at) agents.push_back(rig.connect("allowed.test", kAnyPort));
  CHECK(rig.until([&] {
    std::size_t reset = 0;
    for (Peer& agent : agents) reset += agent.reset() ? 1U : 0U;
    return reset == 100 && rig.opened.size() == 3;
  }));
  CHECK(rig.refused.size() <= 2 * RefusalLog::kToldAlike);  // as many reasons as there may be
  CHECK(rig.refused[0].reason().find("more than 3 new connections") != std::string::npos);
  CHECK(rig.refused[0].rule() == "policy.yaml:16");
  CHECK(rig.snapshot().refused() == 100);
  CHECK(rig.until([&] {
    std::uint64_t told = 0;
    for (const Refused& event : rig.refused) told += 1 + event.more();
    return told == 100;
  }));
  CHECK(rig.refused.size() <= 2 * (RefusalLog::kToldAlike + 1));
  // A second later there is a token, and no room.
  rig.refused.clear();
  Peer one_more = rig.connect("allowed.test", kAnyPort);
  CHECK(rig.until([&] { return one_more.reset(); }));
  CHECK(rig.refusal().reason().find("3 connections are open") != std::string::npos);
}

TEST_CASE("whatever an agent provokes, what is kept and told of refusals has its bounds") {
  Rig rig;
  std::vector<Refused> told;
  RefusalLog log(*rig.reactor, [&](Refused&& refused) { told.push_back(std::move(refused)); });
  for (int at = 0; at < 10'000; ++at) {
    Refused refused;
    refused.set_kind(at % 2 == 0 ? Refused::CONNECTION : Refused::FAILED);
    refused.set_name(at < 9'000 ? std::string(240, 'n') + std::to_string(at) : "often.test");
    refused.set_reason(at < 9'000 ? std::string(100'000, 'r') : "once more");
    refused.set_rule("policy.yaml:1");
    log.add(std::move(refused));
  }
  REQUIRE(told.size() == 200);
  CHECK(told[0].reason().size() < 600);
  log.flush();
  REQUIRE(told.size() == 202);
  CHECK(told[200].more() + told[201].more() + 202 == 10'000);
  CHECK(told[200].kind() != told[201].kind());
  Snapshot snapshot;
  log.describe(snapshot);
  CHECK(snapshot.refused() == 5'000);
  CHECK(snapshot.failed() == 5'000);
  CHECK(snapshot.refusals_size() == RefusalLog::kMostDescribed + 1);
  std::uint64_t all = 0;
  for (const Refusals& refusals : snapshot.refusals()) all += refusals.count();
  CHECK(all == 5'000);  // denials
  CHECK(snapshot.ByteSizeLong() < 64'000);
}

TEST_CASE("repeats of a refusal are told as one event, and leave room for what is new") {
  Rig rig;
  std::vector<Refused> told;
  RefusalLog log(*rig.reactor, [&](Refused&& refused) { told.push_back(std::move(refused)); });
  const auto add = [&](const std::string& name, Refused::Kind kind) {
    Refused refused;
    refused.set_kind(kind);
    refused.set_name(name);
    refused.set_port(443);
    refused.set_reason("not allowed");
    log.add(std::move(refused));
  };
  for (int at = 0; at < 1'000; ++at) add("again.test", Refused::CONNECTION);
  for (int at = 0; at < 10; ++at) add("again.test", Refused::FAILED);
  CHECK(told.size() == 6);
  for (int at = 0; at < 190; ++at) add("new" + std::to_string(at) + ".test", Refused::CONNECTION);
  CHECK(told.size() == 196);
  // A second later each has the rest of its own.
  REQUIRE(rig.until([&] { return told.size() >= 198; }));
  CHECK(told.size() == 198);
  CHECK(told[196].name() == "again.test");
  CHECK(told[196].kind() == Refused::CONNECTION);
  CHECK(told[196].more() == 996);
  CHECK(told[197].kind() == Refused::FAILED);
  CHECK(told[197].more() == 6);
  add("again.test", Refused::CONNECTION);
  CHECK(told.size() == 199);

  // The bucket fills up by 50 a second.
  for (int at = 0; at < 1'000; ++at) add("more" + std::to_string(at) + ".test", Refused::CONNECTION);
  CHECK(told.size() < 300);
  const std::size_t at_once = told.size();
  log.flush();
  CHECK(told.size() == at_once + 1);
  std::uint64_t all = 0;
  for (const Refused& event : told) all += 1 + event.more();
  CHECK(all == 1'000 + 10 + 190 + 1 + 1'000);
}

TEST_CASE("without descriptors left a connection is refused, and the next one passes again") {
  Rig rig;
  const Fd listener = rig.listen(kServer4, kAnyPort);
  Peer agent = rig.connect("allowed.test", kAnyPort);
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  const Fd probe(dup(listener.get()));
  rlimit few = before;
  few.rlim_cur = static_cast<rlim_t>(probe.get()) + 2;  // the accepted socket, and nothing more
  REQUIRE(setrlimit(RLIMIT_NOFILE, &few) == 0);
  const bool was_reset = rig.until([&] { return agent.reset(); });
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(was_reset);
  CHECK(rig.refusal().kind() == Refused::FAILED);
  CHECK_MESSAGE(rig.refusal().reason().find("Too many open files") != std::string::npos, rig.refusal().reason());
  Peer again = rig.connect("allowed.test", kAnyPort);
  CHECK(rig.accept(listener).valid());
}

TEST_CASE("a server that does not answer costs dial_ms") {
  Rig rig;
  rig.rules.mutable_limits()->set_dial_ms(300);
  const Fd full = rig.listen(kServer4, kAnyPort, 0);
  const Peer first = rig.connect("allowed.test", kAnyPort);
  REQUIRE(rig.until([&] { return rig.opened.size() == 1; }));  // it fills the backlog: nobody accepts
  Peer agent = rig.connect("allowed.test", kAnyPort);
  CHECK(rig.until([&] { return agent.reset(); }));
  const Refused refused = rig.refusal();
  CHECK(refused.kind() == Refused::FAILED);
  CHECK(refused.reason() == "no answer from 127.0.0.1");
  CHECK(refused.address() == "127.0.0.1");
  CHECK(refused.port() == kAnyPort);
  CHECK(refused.rule() == "policy.yaml:10");
}

TEST_CASE("of several addresses those that are not allowed are left out, and the next one is tried when one fails") {
  Rig rig;
  rig.rules.clear_hosts();
  for (const char* address : {"10.1.2.3", "127.0.0.9", "127.0.0.1"}) Rig::map(rig.rules, "allowed.test", address);
  const Fd listener = rig.listen(kServer4, kAnyPort);
  const Peer agent = rig.connect("allowed.test", kAnyPort);
  CHECK(rig.accept(listener).valid());
  REQUIRE(rig.until([&] { return !rig.opened.empty(); }));
  CHECK(rig.opened[0].address() == kServer4);
  CHECK(rig.refused.empty());
}

TEST_CASE("an address that does not answer does not keep the next one waiting") {
  Rig rig;
  rig.rules.clear_hosts();
  for (const char* address : {"127.0.0.2", "127.0.0.1"}) Rig::map(rig.rules, "allowed.test", address);
  const Fd full = rig.listen("127.0.0.2", kAnyPort, 0);
  const Peer first = rig.connect("allowed.test", kAnyPort);
  REQUIRE(rig.until([&] { return rig.opened.size() == 1; }));
  CHECK(rig.opened[0].address() == "127.0.0.2");
  const Fd listener = rig.listen(kServer4, kAnyPort);
  const Peer second = rig.connect("allowed.test", kAnyPort);
  CHECK(rig.until([&] { return rig.opened.size() == 2; }));
  CHECK(rig.opened[1].address() == kServer4);
}

TEST_CASE("a name that is not mapped is looked up, and a failure says so") {
  Rig rig;
  CHECK(rig.resolver->use_servers({"127.0.0.1:9"}).empty());
  rig.rules.mutable_limits()->set_dial_ms(300);
  Peer agent = rig.connect("unknown.test", kAnyPort);
  CHECK(rig.until([&] { return agent.reset(); }));
  CHECK(rig.refusal().kind() == Refused::FAILED);
  CHECK_MESSAGE(rig.refusal().reason().find("DNS") != std::string::npos, rig.refusal().reason());
}

}  // namespace
