// How kaictl fails: exit codes, one line or one document, and a deadline for everything.
#include <array>
#include <utility>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tests/unit/kaictl/fake_daemon.h"
#include "tests/unit/kaictl/program.h"

namespace kai::test {
namespace {

using nlohmann::json;

void check_failure(const Result& result, int exit_code) {
  CHECK(result.exit_code == exit_code);
  CHECK(result.out.empty());
  CHECK(is_one_line(result.err));
}

TEST_CASE("every error code has the exit code that contracts.md gives it") {
  static constexpr std::array<std::pair<const char*, int>, 19> kCodes = {{
      {"NOT_FOUND", 4},      {"NOT_RUNNING", 1}, {"QUARANTINED", 6}, {"DENIED", 5},        {"INVALID", 5},
      {"TOO_LARGE", 5},      {"BUSY", 1},        {"TIMEOUT", 7},     {"EXPIRED", 7},       {"UNKNOWN_CAPABILITY", 5},
      {"REPLAY", 5},         {"UPGRADING", 1},   {"AGENT_ERROR", 1}, {"AGENT_CRASHED", 1}, {"BAD_SIGNATURE", 5},
      {"QUOTA_EXCEEDED", 1}, {"CONFLICT", 1},    {"UNAVAILABLE", 1}, {"INTERNAL", 1},
  }};
  for (const auto& [code, exit_code] : kCodes) {
    CAPTURE(code);
    FakeDaemon daemon(FakeDaemon::failing(code, "what and why", "Do this next"));
    const Result result = kaictl({"--socket", daemon.socket(), "send", "echo", "echo", "{}"});
    check_failure(result, exit_code);
    CHECK(result.err == std::string("kaictl: what and why (") + code + "). Do this next\n");
  }
}

TEST_CASE("-o json gives one error document with all its members, on standard error only") {
  FakeDaemon daemon([](Connection& connection) {
    control::Request request;
    std::vector<Fd> fds;
    REQUIRE(connection.receive(request, fds));
    control::Response response;
    response.set_id(request.id());
    auto* failed = response.mutable_failed();
    failed->set_code("AGENT_ERROR");
    failed->set_message("conflict with \"lunch\"\n\x1b[2J");
    failed->set_details_json(R"({"stack":"at main.ts:3"})");
    failed->set_retryable(true);
    connection.send(response);
  });
  const Result result = kaictl({"--socket", daemon.socket(), "-o", "json", "send", "calendarAgent", "scheduleEvent"});
  check_failure(result, 1);
  CHECK(json::parse(result.err) == json{{"error",
                                         {{"code", "AGENT_ERROR"},
                                          {"message", "conflict with \"lunch\"\n\x1b[2J"},
                                          {"details", {{"stack", "at main.ts:3"}}},
                                          {"retryable", true},
                                          {"hint", ""}}}});
}

TEST_CASE("what an agent says cannot make a second line or drive the terminal") {
  FakeDaemon daemon(FakeDaemon::failing("AGENT_ERROR", "one\ntwo\x1b[31m\xe2\x80\xae"));
  const Result result = kaictl({"--socket", daemon.socket(), "send", "echo", "echo"});
  check_failure(result, 1);
  CHECK(result.err == "kaictl: one\\ntwo\\e[31m\\u{202e} (AGENT_ERROR)\n");
}

TEST_CASE("no daemon: 3, and 125 for run") {
  const ScratchDirectory directory;
  const std::string nobody = directory / "kaid.sock";
  check_failure(kaictl({"--socket", nobody, "list"}), 3);
  const Result as_json = kaictl({"--socket", nobody, "-o", "json", "status", "echo"});
  check_failure(as_json, 3);
  CHECK(json::parse(as_json.err)["error"]["code"] == "UNAVAILABLE");
  check_failure(kaictl({"--socket", nobody, "run", "--", "true"}), 125);
  SUBCASE("a socket that nobody listens on any more") {
    { const FakeDaemon gone(FakeDaemon::answering("{}"), 0); }
    check_failure(kaictl({"--socket", nobody, "logs"}), 3);
  }
  SUBCASE("a path that no socket's address could hold") {
    check_failure(kaictl({"--socket", directory / std::string(200, 'x'), "list"}), 3);
  }
  SUBCASE("version says so and is content") {
    const Result version = kaictl({"--socket", nobody, "-o", "json", "version"});
    CHECK(version.exit_code == 0);
    CHECK(json::parse(version.out) == json{{"kaictl", KAI_VERSION}});
  }
}

TEST_CASE("a daemon that never answers: 7, for every kind of request") {
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"list"}, {"status", "a"}, {"unregister", "a"}, {"logs"}, {"version"}}) {
    CAPTURE(command[0]);
    FakeDaemon daemon([](Connection& connection) { connection.wait_for_hangup(); });
    std::vector<std::string> words = {"--socket", daemon.socket()};
    words.insert(words.end(), command.begin(), command.end());
    words.insert(words.end(), {"--timeout", "0.05"});
    check_failure(kaictl(words), 7);
  }
  // kaid is given the time, and kaictl waits a little longer for its answer.
  FakeDaemon daemon([](Connection& connection) { connection.wait_for_hangup(); });
  check_failure(kaictl({"--socket", daemon.socket(), "start", "a", "--timeout", "0.05"}), 7);
}

TEST_CASE("answers that are none") {
  const auto with = [](FakeDaemon::Handler handler) {
    FakeDaemon daemon(std::move(handler));
    return kaictl({"--socket", daemon.socket(), "list", "--timeout", "5"});
  };
  const auto sending = [&](const std::string& bytes) {
    return with([bytes](Connection& connection) {
      control::Request request;
      std::vector<Fd> fds;
      connection.receive(request, fds);
      connection.send_bytes(bytes);
      connection.wait_for_hangup();
    });
  };
  SUBCASE("a length over every limit") {
    check_failure(sending("\xff\xff\xff\xff hello"), 1);
  }
  SUBCASE("a frame that is no message") {
    check_failure(sending(std::string("\0\0\0\4\xff\xff\xff\xff", 8)), 1);
  }
  SUBCASE("an empty frame") {
    check_failure(sending(std::string("\0\0\0\0", 4)), 1);
  }
  SUBCASE("another protocol") {
    check_failure(sending("HTTP/1.1 400 Bad Request\r\n\r\n"), 1);
  }
  SUBCASE("half a frame, then the end") {
    check_failure(with([](Connection& connection) {
                    control::Request request;
                    std::vector<Fd> fds;
                    connection.receive(request, fds);
                    connection.send_bytes(std::string("\0\0\0\x40 half", 9));
                  }),
                  1);
  }
  SUBCASE("the end at once") {
    check_failure(with([](Connection&) {}), 1);
  }
  SUBCASE("a refusal before the request was read") {
    check_failure(with([](Connection& connection) {
                    control::Request request;
                    request.set_id(1);
                    connection.failed(request, "DENIED", "user 1000 is no operator", "Join group kai");
                  }),
                  5);
  }
  SUBCASE("somebody else's answer") {
    check_failure(with([](Connection& connection) {
                    control::Request request;
                    std::vector<Fd> fds;
                    connection.receive(request, fds);
                    request.set_id(request.id() + 7);
                    connection.done(request, "{}");
                  }),
                  1);
  }
  SUBCASE("a document that is no JSON") {
    check_failure(with(FakeDaemon::answering("{\"agents\":")), 1);
  }
}

TEST_CASE("a connection that ends before the answer: a retryable error, whatever was asked, and 125 for run") {
  const auto cut = [](Connection& connection) {
    control::Request request;
    std::vector<Fd> fds;
    connection.receive(request, fds);
  };
  for (const std::vector<std::string>& command : {std::vector<std::string>{"send", "a", "say"},
                                                  {"start", "a"},
                                                  {"logs", "-f"},
                                                  {"events", "-f"},
                                                  {"recover", "a"}}) {
    CAPTURE(command[0]);
    FakeDaemon daemon(cut);
    std::vector<std::string> words = {"--socket", daemon.socket(), "-o", "json"};
    words.insert(words.end(), command.begin(), command.end());
    const Result result = kaictl(words);
    check_failure(result, 1);
    const json error = json::parse(result.err)["error"];
    CHECK(error["code"] == "UNAVAILABLE");
    CHECK(error["retryable"] == true);
    CHECK(error["hint"].get<std::string>().find("try again") != std::string::npos);
  }
  FakeDaemon daemon(cut);
  check_failure(kaictl({"--socket", daemon.socket(), "run", "--", "true"}), 125);
}

TEST_CASE("a command line that makes no sense: 2, and 125 for run") {
  check_failure(kaictl({}), 2);
  check_failure(kaictl({"frobnicate"}), 2);
  check_failure(kaictl({"start"}), 2);
  check_failure(kaictl({"list", "--nope"}), 2);
  check_failure(kaictl({"-o", "xml", "list"}), 2);
  check_failure(kaictl({"start", "a", "--timeout", "0"}), 2);
  check_failure(kaictl({"logs", "-n", "-1"}), 2);
  check_failure(kaictl({"logs", "--since", "yesterday"}), 2);
  check_failure(kaictl({"quarantine", "a"}), 2);
  check_failure(kaictl({"quarantine", "--reason", "x"}), 2);
  check_failure(kaictl({"quarantine", "a", "--reason", ""}), 2);
  check_failure(kaictl({"quarantine", "a", "--reason", "x", "--type", "boredom"}), 2);
  check_failure(kaictl({"quarantine", "a", "--reason", "x", "--severity", "extreme"}), 2);
  check_failure(kaictl({"quarantine", "show"}), 2);
  check_failure(kaictl({"audit"}), 2);
  check_failure(kaictl({"audit", "verify", "--file", "f"}), 2);
  check_failure(kaictl({"audit", "verify", "--key", "k"}), 2);
  check_failure(kaictl({"audit", "prove"}), 2);
  check_failure(kaictl({"audit", "prove", "-3"}), 2);
  check_failure(kaictl({"audit", "prove", "3", "--checkpoint", "f"}), 2);
  check_failure(kaictl({"run"}), 125);
  check_failure(kaictl({"run", "--nope", "--", "true"}), 125);
  check_failure(kaictl({"run", "true"}), 125);
  const Result as_json = kaictl({"-o", "json", "frobnicate"});
  check_failure(as_json, 2);
  CHECK(json::parse(as_json.err)["error"]["code"] == "INVALID");
}

TEST_CASE("status of an unknown id: a document in JSON, a line in text") {
  FakeDaemon daemon(FakeDaemon::failing("NOT_FOUND", "agent x is not registered", "See: kaictl list"), 2);
  const Result as_json = kaictl({"--socket", daemon.socket(), "-o", "json", "status", "x"});
  CHECK(as_json.exit_code == 4);
  CHECK(as_json.err.empty());
  CHECK(as_json.out == "{\"id\":\"x\",\"status\":\"not_found\"}\n");
  check_failure(kaictl({"--socket", daemon.socket(), "status", "x"}), 4);
}

TEST_CASE("on a terminal, waiting for more than two seconds is told") {
  FakeDaemon daemon([](Connection& connection) { connection.wait_for_hangup(); });
  Program program({"--socket", daemon.socket(), "list", "--timeout", "2.5"}, Program::Streams::kTerminal);
  CHECK(program.read_until("kaictl: waiting for kaid: list the agents\n"));
  CHECK(program.finish().exit_code == 7);
}

}  // namespace
}  // namespace kai::test
