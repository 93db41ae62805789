// What becomes of an open connection's bytes: both ways, half closed, reset, slowed down, cut off.
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/egress/traffic_rig.h"

namespace {

using namespace kai;
using namespace kai::egress;
using std::chrono::milliseconds;

struct Pair {
  Peer agent, server;
};

/// Connections to one server, open from end to end.
class Connections {
 public:
  explicit Connections(Rig& rig) : rig_(rig), listener_(rig.listen(kServer4, kAnyPort)) {}
  Pair open() {
    const std::size_t before = rig_.opened.size();
    Pair made;
    made.agent = rig_.connect("allowed.test", kAnyPort);
    made.server = rig_.accept(listener_);
    REQUIRE(made.server.valid());
    REQUIRE(rig_.until([&] { return rig_.opened.size() > before; }));
    return made;
  }

 private:
  Rig& rig_;
  Fd listener_;
};

/// Receives and forgets: how many bytes.
std::size_t swallow(const Peer& peer) {
  static std::array<char, 1 << 18> bytes;
  std::size_t all = 0;
  for (;;) {
    const ssize_t got = recv(peer.fd(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got <= 0) return all;
    all += static_cast<std::size_t>(got);
  }
}

TEST_CASE("each side may end before the other, and what the other says then still arrives") {
  for (const bool agent_first : {true, false}) {
    CAPTURE(agent_first);
    Rig rig;
    Connections connections(rig);
    Pair pair = connections.open();
    Peer& first = agent_first ? pair.agent : pair.server;
    Peer& second = agent_first ? pair.server : pair.agent;
    CHECK(first.send("last words") == 10);
    first.finish();
    CHECK(rig.until([&] { return second.ended(); }));
    CHECK(second.received() == "last words");
    CHECK(rig.closed.empty());
    CHECK(second.send("and an answer") == 13);
    second.finish();
    CHECK(rig.until([&] { return first.ended(); }));
    CHECK(first.received() == "and an answer");
    REQUIRE(rig.until([&] { return !rig.closed.empty(); }));
    CHECK(rig.closed[0].cause() == (agent_first ? "closed by the agent" : "closed by the server"));
    CHECK_FALSE(first.reset());
    CHECK_FALSE(second.reset());
  }
}

TEST_CASE("a reset goes on as a reset, also of a side that has ended before") {
  for (const bool by_agent : {true, false}) {
    for (const bool after_end : {true, false}) {
      CAPTURE(by_agent);
      CAPTURE(after_end);
      Rig rig;
      Connections connections(rig);
      Pair pair = connections.open();
      Peer& first = by_agent ? pair.agent : pair.server;
      Peer& second = by_agent ? pair.server : pair.agent;
      if (after_end) {
        first.finish();
        CHECK(rig.until([&] { return second.ended(); }));
        first.close_reset();
        // recv(2) has said its end already; the next word is answered by the RST.
        CHECK(rig.until([&] { return !rig.closed.empty(); }));
        CHECK(rig.until([&] { return second.send("?") == 0; }));
      } else {
        first.close_reset();
        CHECK(rig.until([&] { return second.reset(); }));
      }
      REQUIRE(rig.closed.size() == 1);
      CHECK(rig.closed[0].cause() == (by_agent ? "reset by the agent" : "reset by the server"));
      CHECK(rig.snapshot().open() == 0);
    }
  }
}

TEST_CASE("what a server says before it resets an upload arrives") {
  Rig rig;
  Connections connections(rig);
  Pair pair = connections.open();
  CHECK(pair.agent.send("begin") == 5);
  CHECK(rig.until([&] { return rig.snapshot().sent() == 5; }));
  // All of it before the next round, which sees the agent's bytes first and finds that nobody takes them.
  CHECK(pair.agent.send("more") == 4);
  CHECK(pair.server.send("too large") == 9);
  pair.server.close();  // without having read: a RST
  CHECK(rig.until([&] { return pair.agent.reset(); }));
  CHECK(pair.agent.received() == "too large");
}

TEST_CASE("megabytes arrive as they were sent, both ways at the same time") {
  Rig rig;
  Connections connections(rig);
  Pair pair = connections.open();
  std::string sent;
  for (std::size_t at = 0; at < 8'000'000; ++at) sent += static_cast<char>(at * at % 251);
  std::size_t up = 0, down = 0;
  CHECK(rig.until([&] {
    up += pair.agent.send(std::string_view(sent).substr(up));
    down += pair.server.send(std::string_view(sent).substr(down));
    return pair.server.received().size() == sent.size() && pair.agent.received().size() == sent.size();
  }));
  CHECK(pair.server.received() == sent);
  CHECK(pair.agent.received() == sent);
  CHECK(rig.snapshot().sent() == sent.size());
  CHECK(rig.snapshot().received() == sent.size());
}

TEST_CASE("a peer that does not read stops its sender, and costs no memory") {
  Rig rig;
  Connections connections(rig);
  Pair pair = connections.open();
  const std::string bytes(1 << 16, 'x');
  std::size_t sent = 0;
  auto last = Clock::now();
  // Full when nothing was taken for a while: three sockets' buffers and a pipe.
  CHECK(rig.until([&] {
    const std::size_t now = pair.agent.send(bytes);
    sent += now;
    if (now > 0) last = Clock::now();
    return Clock::now() - last > milliseconds(300);
  }));
  CHECK(sent < (64U << 20));
  std::size_t received = 0;
  CHECK(rig.until([&] { return (received += swallow(pair.server)) == sent; }));
  pair.agent.finish();
  CHECK(rig.until([&] { return pair.server.ended(); }));
}

TEST_CASE("a thousand connections are open at the same time, and each has its own answer") {
  Rig rig;
  const Fd listener = rig.listen(kServer4, kAnyPort);
  std::vector<Peer> agents, servers;
  for (std::size_t at = 0; at < 1'000; ++at) {
    agents.push_back(rig.connect("allowed.test", kAnyPort));
    servers.push_back(rig.accept(listener));
    REQUIRE(servers.back().valid());
  }
  REQUIRE(rig.until([&] { return rig.opened.size() == 1'000; }));
  CHECK(rig.snapshot().open() == 1'000);
  CHECK(rig.snapshot().connections_size() == 128);
  for (std::size_t at = 0; at < agents.size(); ++at) CHECK(agents[at].send(std::to_string(at)) > 0);
  for (std::size_t at = 0; at < agents.size(); ++at) {
    CHECK(rig.until([&] { return servers[at].received() == std::to_string(at); }));
    CHECK(servers[at].send("to " + servers[at].received()) > 0);
  }
  for (std::size_t at = 0; at < agents.size(); ++at) {
    CHECK(rig.until([&] { return agents[at].received() == "to " + std::to_string(at); }));
  }
  rig.traffic->close_all("enough");
  CHECK(rig.closed.size() == 1'000);
  CHECK(rig.snapshot().open() == 0);
  for (Peer& peer : agents) CHECK(peer.reset());
  for (Peer& peer : servers) CHECK(peer.reset());
}

TEST_CASE("the bandwidth limit holds each way, and is shared by the agent's connections") {
  constexpr std::uint64_t kRate = 4 << 20;
  for (const bool upload : {true, false}) {
    CAPTURE(upload);
    Rig rig;
    rig.rules.mutable_limits()->set_bytes_per_second(kRate);
    rig.rules_changed();
    Connections connections(rig);
    std::vector<Pair> pairs;
    for (int at = 0; at < 2; ++at) pairs.push_back(connections.open());
    const std::string bytes(1 << 16, 'x');
    std::array<std::size_t, 2> moved{}, at_begin{};
    const auto move = [&] {
      for (std::size_t at = 0; at < pairs.size(); ++at) {
        (void)(upload ? pairs[at].agent : pairs[at].server).send(bytes);
        moved[at] += swallow(upload ? pairs[at].server : pairs[at].agent);
      }
    };
    milliseconds stood_still{};  // the longest time in which this process had no turn of the machine's
    const auto run_for = [&](milliseconds time) {
      const auto begin = Clock::now();
      auto last = begin;
      stood_still = {};
      at_begin = moved;
      CHECK(rig.until([&] {
        move();
        const auto now = Clock::now();
        stood_still = std::max(stood_still, std::chrono::duration_cast<milliseconds>(now - std::exchange(last, now)));
        return now - begin > time;
      }));
      return std::chrono::duration<double>(Clock::now() - begin).count();
    };
    (void)run_for(milliseconds(300));  // until what may come at once has come
    // A time in which nobody could move anything for longer than the bucket saves up says nothing of the least.
    int measured = 0;
    for (int tries = 0; tries < 20 && measured < 3; ++tries) {
      const double seconds = run_for(milliseconds(500));
      const double first = static_cast<double>(moved[0] - at_begin[0]);
      const double second = static_cast<double>(moved[1] - at_begin[1]);
      CHECK(first + second < 1.1 * kRate * (seconds + 0.1));
      if (stood_still > milliseconds(40)) continue;
      ++measured;
      CHECK((first + second) / seconds == doctest::Approx(kRate).epsilon(0.1));
      CHECK(first == doctest::Approx(second).epsilon(0.2));
    }
    CHECK(measured > 0);
  }
}

TEST_CASE("a new bandwidth limit holds for what is open") {
  Rig rig;
  rig.rules.mutable_limits()->set_bytes_per_second(64 << 10);
  rig.rules_changed();
  Connections connections(rig);
  Pair pair = connections.open();
  const std::string bytes(1 << 20, 'x');
  std::size_t sent = 0, received = 0;
  const auto move = [&] {
    if (sent < bytes.size()) sent += pair.agent.send(std::string_view(bytes).substr(sent));
    return received += swallow(pair.server);
  };
  const auto begin = Clock::now();
  CHECK(rig.until([&] { return move(), Clock::now() - begin > milliseconds(500); }));
  CHECK(received < (128U << 10));
  rig.rules.mutable_limits()->set_bytes_per_second(1 << 30);
  rig.rules_changed();
  CHECK(rig.until([&] { return move() == bytes.size(); }, milliseconds(8'000)));
}

TEST_CASE("a byte is answered at once while other connections of the agent, and another agent's, are busy") {
  Rig rig;
  Connections connections(rig);
  std::vector<Pair> bulk;
  for (int at = 0; at < 8; ++at) bulk.push_back(connections.open());
  Pair small = connections.open();
  const std::string bytes(1 << 18, 'x');
  std::size_t rounds = 0;
  // Starved, it would stop; how fast it goes is the machine's: on a loaded one a round takes 50 ms and more.
  CHECK(rig.until(
      [&] {
        for (Pair& pair : bulk) {
          (void)pair.agent.send(bytes);
          (void)swallow(pair.server);
        }
        if (rounds == 0 || small.server.received().size() == rounds) {
          rounds += small.agent.send("x");
        }
        return rounds == 100;
      },
      milliseconds(120'000)));
}

TEST_CASE("idle and old connections end, and those that are neither go on") {
  for (const bool total : {false, true}) {
    CAPTURE(total);
    Rig rig;
    rig.rules.mutable_limits()->set_idle_ms(total ? 10'000 : 300);
    rig.rules.mutable_limits()->set_total_ms(total ? 300 : 10'000);
    Connections connections(rig);
    Pair quiet = connections.open();
    Pair busy = connections.open();
    const auto begin = Clock::now();
    CHECK(rig.until([&] {
      if (busy.server.received().size() * 50 < static_cast<std::size_t>((Clock::now() - begin) / milliseconds(1))) {
        (void)busy.agent.send("x");
      }
      return quiet.agent.reset() && quiet.server.reset();
    }));
    CHECK(Clock::now() - begin > milliseconds(200));
    REQUIRE_FALSE(rig.closed.empty());
    CHECK(rig.closed[0].cause().find(total ? "open for 300 ms" : "idle for 300 ms") != std::string::npos);
    if (total) {
      CHECK(rig.until([&] { return busy.agent.reset(); }));
    } else {
      CHECK_FALSE(busy.agent.reset());
      CHECK(rig.until([&] { return busy.agent.reset(); }));  // it is idle now as well
    }
  }
}

TEST_CASE("what the rules do not allow any more is reset before rules_changed returns") {
  Rig rig;
  Rig::map(rig.rules, "other.test", kServer4);
  Connections connections(rig);
  const Fd six_listener = rig.listen(kServer6, kAnyPort);
  Pair first = connections.open();
  Peer other = rig.connect("other.test", kAnyPort);
  Peer six = rig.connect("six.test", kAnyPort);
  REQUIRE(rig.until([&] { return rig.opened.size() == 3; }));

  rig.rules_changed();
  CHECK(rig.closed.empty());
  Pattern& blocked = *rig.rules.add_blocked();
  blocked.set_name("other.test");
  blocked.set_rule("policy.yaml:99");
  rig.rules_changed();
  REQUIRE(rig.closed.size() == 1);
  CHECK(rig.closed[0].name() == "other.test");
  CHECK(rig.closed[0].cause().find("not allowed any more: ") == 0);
  CHECK(rig.closed[0].rule() == "policy.yaml:99");
  CHECK(rig.until([&] { return other.reset(); }));

  rig.rules.mutable_hosts(1)->set_address(rig.rules.hosts(0).address());  // six.test leads elsewhere now
  rig.rules_changed();
  REQUIRE(rig.closed.size() == 2);
  CHECK(rig.until([&] { return six.reset(); }));

  CHECK(first.agent.send("still here") == 10);
  CHECK(rig.until([&] { return first.server.received() == "still here"; }));
  rig.rules.clear_protocols();
  rig.rules.add_protocols(TLS);  // and this is checked for nothing
  rig.rules_changed();
  REQUIRE(rig.closed.size() == 3);
  CHECK(rig.closed[2].rule() == "policy.yaml:17");
  CHECK(rig.until([&] { return first.agent.reset() && first.server.reset(); }));
}

TEST_CASE("a lower maxConnections ends the newest, and rules that are gone end all") {
  Rig rig;
  Connections connections(rig);
  Pair first = connections.open(), second = connections.open(), third = connections.open();
  rig.rules.mutable_limits()->set_connections(1);
  rig.rules_changed();
  REQUIRE(rig.closed.size() == 2);
  CHECK(rig.closed[0].rule() == "policy.yaml:16");
  CHECK(rig.until([&] { return second.agent.reset() && third.agent.reset(); }));
  CHECK_FALSE(first.agent.reset());
  rig.rules = Rules();
  rig.rules_changed();
  CHECK(rig.closed.size() == 3);
  CHECK(rig.until([&] { return first.agent.reset() && first.server.reset(); }));
}

TEST_CASE("urgent data ends the connection with its reason") {
  Rig rig;
  Connections connections(rig);
  for (const bool by_agent : {true, false}) {
    rig.closed.clear();
    Pair pair = connections.open();
    REQUIRE(send((by_agent ? pair.agent : pair.server).fd(), "!", 1, MSG_OOB) == 1);
    CHECK(rig.until([&] { return pair.agent.reset() && pair.server.reset(); }));
    REQUIRE(rig.closed.size() == 1);
    CHECK(rig.closed[0].cause().find(by_agent ? "the agent sent urgent data" : "the server sent urgent data") == 0);
  }
}

TEST_CASE("whatever the two sides do, and in whichever order, nothing is left over") {
  Rig rig;
  rig.rules.mutable_limits()->set_bytes_per_second(4 << 20);
  rig.rules_changed();
  const Fd listener = rig.listen(kServer4, kAnyPort);
  std::mt19937 random(20261123);
  const auto any = [&](unsigned below) { return static_cast<unsigned>(random() % below); };
  const std::string bytes(100'000, 'x');
  std::vector<Peer> peers;
  for (int round = 0; round < 3'000; ++round) {
    if (peers.size() < 60) peers.push_back(rig.connect(any(8) == 0 ? "nowhere.test" : "allowed.test", kAnyPort));
    Fd accepted(accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (accepted) peers.emplace_back(std::move(accepted));
    const std::size_t at = any(static_cast<unsigned>(peers.size()));
    switch (any(8)) {
      case 0:
        (void)shutdown(peers[at].fd(), SHUT_WR);
        break;
      case 1:
        peers[at].close_reset();
        break;
      case 2:
        peers[at].close();
        break;
      case 3:
        (void)swallow(peers[at]);
        break;
      default:
        (void)peers[at].send(std::string_view(bytes).substr(0, any(100'000)));
    }
    if (!peers[at].valid()) peers.erase(peers.begin() + static_cast<std::ptrdiff_t>(at));
    if (any(3) == 0) REQUIRE(rig.reactor->turn(milliseconds(0)));
    if (any(500) == 0) rig.traffic->close_all("between");
  }
  peers.clear();
  CHECK(rig.until([&] {
    while (Fd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)).valid()) continue;
    return rig.snapshot().open() == 0;
  }));
  CHECK(rig.closed.size() == rig.opened.size());
  CHECK(rig.names->entries().front().connections == 0);
}

TEST_CASE("when the traffic is destroyed, everybody sees a reset") {
  Rig rig;
  Connections connections(rig);
  Pair pair = connections.open();
  CHECK(pair.agent.send("x") == 1);
  rig.traffic.reset();
  CHECK(rig.until([&] { return pair.agent.reset() && pair.server.reset(); }));
  CHECK(rig.closed.empty());
}

/// Bytes that fit into the relay's socket (server_buffer() of the rig's rules), and not into the receiver's.
constexpr std::size_t kUnread = 40'000;

void read_little(const Peer& peer) {
  constexpr int kLittle = 8192;
  REQUIRE(setsockopt(peer.fd(), SOL_SOCKET, SO_RCVBUF, &kLittle, sizeof kLittle) == 0);
}

/// What is left of a pair when the process that relays for it is killed, after `scenario`.
Pair after_kill(const std::function<void(Rig& rig, Pair& pair)>& scenario) {
  auto link = socket_pair(SOCK_SEQPACKET);
  REQUIRE(link);
  const pid_t relay = fork();
  REQUIRE(relay >= 0);
  if (relay == 0) {
    try {
      Rig rig;
      Pair pair = Connections(rig).open();
      scenario(rig, pair);
      const std::array<int, 2> sockets = {pair.agent.fd(), pair.server.fd()};
      if (send_packet(link->second.get(), "ready", sockets)) pause();
    } catch (...) {
    }
    _exit(1);
  }
  link->second.reset();
  auto packet = receive_packet(link->first.get(), 16);
  CHECK(kill(relay, SIGKILL) == 0);
  CHECK(waitpid(relay, nullptr, 0) == relay);
  REQUIRE(packet);
  REQUIRE(packet->fds.size() == 2);
  return {Peer(std::move(packet->fds[0])), Peer(std::move(packet->fds[1]))};
}

TEST_CASE("when the relay is killed, what it has cut does not look complete to anybody") {
  for (const bool upload : {false, true}) {
    for (const bool much : {false, true}) {
      CAPTURE(upload);
      CAPTURE(much);
      Pair pair = after_kill([&](Rig& rig, Pair& open) {
        const std::string bytes(much ? 1 << 20 : 100, 'x');
        const std::size_t sent = (upload ? open.agent : open.server).send(bytes);
        REQUIRE(sent > 0);
        REQUIRE(rig.until([&] { return (upload ? rig.snapshot().sent() : rig.snapshot().received()) > 0; }));
      });
      Rig waiting;
      CHECK(waiting.until([&] { return pair.agent.reset() && pair.server.reset(); }));
      CHECK_FALSE(pair.agent.ended());
      CHECK_FALSE(pair.server.ended());
      if (!much) CHECK((upload ? pair.server : pair.agent).received() == std::string(100, 'x'));
    }
  }
}

TEST_CASE("a stream that ended in order arrives whole, though the relay is killed before the other one has ended") {
  for (const bool upload : {false, true}) {
    CAPTURE(upload);
    Pair pair = after_kill([&](Rig& rig, Pair& open) {
      Peer& from = upload ? open.agent : open.server;
      read_little(upload ? open.server : open.agent);
      std::size_t sent = 0;
      REQUIRE(rig.until([&] { return (sent += from.send(std::string(kUnread - sent, 'x'))) == kUnread; }));
      from.finish();
      REQUIRE(rig.until([&] { return (upload ? rig.snapshot().sent() : rig.snapshot().received()) == kUnread; }));
      for (int turn = 0; turn < 10; ++turn) REQUIRE(rig.reactor->turn(milliseconds(1)));  // FIN has been there long
    });
    Rig waiting;
    Peer& to = upload ? pair.server : pair.agent;
    CHECK(waiting.until([&] { return to.ended() || to.reset(); }));
    CHECK(to.received().size() == kUnread);
    CHECK(to.ended());
    CHECK((upload ? pair.agent : pair.server).reset());
  }
}

TEST_CASE("what an orderly end leaves unread is delivered to the last byte") {
  for (const bool upload : {false, true}) {
    CAPTURE(upload);
    Rig rig;
    Pair pair = Connections(rig).open();
    Peer& from = upload ? pair.agent : pair.server;
    Peer& to = upload ? pair.server : pair.agent;
    read_little(to);
    to.finish();
    std::size_t sent = 0;
    REQUIRE(rig.until([&] { return (sent += from.send(std::string(kUnread - sent, 'x'))) == kUnread; }));
    from.finish();
    REQUIRE(rig.until([&] { return !rig.closed.empty(); }));
    CHECK(rig.until([&] { return to.ended() || to.reset(); }));
    CHECK(to.received().size() == kUnread);
    CHECK(to.ended());
    CHECK(from.ended());
  }
}

}  // namespace
