// What kaictl asks, and how it shows what it is told.
#include <sys/stat.h>

#include <csignal>
#include <fstream>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/unix.h"
#include "tests/unit/kaictl/asked.h"
#include "tests/unit/kaictl/program.h"

namespace kai::test {
namespace {

using nlohmann::json;

constexpr const char* kList =
    R"({"agents":[{"id":"calendarAgent","name":"Personal\u001b[2J Calendar","version":"1.0.3","state":"running",)"
    R"("status":"active","desired":"running","uptime":192000,"restarts":2,"policy":"default"},)"
    R"({"id":"b","name":"B","version":"1.0.0","state":"backoff","status":"terminated","desired":"running","restarts":5}]})";

TEST_CASE("list: kaid's document as it is, or a table") {
  CHECK(ask({"-o", "json", "list"}, kList).result.out == std::string(kList) + "\n");
  CHECK(ask({"list", "-o", "json"}, kList).result.out == std::string(kList) + "\n");
  const Asked text = ask({"list"}, kList);
  CHECK(text.request.has_list());
  CHECK(text.result.exit_code == 0);
  CHECK(text.result.err.empty());
  CHECK(text.result.out ==
        "ID             VERSION  STATE                 UPTIME  RESTARTS  POLICY   NAME\n"
        "calendarAgent  1.0.3    running               3m 12s  2         default  Personal\\e[2J Calendar\n"
        "b              1.0.0    backoff (should run)  -       5         -        B\n");
  CHECK(ask({"list"}, R"({"agents":[{"id":"c","version":"1.0.0","state":"quarantined","desired":"running"}]})")
            .result.out ==
        "ID  VERSION  STATE        UPTIME  RESTARTS  POLICY  NAME\n"
        "c   1.0.0    quarantined  -       -         -\n"
        "c is in quarantine: kaictl quarantine show c\n");
  CHECK(ask({"list"}, R"({"agents":[]})").result.out.find("kaictl register") != std::string::npos);
}

TEST_CASE("status says why and what to do next") {
  const Asked asked = ask({"status", "calendarAgent"},
                          R"({"id":"calendarAgent","status":"terminated","state":"stopped","desired":"stopped",)"
                          R"("version":"1.0.3","crashes":{"count":1,"window":600000},"lastEnd":{"cause":"oom",)"
                          R"("exitCode":0,"signal":"SIGKILL","message":"over 512 MB"},"policy":"default",)"
                          R"("degraded":["cgroup","disk"],"denials":3})");
  CHECK(asked.request.status().id() == "calendarAgent");
  CHECK(asked.result.out ==
        "calendarAgent 1.0.3: stopped (terminated)\n"
        "  desired     stopped\n"
        "  crashes     1 in 10m\n"
        "  last end    oom (SIGKILL): over 512 MB\n"
        "  policy      default\n"
        "  degraded    cgroup, disk\n"
        "  denials     3\n"
        "  next        find out why it ended with: kaictl logs calendarAgent, then: kaictl start calendarAgent\n");
}

TEST_CASE("status of an agent that is being upgraded, and for how long that may be taken back") {
  const auto shown = [](const std::string& upgrade) {
    return ask({"status", "a"}, R"({"id":"a","status":"active","state":"running","upgrade":)" + upgrade + "}")
        .result.out;
  };
  const std::string head = "a: running (active)\n";
  CHECK(shown(R"({"phase":"underWay","type":"soft","from":"1.0.0","to":"1.1.0"})") ==
        head + "  upgrade     1.1.0 takes the place of 1.0.0 (soft)\n");
  CHECK(
      shown(
          R"({"phase":"probation","type":"hard","from":"1.0.0","to":"1.1.0","until":"2026-05-04T13:00:30.000Z"},"softSwaps":2)") ==
      head +
          "  upgrade     1.1.0 is on probation until 13:00:30Z, and 1.0.0 what it goes back to\n"
          "  soft swaps  2\n");
  CHECK(shown(R"({"phase":"leaving","type":"hard","from":"1.0.0","to":"1.1.0"})") ==
        head + "  upgrade     1.1.0 serves; the process of 1.0.0 is being stopped\n");
  for (const char* const odd : {"{}", "[]", "7", R"({"phase":"over"})"}) CHECK(shown(odd) == head);
  CHECK(shown(R"({"phase":"probation","until":"\u001b[2J"})").find('\x1b') == std::string::npos);
}

TEST_CASE("status of an agent in quarantine, and of one that waits for its restart") {
  const char* const kQuarantined =
      R"({"id":"a","status":"quarantined","state":"quarantined","desired":"running","version":"1.0.0",)"
      R"("quarantine":{"agentId":"a","quarantinedAt":"2026-05-04T13:00:00.000Z","reason":{"type":"crash",)"
      R"("description":"6 crashes\nin 10m","timestamp":"2026-05-04T13:00:00.000Z","severity":"medium"},)"
      R"("retryCount":1,"maxRetries":3}})";
  CHECK(ask({"status", "a"}, kQuarantined).result.out ==
        "a 1.0.0: quarantined (quarantined)\n"
        "  desired     running\n"
        "  quarantine  crash, severity medium, since 2026-05-04T13:00:00.000Z: 6 crashes\\nin 10m\n"
        "  recoveries  1 of 3 failed, 2 left\n"
        "  next        find out why with: kaictl quarantine show a, then: kaictl recover a\n");
  CHECK(
      ask({"status", "a"},
          R"({"id":"a","status":"terminated","state":"backoff","desired":"running","version":"1.0.0",)"
          R"("crashes":{"count":2,"window":600000},"lastEnd":{"cause":"exit","exitCode":3,"message":"it exited with 3"},)"
          R"("backoff":{"until":"2026-05-04T13:00:01.000Z","delay":500}})")
          .result.out ==
      "a 1.0.0: backoff (terminated)\n"
      "  desired     running\n"
      "  crashes     2 in 10m\n"
      "  last end    exit (exit code 3): it exited with 3\n"
      "  backoff     next start at 2026-05-04T13:00:01.000Z, after a pause of 500ms\n"
      "  next        kaid starts it again by itself; why it ended: kaictl logs a\n");
}

TEST_CASE("start, stop, restart, terminate and unregister carry their options") {
  Asked asked = ask({"start", "a", "--timeout", "1.5"}, R"({"id":"a","state":"running"})");
  CHECK(asked.request.start().id() == "a");
  CHECK(asked.request.start().timeout_ms() == 1500);
  CHECK(asked.result.out == "a: running\n");
  asked = ask({"stop", "a", "--no-wait"}, "");
  CHECK(asked.request.stop().no_wait());
  CHECK(asked.request.stop().timeout_ms() == 0);
  CHECK(asked.result.out == "a: stopping\n");
  asked = ask({"-o", "json", "restart", "a"}, "");
  CHECK(asked.request.has_restart());
  CHECK(asked.result.out == "{\"id\":\"a\"}\n");
  asked = ask({"terminate", "a", "--purge"}, "");
  CHECK(asked.request.terminate().purge());
  asked = ask({"unregister", "a"}, "");
  CHECK(asked.request.unregister().id() == "a");
  CHECK(asked.result.out == "a: unregistered\n");
}

TEST_CASE("KAI_SOCKET is for --socket, and --version needs no daemon") {
  const Result version = kaictl({"--version"});
  CHECK(version.exit_code == 0);
  CHECK(version.out == "kaictl " KAI_VERSION "\n");
  const Asked asked = ask({"-o", "json", "version"}, R"({"version":"9.9.9"})");
  CHECK(json::parse(asked.result.out) == json{{"kaictl", KAI_VERSION}, {"kaid", "9.9.9"}});
}

constexpr const char* kResponse =
    R"({"protocol":"klp/1.0","id":"u","type":"response","payload":{"text":"a\u001b[2Jb","n":[1,2.50]}})";

TEST_CASE("send: the payload goes out as it was typed, {} without one, - from standard input") {
  Asked asked = ask({"send", "echo", "say", R"({"a": 1.50})"}, kResponse);
  CHECK(asked.request.send().payload() == R"({"a": 1.50})");
  CHECK(asked.request.send().capability() == "say");
  CHECK(asked.request.send().timeout_ms() == 0);
  CHECK(ask({"send", "echo", "say"}, kResponse).request.send().payload() == "{}");
  CHECK(ask({"send", "echo", "say", "[1,2]"}, kResponse).request.send().payload() == "[1,2]");
  asked = ask({"send", "echo", "say", "-", "--timeout", "3"}, kResponse, "{\"from\":\"stdin\"}\n");
  CHECK(asked.request.send().payload() == "{\"from\":\"stdin\"}\n");
  CHECK(asked.request.send().timeout_ms() == 3000);
}

TEST_CASE("send: text mode prints the payload, escaped; JSON mode the message") {
  CHECK(ask({"send", "echo", "say"}, kResponse).result.out == R"({"text":"a\u001b[2Jb","n":[1,2.5]})"
                                                              "\n");
  CHECK(ask({"-o", "json", "send", "echo", "say"}, kResponse).result.out == std::string(kResponse) + "\n");
  // An agent may hide what turns text around in a JSON string as it is.
  const Asked turned = ask({"send", "echo", "say"},
                           "{\"payload\":\"a\xe2\x80\xae\xc2\x9b"
                           "b\"}");
  CHECK(turned.result.out == "\"a\\u202e\\u009bb\"\n");
}

TEST_CASE("send: a payload that kaid passed on unread is put in place, byte for byte, if it is JSON") {
  // {"n":1.50} and, in the second, bytes that are no JSON
  const Asked json_payload =
      ask({"-o", "json", "send", "echo", "say"}, R"({"id":"u","payloadBase64":"eyJuIjoxLjUwfQ=="})");
  CHECK(json_payload.result.out == "{\"id\":\"u\",\"payload\":{\"n\":1.50}}\n");
  const Asked other = ask({"-o", "json", "send", "echo", "say"}, R"({"id":"u","payloadBase64":"AAEC"})");
  CHECK(other.result.out == "{\"id\":\"u\",\"payloadBase64\":\"AAEC\"}\n");
}

TEST_CASE("send: nesting that no printer could follow is shown as it came") {
  const std::string deep = std::string(200'000, '[') + std::string(200'000, ']');
  const Asked asked = ask({"send", "echo", "say"}, "{\"payload\":" + deep + "}");
  CHECK(asked.result.exit_code == 0);
  CHECK(is_one_line(asked.result.out));
}

TEST_CASE("send: what is no JSON, or too much of it, is refused before kaid is asked") {
  const ScratchDirectory nobody;
  const auto send = [&](const std::string& payload, const std::string& input = "") {
    return kaictl({"--socket", nobody / "kaid.sock", "send", "echo", "say", payload}, input);
  };
  const Result broken = send("{\"a\":\n tru}");
  CHECK(broken.exit_code == 5);
  CHECK(broken.err.find("line 2, column 5") != std::string::npos);
  CHECK(send("{").exit_code == 5);
  CHECK(send("{} {}").exit_code == 5);
  CHECK(send("\"\xff\"").exit_code == 5);
  const Result large = send("-", std::string((1 << 20) + 1, ' '));
  CHECK(large.exit_code == 5);
  CHECK(large.err.find("TOO_LARGE") != std::string::npos);
  CHECK(send("-", std::string((1 << 20) - 2, ' ') + "{}").exit_code == 3);
}

TEST_CASE("warnings go to standard error in text mode, and nowhere in JSON mode") {
  const auto with_warning = [](Connection& connection) {
    control::Request request;
    std::vector<Fd> fds;
    if (connection.receive(request, fds))
      connection.done(request, R"({"id":"a","version":"1.0.0"})", {"no network\x1b"});
  };
  const ScratchDirectory package;
  FakeDaemon daemon(with_warning, 2);
  const Result text = kaictl({"--socket", daemon.socket(), "register", package.path()});
  CHECK(text.exit_code == 0);
  CHECK(text.err == "kaictl: warning: no network\\e\n");
  CHECK(text.out == "registered a 1.0.0; start it with: kaictl start a\n");
  CHECK(kaictl({"--socket", daemon.socket(), "-o", "json", "register", package.path()}).err.empty());
}

TEST_CASE("register: a file is passed as it is, what cannot be read is the operator's side") {
  const ScratchDirectory directory;
  const std::string archive = directory / "agent.tar.gz";
  std::ofstream(archive) << "not looked at here";
  const Asked asked = ask({"register", archive}, R"({"id":"a"})");
  REQUIRE(asked.fds.size() == 1);
  CHECK(*read_all(asked.fds[0].get(), 100) == "not looked at here");
  CHECK(asked.request.register_().label() == archive);
  CHECK(kaictl({"register", directory / "missing"}).exit_code == 4);
  const std::string fifo = directory / "fifo";
  REQUIRE(mkfifo(fifo.c_str(), 0600) == 0);
  CHECK(kaictl({"register", fifo}).exit_code == 5);
  const Result with_fifo = kaictl({"register", directory.path()});
  CHECK(with_fifo.exit_code == 5);
  CHECK(with_fifo.err.find(fifo) != std::string::npos);
}

constexpr const char* kRecord =
    R"({"time":"2026-05-04T13:00:00.000Z","level":"warn","agent":"echo","event":"stdout","message":"a\u001bb","n":1})";

TEST_CASE("logs: options, NDJSON as it came, text escaped") {
  control::Request request;
  const auto serve = [&](Connection& connection) {
    std::vector<Fd> fds;
    if (!connection.receive(request, fds)) return;
    connection.record(request, kRecord);
    connection.record(request, kRecord);
    connection.done(request, "");
  };
  FakeDaemon daemon(serve, 2);
  const Result as_json =
      kaictl({"--socket", daemon.socket(), "-o", "json", "logs", "echo", "-n", "5", "--since", "10m"});
  CHECK(as_json.out == std::string(kRecord) + "\n" + kRecord + "\n");
  CHECK(request.logs().id() == "echo");
  CHECK(request.logs().has_lines());
  CHECK(request.logs().lines() == 5);
  CHECK(request.logs().since_unix_ms() > 0);
  const Result text = kaictl({"--socket", daemon.socket(), "logs"});
  CHECK_FALSE(request.logs().has_lines());
  CHECK(text.out.find("\x1b") == std::string::npos);
  CHECK(text.out.find("a\\eb") != std::string::npos);
  CHECK(text.out.find("n=1") != std::string::npos);
}

TEST_CASE("logs: a failure in the middle leaves standard output empty") {
  FakeDaemon daemon([](Connection& connection) {
    control::Request request;
    std::vector<Fd> fds;
    if (!connection.receive(request, fds)) return;
    connection.record(request, kRecord);
    connection.failed(request, "NOT_FOUND", "agent echo is not registered");
  });
  const Result result = kaictl({"--socket", daemon.socket(), "logs", "echo"});
  CHECK(result.exit_code == 4);
  CHECK(result.out.empty());
}

TEST_CASE("logs -f prints each record as it comes, and an interruption ends it well") {
  control::Request request;
  FakeDaemon daemon([&](Connection& connection) {
    std::vector<Fd> fds;
    if (!connection.receive(request, fds)) return;
    connection.record(request, kRecord);
    connection.wait_for_hangup();
  });
  Program follower({"--socket", daemon.socket(), "-o", "json", "logs", "-f"});
  CHECK(follower.read_until("\n"));
  follower.signal(SIGINT);
  const Result result = follower.finish();
  CHECK(result.exit_code == 0);
  CHECK(result.out == std::string(kRecord) + "\n");
  CHECK(request.logs().follow());
  CHECK(request.logs().lines() == 10);
}

}  // namespace
}  // namespace kai::test
