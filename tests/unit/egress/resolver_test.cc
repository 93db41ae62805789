#include "supervisor/egress/resolver.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <map>
#include <utility>

#include <doctest/doctest.h>

#include "dns_wire.h"
#include "fake_dns.h"
#include "supervisor/egress/upstream.h"

namespace kai::egress {
namespace {

using Status = Resolved::Status;
using Asked = FakeDns::Asked;
using std::chrono::milliseconds, std::chrono::seconds;

/// One lookup of a test, and what came of it.
struct Call {
  std::unique_ptr<Resolver::Lookup> lookup;
  std::optional<Resolved> resolved;
  Clock::time_point begun = Clock::now(), ended{};

  void start(Resolver& resolver, const std::string& name) {
    lookup = resolver.lookup(name, [this](const Resolved& what) {
      CHECK_FALSE(resolved);
      resolved = what;
      ended = Clock::now();
    });
  }
  [[nodiscard]] std::vector<std::string> addresses() const {
    std::vector<std::string> texts;
    for (const Address& address : resolved->addresses) texts.push_back(address_text(address));
    return texts;
  }
  [[nodiscard]] milliseconds took() const { return std::chrono::duration_cast<milliseconds>(ended - begun); }
};

struct Rig {
  std::unique_ptr<Reactor> reactor = *Reactor::create();
  Resolver resolver{*reactor};

  std::unique_ptr<FakeDns> server(FakeDns::Behaviour behaviour) {
    return std::make_unique<FakeDns>(*reactor, std::move(behaviour));
  }
  void use(const std::vector<const FakeDns*>& servers) {
    std::vector<std::string> texts;
    for (const FakeDns* one : servers) texts.push_back(one->address());
    CHECK(resolver.use_servers(texts).empty());
  }
  Resolved resolve(const std::string& name, milliseconds patience = seconds(10)) {
    Call call;
    call.start(resolver, name);
    REQUIRE(turn_until(
        *reactor, [&] { return call.resolved.has_value(); }, patience));
    return *call.resolved;
  }
  std::vector<std::string> addresses(const std::string& name) {
    Call call;
    call.resolved = resolve(name);
    CHECK(call.resolved->status == Status::kFound);
    return call.addresses();
  }
};

using Texts = std::vector<std::string>;
const Texts kOne = {"93.184.216.1", "2606:2800::1"};

TEST_CASE("A name leads to its addresses, and is known for their time") {
  Rig rig;
  const auto server = rig.server(one_address());
  rig.use({server.get()});
  CHECK(rig.addresses("www.test") == kOne);
  CHECK(server->asked.size() == 2);
  Call again;
  again.start(rig.resolver, "www.test");
  CHECK(again.lookup == nullptr);
  REQUIRE(again.resolved);
  CHECK(again.addresses() == kOne);
  CHECK(server->asked.size() == 2);
  CHECK(server->asked[0].edns);
  rig.use({server.get()});  // others: what these said is forgotten
  CHECK(rig.addresses("www.test") == kOne);
  CHECK(server->asked.size() == 4);
}

TEST_CASE("Each question has another id, port and case") {
  Rig rig;
  const auto server = rig.server(one_address());
  rig.use({server.get()});
  std::map<std::string, int> ids, ports, cases;
  for (int at = 0; at < 20; ++at) rig.addresses("name-" + std::to_string(at) + ".long-enough.example");
  for (const Asked& asked : server->asked) {
    ++ids[u16(asked.id)];
    ++cases[asked.question.substr(asked.question.find('\x0B'), 12)];
    sockaddr_in peer{};
    std::memcpy(&peer, &asked.peer, sizeof peer);
    ++ports[u16(peer.sin_port)];
  }
  CHECK(ids.size() > 30);
  CHECK(ports.size() > 30);
  CHECK(cases.size() > 30);
}

TEST_CASE("IPv6 servers are asked too") {
  Rig rig;
  FakeDns server(*rig.reactor, one_address(), "::1");
  rig.use({&server});
  CHECK(rig.addresses("www.test") == kOne);
}

TEST_CASE("What is not the answer is passed over, and the answer still taken") {
  Rig rig;
  const auto server = rig.server([](const Asked& asked) {
    const std::string lie =
        wire_record(pointer(12), asked.type, 300, asked.type == kTypeA ? a_data(66) : aaaa_data(66));
    const std::string right = asked.message(1, lie);
    asked.send("");
    asked.send("x");
    asked.send(std::string(4000, '\xC0'));
    asked.send(u16(asked.id + 1U) + right.substr(2));
    asked.send(wire_header(asked.id, 0x0100, 1, 1) + asked.question + lie);
    asked.send(wire_header(asked.id, 0x8180, 1, 1) + wire_question("other.test", asked.type) + lie);
    asked.send(wire_header(asked.id, 0x8180, 0, 0));
    asked.send(right.substr(0, right.size() - 1));
    for (int at = 0; at < 60; ++at) asked.send(u16(asked.id ^ 0xFFU) + right.substr(2));
    one_address()(asked);
  });
  rig.use({server.get()});
  CHECK(rig.addresses("www.test") == kOne);
  CHECK(server->asked.size() == 2);
}

TEST_CASE("Nobody but the server that was asked can answer") {
  Rig rig;
  const Fd liar(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto server = rig.server([&](const Asked& asked) {
    const std::string lie =
        asked.message(1, wire_record(pointer(12), asked.type, 300, asked.type == kTypeA ? a_data(66) : aaaa_data(66)));
    CHECK(sendto(liar.get(), lie.data(), lie.size(), 0, reinterpret_cast<const sockaddr*>(&asked.peer),
                 sizeof(sockaddr_in)) > 0);
    one_address()(asked);
  });
  rig.use({server.get()});
  CHECK(rig.addresses("www.test") == kOne);
}

TEST_CASE("A server that fails, refuses or is not there is passed over at once") {
  Rig rig;
  const auto good = rig.server(one_address());
  std::uint16_t rcode = 2;
  const auto bad =
      rig.server([&](const Asked& asked) { asked.answer(0, "", static_cast<std::uint16_t>(0x8180 | rcode)); });
  rig.use({bad.get(), good.get()});
  for (const std::uint16_t code : std::array<std::uint16_t, 5>{1, 2, 4, 5, 9}) {
    rcode = code;
    CHECK(rig.addresses("www" + std::to_string(code) + ".test") == kOne);
  }
  std::string closed;
  {
    const auto gone = rig.server(one_address());
    closed = gone->address();
  }
  CHECK(rig.resolver.use_servers({closed, good->address()}).empty());
  Call call;
  call.start(rig.resolver, "closed.test");
  REQUIRE(turn_until(*rig.reactor, [&] { return call.resolved.has_value(); }));
  CHECK(call.addresses() == kOne);
  CHECK(call.took() < seconds(1));
  CHECK(rig.resolver.use_servers({closed}).empty());
  const Resolved failed = rig.resolve("nobody.test");
  CHECK(failed.status == Status::kFailed);
  CHECK(failed.detail.find(closed) != std::string::npos);
  CHECK(failed.detail.find("Connection refused") != std::string::npos);
}

TEST_CASE("When all servers fail, the lookup does, for a second") {
  Rig rig;
  const auto server = rig.server([](const Asked& asked) { asked.answer(0, "", 0x8182); });
  rig.use({server.get()});
  const Resolved failed = rig.resolve("www.test");
  CHECK(failed.status == Status::kFailed);
  CHECK(failed.detail == server->address() + " answered SERVFAIL");
  CHECK(server->asked.size() == 4);  // twice, for each family
  CHECK(server->asked.back().edns == false);
  Call again;
  again.start(rig.resolver, "www.test");
  CHECK(again.resolved);
  CHECK(server->asked.size() == 4);
  server->behaviour = one_address();
  CHECK(turn_until(
      *rig.reactor, [&] { return rig.resolve("www.test").status == Status::kFound; }, seconds(3)));
}

TEST_CASE("An answer that is cut off is asked for again by TCP") {
  Rig rig;
  const auto server = rig.server([](const Asked& asked) {
    if (!asked.tcp) return asked.answer(0, "", 0x8380);
    const bool v4 = asked.type == kTypeA;
    const std::string record = wire_record(pointer(12), asked.type, 300, v4 ? a_data(1) : aaaa_data(1));
    const std::string whole = asked.message(1, record);
    for (const char c : u16(whole.size()) + whole) asked.send(std::string(1, c));
  });
  rig.use({server.get()});
  CHECK(rig.addresses("www.test") == kOne);
}

TEST_CASE("A server that changes the question's case is asked by TCP, where nobody else can answer") {
  Rig rig;
  const auto server = rig.server([](const Asked& asked) {
    const std::string record =
        wire_record(pointer(12), asked.type, 300, asked.type == kTypeA ? a_data(1) : aaaa_data(1));
    const std::string whole = wire_header(asked.id, 0x8180, 1, 1) + wire_question(asked.name, asked.type) + record;
    asked.send(asked.tcp ? u16(whole.size()) + whole : whole);
  });
  rig.use({server.get()});
  CHECK(rig.addresses("a-name-with-many-letters.test") == kOne);
  CHECK(server->asked.size() == 4);
}

TEST_CASE("What is wrong by TCP makes the next server's turn") {
  Rig rig;
  const auto good = rig.server(one_address());
  enum class Fault { kHalf, kNothing, kLie, kCutOff } fault{};
  const auto bad = rig.server([&](const Asked& asked) {
    if (!asked.tcp) return asked.answer(0, "", 0x8380);
    const std::string whole = asked.message(0, "");
    if (fault == Fault::kHalf) asked.send(u16(whole.size()) + whole.substr(0, whole.size() / 2));
    if (fault == Fault::kLie) asked.send(u16(whole.size()) + u16(asked.id + 1U) + whole.substr(2));
    if (fault == Fault::kCutOff) return asked.answer(0, "", 0x8380);
    asked.close();
  });
  rig.use({bad.get(), good.get()});
  for (const Fault one : {Fault::kHalf, Fault::kNothing, Fault::kLie, Fault::kCutOff}) {
    fault = one;
    CHECK(rig.addresses("www" + std::to_string(static_cast<int>(one)) + ".test") == kOne);
  }
}

TEST_CASE("CNAMEs are followed to their end, and a circle of them is no answer") {
  Rig rig;
  const auto server = rig.server([](const Asked& asked) {
    const auto cname = [](const char* from, const char* to) {
      return wire_record(wire_name(from), kTypeCname, 300, wire_name(to));
    };
    if (asked.name == "circle.test")
      return asked.answer(2, cname("circle.test", "b.test") + cname("b.test", "circle.test"));
    const std::string data = asked.type == kTypeA ? a_data(1) : aaaa_data(1);
    asked.answer(3, cname("www.test", "edge.cdn.test") +
                        wire_record(wire_name("edge.cdn.test"), asked.type, 300, data) +
                        wire_record(wire_name("evil.test"), asked.type, 300, data));
  });
  rig.use({server.get()});
  CHECK(rig.addresses("www.test") == kOne);
  const Resolved circle = rig.resolve("circle.test");
  CHECK(circle.status == Status::kFailed);
  CHECK(circle.detail.find("CNAME") != std::string::npos);
}

TEST_CASE("Of too many addresses, each family has its half") {
  Rig rig;
  bool only_v4 = false;
  const auto server = rig.server([&](const Asked& asked) {
    if (only_v4 && asked.type == kTypeAaaa) return asked.answer(0, "");
    std::string records;
    for (std::uint8_t at = 0; at < 100; ++at) {
      records += wire_record(pointer(12), asked.type, 300, asked.type == kTypeA ? a_data(at) : aaaa_data(at));
    }
    asked.answer(100, records);
  });
  rig.use({server.get()});
  const auto both = rig.addresses("both.test");
  REQUIRE(both.size() == 16);
  CHECK(both[7] == "93.184.216.7");
  CHECK(both[8] == "2606:2800::");
  only_v4 = true;
  CHECK(rig.addresses("four.test").size() == 16);
}

TEST_CASE("No such name and no address are told apart, and kept as long as the SOA says") {
  Rig rig;
  const auto server = rig.server([](const Asked& asked) {
    const std::string soa = wire_record(wire_name("test"), kTypeSoa, 900, soa_data(600));
    if (asked.name == "none.test") return asked.answer(0, soa, 0x8183, 1);
    if (asked.name == "odd.test" && asked.type == kTypeAaaa) return asked.answer(0, soa, 0x8183, 1);
    asked.answer(0, "");
  });
  rig.use({server.get()});
  CHECK(rig.resolve("none.test").status == Status::kNoName);
  CHECK(rig.resolve("empty.test").status == Status::kNoAddress);
  CHECK(rig.resolve("odd.test").status == Status::kNoAddress);
  const std::size_t asked = server->asked.size();
  CHECK(rig.resolve("none.test").status == Status::kNoName);
  CHECK(rig.resolve("empty.test").status == Status::kNoAddress);
  CHECK(server->asked.size() == asked);
}

TEST_CASE("A question is asked once for all who wait, and not for those who are gone") {
  Rig rig;
  std::vector<Asked> held;
  const auto server = rig.server([&](const Asked& asked) { held.push_back(asked); });
  rig.use({server.get()});
  Call first, second, third, gone;
  first.start(rig.resolver, "www.test");
  second.start(rig.resolver, "www.test");
  third.start(rig.resolver, "www.test");
  gone.start(rig.resolver, "gone.test");
  second.lookup.reset();
  REQUIRE(turn_until(*rig.reactor, [&] { return held.size() == 4; }));
  gone.lookup.reset();
  for (const Asked& asked : held) one_address()(asked);
  REQUIRE(turn_until(*rig.reactor, [&] { return first.resolved && third.resolved; }));
  CHECK_FALSE(second.resolved);
  CHECK_FALSE(gone.resolved);
  CHECK(server->asked_of("www.test", kTypeA) == 1);
  Call again;  // nothing was kept of what nobody waited for
  again.start(rig.resolver, "gone.test");
  CHECK_FALSE(again.resolved);
}

TEST_CASE("Whoever is called may end its lookup, others', ask again, or end the resolver") {
  const auto reactor = *Reactor::create();
  auto resolver = std::make_unique<Resolver>(*reactor);
  FakeDns server(*reactor, one_address());
  CHECK(resolver->use_servers({server.address()}).empty());
  std::unique_ptr<Resolver::Lookup> first, second, third;
  int called = 0;
  first = resolver->lookup("www.test", [&](const Resolved&) {
    ++called;
    first.reset();
    second.reset();
    CHECK(resolver->lookup(
              "www.test", [&](const Resolved& known) { called += known.status == Status::kFound ? 1 : 0; }) == nullptr);
    third = resolver->lookup("other.test", [&](const Resolved&) {
      ++called;
      resolver.reset();
    });
  });
  second = resolver->lookup("www.test", [&](const Resolved&) { FAIL("its lookup has ended"); });
  REQUIRE(turn_until(*reactor, [&] { return resolver == nullptr; }));
  CHECK(called == 3);
}

TEST_CASE("So many lookups at once, and no more") {
  Rig rig;
  const auto server = rig.server([](const Asked&) {});
  rig.use({server.get()});
  std::vector<std::unique_ptr<Resolver::Lookup>> lookups;
  std::size_t failed = 0;
  for (std::size_t at = 0; at < Resolver::kMaxLookups + 10; ++at) {
    lookups.push_back(rig.resolver.lookup("n" + std::to_string(at) + ".test", [&](const Resolved& resolved) {
      CHECK(resolved.status == Status::kFailed);
      ++failed;
    }));
  }
  CHECK(failed >= 10);  // more where this process may not have so many descriptors
  lookups.clear();
  const auto quiet = [&, before = std::size_t{0}]() mutable {
    return std::exchange(before, server->asked.size()) == server->asked.size();
  };
  CHECK(turn_until(*rig.reactor, quiet));  // what was asked is read, or it would stand before the next question
  server->behaviour = one_address();
  CHECK(rig.addresses("after.test") == kOne);
}

TEST_CASE("Without a server, and of what is no name, nothing is looked up") {
  Rig rig;
  CHECK(rig.resolve("www.test").status == Status::kFailed);
  const auto server = rig.server(one_address());
  rig.use({server.get()});
  CHECK(rig.resolve("a..b").status == Status::kFailed);
  CHECK(server->asked.empty());
}

TEST_CASE("Servers are addresses, with a port or without") {
  Rig rig;
  CHECK(rig.resolver.use_servers({"9.9.9.9", "2620:fe::fe", "[2620:fe::fe]", "[2620:fe::fe]:5353", "127.0.0.1:5353"})
            .empty());
  const Texts wrong = {"",     "dns.test", "9.9.9.9:",     "9.9.9.9:0", "9.9.9.9:65536", "9.9.9.9:x", "[9.9.9.9]:53",
                       "[::1", "[::1]53",  "fe80::1%eth0", "9.9.9"};
  CHECK(rig.resolver.use_servers(wrong) == wrong);
}

TEST_CASE("nameserver lines of resolv.conf are found whatever stands around them") {
  CHECK(Resolver::servers_of("# nameserver 1.1.1.1\nsearch a b\nnameserver 9.9.9.9\n\tnameserver\t::1 # x\r\n"
                             "nameserver\nnameservers 8.8.8.8\noptions edns0\nnameserver 127.0.0.53") ==
        Texts{"9.9.9.9", "::1", "127.0.0.53"});
  CHECK(Resolver::servers_of("").empty());
}

TEST_CASE("Slow servers cost one lookup its deadline, and nobody else anything") {
  Rig rig;
  std::vector<Asked> held;
  const auto silent = rig.server([&](const Asked& asked) {
    if (asked.name == "half.test" && asked.type == kTypeA) return one_address()(asked);
    if (asked.name == "liar.test") asked.send(asked.message(0, "").substr(1));
    held.push_back(asked);
  });
  const auto second = rig.server([&](const Asked& asked) {
    if (asked.name == "second.test") return one_address()(asked);
    if (asked.name == "stream.test" && !asked.tcp) return asked.answer(0, "", 0x8380);
    if (asked.tcp) asked.send("\1");
    held.push_back(asked);
  });
  rig.use({silent.get(), second.get()});
  Call slow, liar, stream, half, next;
  slow.start(rig.resolver, "slow.test");
  liar.start(rig.resolver, "liar.test");
  stream.start(rig.resolver, "stream.test");
  half.start(rig.resolver, "half.test");
  next.start(rig.resolver, "second.test");
  REQUIRE(turn_until(
      *rig.reactor, [&] { return slow.resolved && liar.resolved && stream.resolved && half.resolved && next.resolved; },
      seconds(20)));
  for (const Call* call : {&slow, &liar, &stream}) {
    CHECK(call->resolved->status == Status::kFailed);
    CHECK(call->took() >= milliseconds(7900));
    CHECK(call->took() < seconds(10));
  }
  CHECK(liar.resolved->detail.find("did not answer within 2 s") != std::string::npos);
  // One family is enough, and the other has a second; then the first server's silence is behind us after two.
  CHECK(half.addresses() == Texts{"93.184.216.1"});
  CHECK(half.took() < seconds(2));
  CHECK(next.addresses() == kOne);
  CHECK(next.took() < seconds(4));
  for (const Asked& asked : held) asked.answer(0, "");  // too late: nobody is there any more
  CHECK(rig.addresses("second.test") == kOne);
}

}  // namespace
}  // namespace kai::egress
