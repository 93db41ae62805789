// events: as NDJSON, as lines, and as they come.
#include "kaictl/events.h"

#include <csignal>

#include <doctest/doctest.h>

#include "tests/unit/kaictl/asked.h"

namespace kai::test {
namespace {

constexpr const char* kStarted =
    R"({"seq":41,"time":"2026-05-04T13:00:00.000Z","agentId":"a","event":"started","state":"running","metadata":{}})";
constexpr const char* kCrashed =
    R"({"seq":42,"time":"2026-05-04T13:00:01.000Z","agentId":"a","event":"kai.crashed","state":"backoff",)"
    R"("metadata":{"cause":"oom","message":"over\u001b 512 MB","limits":{"memory":512}}})";

TEST_CASE("events: options, NDJSON as it came, text escaped") {
  const Asked json = ask_records({"-o", "json", "events", "a", "-n", "5"}, {kStarted, kCrashed});
  CHECK(json.request.events().id() == "a");
  CHECK(json.request.events().has_lines());
  CHECK(json.request.events().lines() == 5);
  CHECK_FALSE(json.request.events().follow());
  CHECK(json.result.out == std::string(kStarted) + "\n" + kCrashed + "\n");
  const Asked text = ask_records({"events"}, {kStarted, kCrashed});
  CHECK_FALSE(text.request.events().has_lines());
  CHECK(text.result.out ==
        "2026-05-04T13:00:00.000Z info  a              started          seq=41 state=running\n"
        "2026-05-04T13:00:01.000Z error a              kai.crashed      seq=42 state=backoff cause=oom "
        "limits=\"{\\\"memory\\\":512}\" over\\e 512 MB\n");
}

TEST_CASE("events: a failure in the middle leaves standard output empty") {
  FakeDaemon daemon([](Connection& connection) {
    control::Request request;
    std::vector<Fd> fds;
    if (!connection.receive(request, fds)) return;
    connection.record(request, kStarted);
    connection.failed(request, "NOT_FOUND", "there is no agent x");
  });
  const Result result = kaictl({"--socket", daemon.socket(), "events", "x"});
  CHECK(result.exit_code == 4);
  CHECK(result.out.empty());
}

TEST_CASE("events -f: the last 10, then each as it comes, and an interruption ends it well") {
  control::Request request;
  FakeDaemon daemon([&](Connection& connection) {
    std::vector<Fd> fds;
    if (!connection.receive(request, fds)) return;
    connection.record(request, kStarted);
    connection.wait_for_hangup();
  });
  Program follower({"--socket", daemon.socket(), "-o", "json", "events", "-f"});
  CHECK(follower.read_until("\n"));
  follower.signal(SIGTERM);
  const Result result = follower.finish();
  CHECK(result.exit_code == 0);
  CHECK(result.out == std::string(kStarted) + "\n");
  CHECK(request.events().follow());
  CHECK(request.events().has_lines());
  CHECK(request.events().lines() == 10);
}

TEST_CASE("more records than memory should hold come whole and in order") {
  std::vector<std::string> records;
  std::string expected;
  for (int seq = 1; seq <= 3000; ++seq) {
    records.push_back(R"({"seq":)" + std::to_string(seq) + R"(,"metadata":{"x":")" + std::string(1000, 'x') + "\"}}");
    expected += records.back() + "\n";
  }
  CHECK(ask_records({"-o", "json", "events"}, records).result.out == expected);
}

TEST_CASE("an event as a line: colour by what it means, and nothing of an agent's drives the terminal") {
  CHECK(render_event(kStarted, true).find("\033[32minfo") != std::string::npos);
  CHECK(render_event(kCrashed, true).find("\033[1;31merror") != std::string::npos);
  CHECK(render_event(kCrashed, true).find("\033 512") == std::string::npos);
  CHECK(render_event("no json\033", true) == "no json\\e\n");
  CHECK(render_event(R"({"event":"a\nb","agentId":7,"metadata":[]})", false).find('\n') ==
        render_event(R"({"event":"a\nb","agentId":7,"metadata":[]})", false).size() - 1);
}

}  // namespace
}  // namespace kai::test
