#include "supervisor/egress/dns_server.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <resolv.h>
#include <sched.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <thread>
#include <utility>

#include <arpa/inet.h>
#include <doctest/doctest.h>

#include "dns_rig.h"
#include "dns_wire.h"

namespace kai::egress {
namespace {

using std::chrono::milliseconds, std::chrono::seconds;

constexpr int kServerFailure = 2, kNoName = 3, kRefused = 5;

/// Programs of one agent that ask at the same time, each without the others: a socket's queue has room for few answers.
class Crowd {
 public:
  explicit Crowd(std::size_t programs = 50) {
    for (std::size_t at = 0; at < programs; ++at) sockets_.push_back(DnsRig::client());
  }
  void send(const std::string& name, std::uint16_t type) {
    const std::string question = DnsRig::question(name, type);
    const Fd& socket = sockets_[next_++ % sockets_.size()];
    REQUIRE(::send(socket.get(), question.data(), question.size(), 0) > 0);
  }
  /// And lets the loop turn now and then, which is a process of its own in truth.
  void ask(DnsRig& rig, const std::string& name, std::uint16_t type) {
    send(name, type);
    if (next_ % 50 == 0) REQUIRE(rig.reactor->turn(milliseconds(0)));
  }
  /// How many answers came until now.
  int receive() {
    std::array<char, 4096> buffer{};
    for (const Fd& socket : sockets_) {
      for (ssize_t size; (size = recv(socket.get(), buffer.data(), buffer.size(), 0)) >= 0; ++received_) {
        ++rcodes[DnsRig::read_answer(std::string(buffer.data(), static_cast<std::size_t>(size)))->rcode()];
      }
    }
    return received_;
  }

  std::map<int, int> rcodes;  ///< how often each came

 private:
  std::vector<Fd> sockets_;
  std::size_t next_ = 0;
  int received_ = 0;
};

TEST_CASE("An allowed name has addresses that stand for it, whatever address is asked") {
  DnsRig rig;
  for (const char* server : {"8.8.8.8", "127.0.0.1", "127.0.0.53", "192.168.1.1", "::1", "2001:4860:4860::8888"}) {
    CAPTURE(server);
    const auto v4 = rig.ask("allowed.test", kTypeA, server);
    REQUIRE(v4);
    CHECK(v4->rcode() == 0);
    CHECK(v4->id == 0x1234);
    CHECK(v4->authorities == 0);
    CHECK(v4->additionals == 1);
    CHECK(rig.names->name_of(*read_address(v4->address())) == "allowed.test");
    const auto v6 = rig.ask("allowed.test", kTypeAaaa, server);
    REQUIRE(v6);
    CHECK(rig.names->name_of(*read_address(v6->address())) == "allowed.test");
  }
  CHECK(rig.refused.empty());
  CHECK(rig.server->questions() == 12);
}

TEST_CASE("A question comes back as it was asked") {
  DnsRig rig;
  const auto answer = rig.ask("aLLoWeD.tEsT", kTypeA);
  REQUIRE(answer);
  CHECK(answer->question == wire_question("aLLoWeD.tEsT", kTypeA));
  CHECK(rig.names->name_of(*read_address(answer->address())) == "allowed.test");
}

TEST_CASE("Every other type of an allowed name is empty, and nobody is asked for it") {
  DnsRig rig;
  for (const std::uint16_t type :
       std::array<std::uint16_t, 12>{kTypeNs, kTypeCname, kTypeSoa, kTypePtr, kTypeMx, kTypeTxt, kTypeSrv, kTypeSvcb,
                                     kTypeHttps, kTypeAny, 43, 65280}) {
    CAPTURE(type);
    const auto answer = rig.ask("allowed.test", type);
    REQUIRE(answer);
    CHECK(answer->rcode() == 0);
    CHECK(answer->answers == 0);
    CHECK(answer->authorities == 0);
  }
  CHECK(rig.upstream->asked.empty());
  CHECK(rig.refused.empty());
}

TEST_CASE("A name that no rule allows is refused, with the reason, and told once") {
  DnsRig rig;
  for (const std::uint16_t type : std::array<std::uint16_t, 3>{kTypeA, kTypeAaaa, kTypeHttps}) {
    const auto answer = rig.ask("other.test", type);
    REQUIRE(answer);
    CHECK(answer->rcode() == kRefused);
    CHECK(answer->answers == 0);
    CHECK(answer->says(u16(18) + rig.refused.at(0).reason.substr(0, 100)));
  }
  REQUIRE(rig.refused.size() == 1);
  CHECK(rig.refused[0].name == "other.test");
  CHECK_FALSE(rig.refused[0].failed);
  CHECK_FALSE(rig.refused[0].reason.empty());
  CHECK(rig.upstream->asked.empty());
  // Without EDNS there is no place for it.
  const auto plain = rig.ask_bytes(wire_header(1, 0x0100, 1, 0) + wire_question("other.test", kTypeA));
  REQUIRE(plain);
  CHECK(plain->rcode() == kRefused);
  CHECK(plain->rest.empty());
}

TEST_CASE("What only looks like an allowed name is refused") {
  DnsRig rig;
  for (const char* name :
       {"evilallowed.test", "wide.test", "evilwide.test", "allowed.test.evil.com", "test", "xallowed.test"}) {
    CAPTURE(name);
    const auto answer = rig.ask(name, kTypeA);
    REQUIRE(answer);
    CHECK(answer->rcode() == kRefused);
  }
  // One label with a dot in it, or with NUL.
  for (const std::string& label : {std::string("x.wide.test"), std::string("allowed\0test", 12)}) {
    const std::string name = static_cast<char>(label.size()) + label + std::string(1, '\0');
    const auto answer = rig.ask_bytes(wire_header(1, 0x0100, 1, 0) + name + u16(kTypeA) + u16(1));
    REQUIRE(answer);
    CHECK(answer->rcode() == kRefused);
  }
  CHECK(rig.refused.back().name == "allowed\\000test");
}

TEST_CASE("A name of the policy's hosts is not looked up") {
  DnsRig rig;
  const auto answer = rig.ask("mapped.test", kTypeA);
  REQUIRE(answer);
  CHECK(rig.names->name_of(*read_address(answer->address())) == "mapped.test");
  CHECK(rig.upstream->asked.empty());
}

TEST_CASE("A name that does not exist, has no address, or cannot be resolved says so") {
  DnsRig rig;
  const auto none = rig.ask("none.test", kTypeA);
  REQUIRE(none);
  CHECK(none->rcode() == kNoName);
  const auto empty = rig.ask("empty.test", kTypeA);
  REQUIRE(empty);
  CHECK(empty->rcode() == 0);
  CHECK(empty->answers == 0);
  const auto broken = rig.ask("broken.test", kTypeAaaa);
  REQUIRE(broken);
  CHECK(broken->rcode() == kServerFailure);
  CHECK(broken->says("answered SERVFAIL"));
  REQUIRE(rig.refused.size() == 3);
  for (const RefusedLookup& one : rig.refused) {
    CHECK(one.failed);
    CHECK(one.rule == "policy.yaml:7");
  }
  CHECK(rig.names->entries().empty());
}

TEST_CASE("localhost is the agent's own, whatever the rules say") {
  DnsRig rig;
  CHECK(rig.ask("localhost", kTypeA)->address() == "127.0.0.1");
  CHECK(rig.ask("LOCALHOST", kTypeAaaa)->address() == "::1");
  CHECK(rig.ask("db.localhost", kTypeA)->address() == "127.0.0.1");
  CHECK(rig.ask("localhost", kTypeMx)->answers == 0);
  CHECK(rig.refused.empty());
  CHECK(rig.upstream->asked.empty());
}

TEST_CASE("The reverse of an address that stands for a name is the name") {
  DnsRig rig;
  const auto address = read_address(rig.ask("allowed.test", kTypeA)->address());
  const auto& bytes = address->bytes;
  const std::string reverse = std::to_string(bytes[3]) + "." + std::to_string(bytes[2]) + "." +
                              std::to_string(bytes[1]) + "." + std::to_string(bytes[0]) + ".in-addr.arpa";
  const auto answer = rig.ask(reverse, kTypePtr);
  REQUIRE(answer);
  CHECK(answer->answers == 1);
  CHECK(answer->says(wire_name("allowed.test")));
  CHECK(rig.ask("1.0.0.127.in-addr.arpa", kTypePtr)->says(wire_name("localhost")));
  CHECK(rig.ask("7.7.19.198.in-addr.arpa", kTypePtr)->rcode() == kNoName);
  CHECK(rig.refused.empty());
  CHECK(rig.ask("8.8.8.8.in-addr.arpa", kTypePtr)->rcode() == kRefused);
  CHECK(rig.refused.size() == 1);
}

TEST_CASE("What is no question is answered as RFC 1035 says, or not at all") {
  DnsRig rig;
  CHECK(rig.ask_bytes(wire_header(1, 0x1000, 1, 0) + wire_question("allowed.test", 1))->rcode() == 4);
  CHECK(rig.ask_bytes(wire_header(1, 0x0100, 0, 0))->rcode() == 1);
  CHECK(rig.ask_bytes(wire_header(1, 0x0100, 1, 0) + pointer(12) + u16(1) + u16(1))->rcode() == 1);
  CHECK(rig.ask_bytes(wire_header(1, 0x0100, 1, 0) + wire_question("allowed.test", 1, 3))->rcode() == kRefused);
  CHECK(rig.ask_bytes(wire_header(1, 0x0100, 1, 0) + wire_question("allowed.test", 252))->rcode() == 4);
  CHECK(rig.ask_bytes(wire_header(1, 0x0100, 1, 0, 0, 1) + wire_question("allowed.test", 1) + wire_opt(512, 1U << 16U))
            ->says(wire_opt(1232, 1U << 24U)));
  CHECK(rig.ask_bytes(DnsRig::question("allowed.test", 1) + std::string(3000, 'x'))->rcode() == 1);
  for (const std::string& silent :
       {std::string("x"), std::string(11, '\0'), wire_header(1, 0x8180, 1, 0) + wire_question("allowed.test", 1)}) {
    CHECK_FALSE(rig.ask_bytes(silent, "8.8.8.8", milliseconds(100)));
  }
  CHECK(rig.refused.empty());
  CHECK(rig.ask("allowed.test", kTypeA)->answers == 1);
}

TEST_CASE("Below a pattern so much information passes, and no more; names that passed still do") {
  DnsRig rig;
  rig.rules.mutable_limits()->set_name_bits(400);
  rig.server->rules_changed();
  CHECK(rig.ask("www.wide.test", kTypeA)->answers == 1);
  CHECK(rig.ask("d1a2b3c4d5e6f7.wide.test", kTypeA)->answers == 1);
  const std::string data(60, 'z');
  const auto stopped = rig.ask(data + "." + data + ".wide.test", kTypeA);
  CHECK(stopped->rcode() == kRefused);
  CHECK(stopped->says("tunnel"));
  CHECK(rig.upstream->asked_of(data + "." + data + ".wide.test", kTypeA) == 0);
  REQUIRE(rig.refused.size() == 1);
  CHECK(rig.refused[0].rule == "policy.yaml:7");
  CHECK(rig.ask("www.wide.test", kTypeAaaa)->answers == 1);
  CHECK(rig.ask("allowed.test", kTypeA)->answers == 1);
}

TEST_CASE("Rules that change while a question waits decide on its answer") {
  DnsRig rig;
  std::vector<FakeDns::Asked> held;
  rig.upstream->behaviour = [&](const FakeDns::Asked& asked) { held.push_back(asked); };
  const Fd client = DnsRig::client();
  const std::string question = DnsRig::question("allowed.test", kTypeA);
  REQUIRE(send(client.get(), question.data(), question.size(), 0) > 0);
  REQUIRE(rig.until([&] { return held.size() == 2; }));
  rig.rules.clear_allowed();
  rig.server->rules_changed();
  std::array<char, 4096> buffer{};
  const ssize_t size = recv(client.get(), buffer.data(), buffer.size(), 0);
  REQUIRE(size > 0);
  const auto answer = DnsRig::read_answer(std::string(buffer.data(), static_cast<std::size_t>(size)));
  CHECK(answer->rcode() == kRefused);
  CHECK(answer->answers == 0);
  for (const auto& asked : held) one_address()(asked);
  CHECK(rig.ask("localhost", kTypeA)->answers == 1);
  CHECK(recv(client.get(), buffer.data(), buffer.size(), 0) < 0);
}

TEST_CASE("A cut network is told as that, once for whatever is asked, and what waits is refused at once") {
  DnsRig rig;
  std::size_t held = 0;
  rig.upstream->behaviour = [&](const FakeDns::Asked&) { ++held; };
  rig.rules.mutable_limits()->set_lookups(1);
  rig.rules.mutable_limits()->set_name_bits(100'000);
  rig.server->rules_changed();
  Crowd crowd(1);
  for (const char* name : {"allowed.test", "a.wide.test", "b.wide.test"}) crowd.ask(rig, name, kTypeA);
  REQUIRE(rig.until([&] { return held == 2; }));
  rig.rules.clear_limits();
  rig.server->rules_changed();
  crowd.receive();
  CHECK(crowd.rcodes == std::map<int, int>{{kRefused, 3}});
  for (const char* name : {"allowed.test", "mapped.test", "other.test", "x.wide.test"}) {
    const auto answer = rig.ask(name, kTypeA);
    REQUIRE(answer);
    CHECK(answer->rcode() == kRefused);
    CHECK(answer->says("its network is cut"));
  }
  REQUIRE(rig.refused.size() == 1);
  CHECK(rig.refused[0].reason.starts_with("its network is cut"));
  CHECK_FALSE(rig.refused[0].failed);
  CHECK(held == 2);
}

TEST_CASE("A server that ends while questions wait answers none of them") {
  DnsRig rig;
  std::size_t held = 0;
  rig.upstream->behaviour = [&](const FakeDns::Asked&) { ++held; };
  const Fd client = DnsRig::client();
  const std::string question = DnsRig::question("allowed.test", kTypeA);
  REQUIRE(send(client.get(), question.data(), question.size(), 0) > 0);
  REQUIRE(rig.until([&] { return held == 2; }));
  rig.server.reset();
  REQUIRE(rig.reactor->turn(milliseconds(0)));
}

constexpr int kPrograms = 500;

TEST_CASE("So many connections at once to one name that is known are all answered, whatever the limit of lookups") {
  for (const char* name : {"mapped.test", "allowed.test"}) {
    CAPTURE(name);
    DnsRig rig;
    REQUIRE(rig.ask(name, kTypeA));
    const std::size_t asked = rig.upstream->asked.size();
    rig.rules.mutable_limits()->set_lookups(0);
    rig.server->rules_changed();
    Crowd crowd;
    for (int at = 0; at < kPrograms; ++at) {
      crowd.ask(rig, name, kTypeA);
      crowd.ask(rig, name, kTypeAaaa);
    }
    CHECK(rig.until([&] { return crowd.receive() == 2 * kPrograms; }));
    CHECK(crowd.rcodes == std::map<int, int>{{0, 2 * kPrograms}});
    CHECK(rig.upstream->asked.size() == asked);
    CHECK(rig.refused.empty());
  }
}

TEST_CASE("So many connections at once to one name that nobody knows yet are one lookup") {
  DnsRig rig;
  std::vector<FakeDns::Asked> held;
  rig.upstream->behaviour = [&](const FakeDns::Asked& asked) { held.push_back(asked); };
  rig.rules.mutable_limits()->set_lookups(1);
  rig.server->rules_changed();
  Crowd crowd;
  for (int at = 0; at < kPrograms; ++at) {
    crowd.ask(rig, "allowed.test", kTypeA);
    crowd.ask(rig, "allowed.test", kTypeAaaa);
  }
  REQUIRE(rig.until([&] { return held.size() == 2 && rig.server->questions() == 2 * kPrograms; }));
  for (const auto& asked : held) one_address()(asked);
  CHECK(rig.until([&] { return crowd.receive() == 2 * kPrograms; }));
  CHECK(crowd.rcodes == std::map<int, int>{{0, 2 * kPrograms}});
  CHECK(rig.upstream->asked.size() == 2);
  CHECK(rig.refused.empty());
}

std::string nth(int number, const std::string& below) {
  return "n" + std::to_string(number) + "." + below;
}

TEST_CASE("New names beyond the limit wait for the next second") {
  DnsRig rig;
  rig.rules.mutable_limits()->set_lookups(100);
  rig.rules.mutable_limits()->set_name_bits(100'000);
  rig.server->rules_changed();
  const auto begun = Clock::now();
  Crowd crowd;
  constexpr int kNames = 200;
  for (int at = 0; at < kNames; ++at) crowd.ask(rig, nth(at, "wide.test"), kTypeA);
  CHECK(rig.until([&] { return crowd.receive() == kNames; }));
  CHECK(crowd.rcodes == std::map<int, int>{{0, kNames}});
  CHECK(Clock::now() - begun > milliseconds(900));
  CHECK(rig.refused.empty());
}

TEST_CASE("More new names than may wait fail at once, and that is no denial") {
  DnsRig rig;
  rig.rules.mutable_limits()->set_lookups(20);
  rig.rules.mutable_limits()->set_name_bits(1'000'000);
  rig.server->rules_changed();
  const auto begun = Clock::now();
  Crowd crowd;
  constexpr int kNames = 1000;
  for (int at = 0; at < kNames; ++at) crowd.ask(rig, nth(at, "wide.test"), kTypeA);
  (void)rig.until([&] { return crowd.receive() > 0 && Clock::now() - begun > milliseconds(1500); });
  const auto seconds_since = std::chrono::duration<double>(Clock::now() - begun).count();
  CHECK(static_cast<double>(rig.upstream->asked.size()) <= 2 * 20 * (1 + seconds_since));
  CHECK(rig.upstream->asked.size() > 2 * 20);
  CHECK(crowd.rcodes[kServerFailure] > kNames / 2);
  CHECK(crowd.rcodes[kRefused] == 0);
  REQUIRE(rig.refused.size() >= 1);
  CHECK(rig.refused.size() <= 3);
  for (const RefusedLookup& one : rig.refused) {
    CHECK(one.failed);
    CHECK(one.reason ==
          "256 other names wait to be looked up, at most 20 a second for one agent: have it look up fewer new names at "
          "once");
  }
}

TEST_CASE("So many names are asked for upstream at a time") {
  DnsRig rig;
  rig.rules.mutable_limits()->set_name_bits(100'000);
  rig.server->rules_changed();
  std::vector<FakeDns::Asked> held;
  rig.upstream->behaviour = [&](const FakeDns::Asked& asked) { held.push_back(asked); };
  Crowd crowd;
  constexpr int kNames = 100;
  for (int at = 0; at < kNames; ++at) crowd.ask(rig, nth(at, "wide.test"), kTypeA);
  REQUIRE(rig.until([&] { return rig.server->questions() == kNames && held.size() == 2 * DnsServer::kMaxLookups; }));
  rig.upstream->behaviour = one_address();
  for (const auto& asked : held) one_address()(asked);
  CHECK(rig.until([&] { return crowd.receive() == kNames; }));
  CHECK(crowd.rcodes == std::map<int, int>{{0, kNames}});
}

TEST_CASE("More questions for one name than may wait fail at once, and that is no denial") {
  DnsRig rig;
  rig.upstream->behaviour = [](const FakeDns::Asked&) {};
  Crowd crowd;
  constexpr int kMore = 100, kQuestions = static_cast<int>(DnsServer::kMaxWaiting) + kMore;
  for (int at = 0; at < kQuestions; ++at) {
    crowd.ask(rig, "allowed.test", kTypeA);
    if (at == kQuestions / 2) REQUIRE(rig.until([&] { return rig.server->questions() == kQuestions / 2 + 1; }));
  }
  CHECK(rig.until([&] { return crowd.receive() == kMore; }));
  CHECK(crowd.rcodes == std::map<int, int>{{kServerFailure, kMore}});
  REQUIRE(rig.refused.size() == 1);
  CHECK(rig.refused[0].failed);
}

TEST_CASE("A flood is read no faster than it may be, whatever it asks for") {
  for (const bool allowed : {true, false}) {
    CAPTURE(allowed);
    DnsRig rig;
    REQUIRE(rig.ask("allowed.test", kTypeA));
    const std::size_t asked = rig.upstream->asked.size();
    Crowd crowd;
    int sent = 0;
    const auto begun = Clock::now();
    (void)rig.until(
        [&] {
          for (int at = 0; at < 600; ++at)
            crowd.send(allowed ? "allowed.test" : nth(sent, "other.test"), kTypeA), ++sent;
          crowd.receive();
          return Clock::now() - begun > seconds(1);
        },
        seconds(5));
    const auto windows = static_cast<std::uint64_t>((Clock::now() - begun) / milliseconds(100)) + 2;
    CHECK(static_cast<std::uint64_t>(sent) > 2 * rig.server->questions());
    CHECK(rig.server->questions() <= 1024 + windows * 256);
    CHECK(rig.server->questions() >= 1024);
    CHECK(rig.upstream->asked.size() == asked);
    CHECK(rig.names->entries().size() == 1);
    CHECK(rig.refused.empty() == allowed);
    // The next test has the same queue: it shall be empty.
    const std::string last = DnsRig::question("localhost", kTypeA);
    CHECK(rig.until([&] { return rig.ask_bytes(last, "8.8.8.8", milliseconds(500)).has_value(); }));
  }
}

/// A DNS client over TCP.
struct Stream {
  DnsRig& rig;
  Fd socket = DnsRig::client(SOCK_STREAM);
  std::string received;
  bool ended = false;

  void send(const std::string& bytes) {
    std::size_t sent = 0;
    REQUIRE(rig.until([&] {
      const ssize_t took = ::send(socket.get(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (took > 0) sent += static_cast<std::size_t>(took);
      return sent == bytes.size() || (took < 0 && errno != EAGAIN && errno != ENOTCONN);
    }));
  }
  void ask(const std::string& question) { send(u16(question.size()) + question); }
  void receive() {
    std::array<char, 4096> buffer{};
    ssize_t size = -1;
    while ((size = recv(socket.get(), buffer.data(), buffer.size(), 0)) > 0)
      received.append(buffer.data(), static_cast<std::size_t>(size));
    ended = ended || size == 0 || (errno != EAGAIN && errno != ENOTCONN);
  }
  std::optional<DnsAnswer> next() {
    std::size_t size = 0;
    const bool came = rig.until([&] {
      receive();
      if (received.size() >= 2)
        size = static_cast<std::uint8_t>(received[0]) * 256U + static_cast<std::uint8_t>(received[1]);
      return (received.size() >= 2 && received.size() >= 2 + size) || ended;
    });
    if (!came || received.size() < 2 + size || size == 0) return std::nullopt;
    const auto answer = DnsRig::read_answer(received.substr(2, size));
    received.erase(0, 2 + size);
    return answer;
  }
  bool is_closed() {
    return rig.until([&] {
      receive();
      return ended;
    });
  }
};

TEST_CASE("Over TCP come several questions, in pieces or at once, and each has its answer") {
  DnsRig rig;
  Stream stream{rig};
  const std::string question = DnsRig::question("allowed.test", kTypeA, 1);
  for (const char c : u16(question.size()) + question) stream.send(std::string(1, c));
  CHECK(stream.next()->address().starts_with("198.18."));
  std::string many;
  for (std::uint16_t id = 10; id < 60; ++id) {
    const std::string one = DnsRig::question(id % 2 == 0 ? "allowed.test" : "other.test", kTypeAaaa, id);
    many += u16(one.size()) + one;
  }
  stream.send(many);
  for (std::uint16_t id = 10; id < 60; ++id) {
    const auto answer = stream.next();
    REQUIRE(answer);
    CHECK(answer->rcode() == (answer->id % 2 == 0 ? 0 : kRefused));
  }
  REQUIRE(shutdown(stream.socket.get(), SHUT_WR) == 0);
  CHECK(stream.is_closed());
}

TEST_CASE("A client that has said all over TCP still gets its answer") {
  DnsRig rig;
  std::vector<FakeDns::Asked> held;
  rig.upstream->behaviour = [&](const FakeDns::Asked& asked) { held.push_back(asked); };
  Stream stream{rig};
  stream.ask(DnsRig::question("allowed.test", kTypeA, 1));
  REQUIRE(shutdown(stream.socket.get(), SHUT_WR) == 0);
  REQUIRE(rig.until([&] { return held.size() == 2; }));
  for (const auto& asked : held) one_address()(asked);
  CHECK(stream.next()->answers == 1);
  CHECK(stream.is_closed());
}

TEST_CASE("What is no DNS over TCP is closed") {
  DnsRig rig;
  for (const std::string& bytes : {u16(4097) + "x", std::string("GET / HTTP/1.1\r\n\r\n"), u16(0), u16(3) + "abc",
                                   u16(12) + wire_header(1, 0x8180, 0, 0)}) {
    Stream stream{rig};
    stream.send(bytes);
    CHECK(stream.is_closed());
  }
}

TEST_CASE("So many connections for DNS at a time, and one that stands still is closed") {
  DnsRig rig;
  const auto begun = Clock::now();
  std::vector<std::unique_ptr<Stream>> streams;
  for (std::size_t at = 0; at < DnsServer::kMaxStreams; ++at) {
    const int receive_buffer = at + 1 == DnsServer::kMaxStreams ? 4096 : 0;
    streams.push_back(std::make_unique<Stream>(Stream{rig, DnsRig::client(SOCK_STREAM, "8.8.8.8", receive_buffer)}));
    streams.back()->ask(DnsRig::question("localhost", kTypeA));
    REQUIRE(streams.back()->next());
  }
  Stream more{rig};
  CHECK(more.is_closed());
  // One that does not read: its questions are not read either, once answers wait.
  Stream& greedy = *streams.back();
  const std::string one = u16(DnsRig::question("localhost", kTypeA).size()) + DnsRig::question("localhost", kTypeA);
  (void)rig.until(
      [&] {
        while (send(greedy.socket.get(), one.data(), one.size(), MSG_NOSIGNAL) > 0) {
        }
        return false;
      },
      seconds(1));
  CHECK(rig.server->questions() < 2000);
  streams.front()->send("\1");  // half a length does not keep a connection
  for (const auto& stream : streams) {
    if (stream.get() != &greedy) CHECK(stream->is_closed());
  }
  CHECK(rig.until(
      [&] {
        pollfd polled{.fd = greedy.socket.get()};
        return poll(&polled, 1, 0) == 1 && (polled.revents & (POLLERR | POLLHUP)) != 0;
      },
      seconds(20)));
  CHECK(Clock::now() - begun > seconds(9));
  Stream after{rig};
  after.ask(DnsRig::question("allowed.test", kTypeA));
  CHECK(after.next());
}

/// What getaddrinfo(3) of the C library says in the agent's network; the loop turns meanwhile.
std::pair<int, std::vector<std::string>> getaddrinfo_in_agent(DnsRig& rig, const char* name) {
  int status = 0;
  std::vector<std::string> addresses;
  std::atomic<bool> done = false;
  Fd agent;
  DnsRig::in_agent([&] { agent.reset(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)); });
  std::thread client([&] {
    if (setns(agent.get(), CLONE_NEWNET) != 0 || res_init() != 0) std::abort();
    _res.retrans = 10;  // the agent's resolv.conf (policies/layout.cc)
    _res.retry = 1;
    _res.nscount = 1;
    _res.nsaddr_list[0] = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr = {.s_addr = htonl(0x09090909)}};
    const addrinfo hints{.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    addrinfo* found = nullptr;
    status = getaddrinfo(name, "443", &hints, &found);
    for (const addrinfo* one = status == 0 ? found : nullptr; one != nullptr; one = one->ai_next) {
      std::array<char, INET6_ADDRSTRLEN> text{};
      (void)getnameinfo(one->ai_addr, one->ai_addrlen, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST);
      addresses.emplace_back(text.data());
    }
    if (status == 0) freeaddrinfo(found);
    done = true;
  });
  CHECK(rig.until([&] { return done.load(); }, seconds(30)));
  client.join();
  return {status, addresses};
}

TEST_CASE("The C library's own resolver gets both addresses, and is refused without waiting") {
  DnsRig rig;
  const auto [status, addresses] = getaddrinfo_in_agent(rig, "allowed.test.");
  CHECK(status == 0);
  REQUIRE(addresses.size() == 2);
  for (const std::string& address : addresses) CHECK(rig.names->name_of(*read_address(address)) == "allowed.test");
  const auto begun = Clock::now();
  CHECK(getaddrinfo_in_agent(rig, "other.test.").first != 0);
  CHECK(getaddrinfo_in_agent(rig, "none.test.").first == EAI_NONAME);
  CHECK(Clock::now() - begun < seconds(2));
}

TEST_CASE("The C library waits for a name server that is slow, and hears of one that is silent") {
  DnsRig rig;
  std::vector<FakeDns::Asked> held;
  Reactor::Timer slow(*rig.reactor, [&] {
    for (const auto& asked : held) one_address()(asked);
  });
  rig.upstream->behaviour = [&](const FakeDns::Asked& asked) {
    if (asked.name != "allowed.test") return;
    held.push_back(asked);
    if (!slow.armed()) slow.arm_in(milliseconds(1500));
  };
  const auto [status, addresses] = getaddrinfo_in_agent(rig, "allowed.test.");
  CHECK(status == 0);
  CHECK(addresses.size() == 2);
  CHECK(rig.refused.empty());
  const auto begun = Clock::now();
  CHECK(getaddrinfo_in_agent(rig, "broken.test.").first == EAI_AGAIN);
  CHECK(Clock::now() - begun < seconds(6));
  REQUIRE(rig.refused.size() >= 1);
  CHECK(rig.refused[0].failed);
  CHECK(rig.refused[0].reason.find("did not answer within 2 s") != std::string::npos);
}

}  // namespace
}  // namespace kai::egress
