// Registered agents from the operator's side: a whole control, a fake keeper, fake hosts.
#include <algorithm>
#include <csignal>

#include <doctest/doctest.h>

#include "base/text.h"
#include "tests/unit/control/control_fixture.h"

namespace kai::test {
namespace {

struct AgentsFixture : ControlFixture {
  explicit AgentsFixture(const Policy& chosen = builtin_policy(true)) : ControlFixture(chosen) {
    const auto added = add(manifest_of("a1"));
    REQUIRE_MESSAGE(added.has_done(), added.failed().message());
  }
  control::Response start() { return call(start_of("a1")); }
  std::string state() { return status("a1")["state"]; }
  void until_state(const std::string& wanted) {
    for (int asked = 0; state() != wanted && asked < 1000; ++asked) {
    }
    REQUIRE(state() == wanted);
  }
};

Policy quick() {
  Policy policy = builtin_policy(true);
  policy.backoff.base = std::chrono::milliseconds(2);
  policy.backoff.jitter = 0;
  policy.max_crashes = 2;
  return policy;
}

TEST_CASE("register, start, send, stop, unregister") {
  AgentsFixture f;
  CHECK(f.keeper->ready);
  auto status = f.status("a1");
  CHECK(status["state"] == "registered");
  CHECK(status["status"] == "terminated");
  CHECK(status["desired"] == "stopped");

  CHECK(document(f.start())["state"] == "running");
  status = f.status("a1");
  CHECK(status["status"] == "active");
  CHECK(status["pid"] == 4711);
  CHECK(status["desired"] == "running");
  CHECK(status["health"]["status"] == "healthy");
  CHECK(status["health"]["memoryUsage"] == 32.0);

  const auto answer = document(f.call(send_of("a1", "echo", R"({"z":1,"a":[1.50, "x"]})")));
  CHECK(answer["from"] == "a1");
  CHECK(answer["to"] == "operator");
  CHECK(answer["type"] == "response");
  CHECK(answer["payload"] == nlohmann::json::parse(R"({"z":1,"a":[1.5,"x"]})"));

  control::Request unregister;
  unregister.mutable_unregister()->set_id("a1");
  CHECK(code(f.call(unregister)) == "CONFLICT");
  CHECK(document(f.call(stop_of("a1")))["state"] == "stopped");
  CHECK(f.status("a1")["lastEnd"]["cause"] == "stopped");
  CHECK(code(f.call(unregister)) == "done");
  CHECK(code(f.call(unregister)) == "NOT_FOUND");
  const std::string log = f.log_text();
  for (const char* event : {"registered", "kai.starting", "activated", "started", "message_received", "kai.stopping",
                            "kai.stopped", "kai.unregistered"}) {
    CAPTURE(event);
    CHECK(log.find("\"event\":\"" + std::string(event) + "\"") != std::string::npos);
  }
}

TEST_CASE("the payload comes through byte for byte") {
  AgentsFixture f;
  f.start();
  const std::string payload = R"({ "big":12345678901234567890.10,  "b":1,"a":2 })";
  const auto answer = f.call(send_of("a1", "echo", payload));
  CHECK(answer.done().json().find("\"payload\":" + payload) != std::string::npos);
}

TEST_CASE("an unknown id is not found, and status has its document") {
  AgentsFixture f;
  control::Request request;
  request.mutable_status()->set_id("x");
  const auto answer = f.call(request);
  CHECK(answer.failed().code() == "NOT_FOUND");
  CHECK(nlohmann::json::parse(answer.failed().document()) == nlohmann::json{{"id", "x"}, {"status", "not_found"}});
  CHECK(code(f.call(start_of("x"))) == "NOT_FOUND");
  CHECK(code(f.call(send_of("x", "echo", "{}"))) == "NOT_FOUND");
}

TEST_CASE("what send refuses") {
  AgentsFixture f;
  CHECK(code(f.call(send_of("a1", "echo", "{}"))) == "NOT_RUNNING");
  f.start();
  CHECK(code(f.call(send_of("a1", "other", "{}"))) == "UNKNOWN_CAPABILITY");
  CHECK(code(f.call(send_of("a1", "echo", std::string((1 << 20) + 1, ' ')))) == "TOO_LARGE");
  CHECK(code(f.call(send_of("a1", "echo", "\"" + std::string((1 << 20) - 2, 'x') + "\""))) == "done");

  auto none = manifest_of("a2");
  none["runtime"]["protocol"] = "none";
  REQUIRE(f.add(none).has_done());
  CHECK(code(f.call(start_of("a2"))) == "done");
  CHECK(code(f.call(send_of("a2", "echo", "{}"))) == "UNKNOWN_CAPABILITY");
}

TEST_CASE("too many in flight are BUSY, a late answer is TIMEOUT, a death is AGENT_CRASHED") {
  Policy policy = quick();
  policy.limits.in_flight = 3;
  AgentsFixture f(policy);
  f.start();
  FakeHost& host = f.keeper->host();
  host.script = [](const klp::Envelope&) {};  // never answers
  OperatorClient client(f.loop, f.socket());
  const auto late = client.send(send_of("a1", "echo", "{}", 30));
  const auto first = client.send(send_of("a1", "echo", "{}"));
  const auto second = client.send(send_of("a1", "echo", "{}"));
  for (int waiting = 0; waiting < 3; ++waiting) client.send(send_of("a1", "echo", "{}"));  // as many again may wait
  CHECK(code(client.call(send_of("a1", "echo", "{}"))) == "BUSY");
  CHECK(code(client.wait(late)) == "TIMEOUT");
  f.keeper->exited(f.keeper->instance(), true, SIGSEGV);
  const auto crashed = client.wait(first);
  CHECK(code(crashed) == "AGENT_CRASHED");
  CHECK(crashed.failed().retryable());
  CHECK(code(client.wait(second)) == "AGENT_CRASHED");
}

TEST_CASE("an agent's error keeps its code, message and details; a code that only kaid may use becomes AGENT_ERROR") {
  AgentsFixture f;
  f.start();
  std::string said = "CONFLICT";
  FakeHost& host = f.keeper->host();
  host.script = [&](const klp::Envelope& envelope) {
    if (!envelope.has_message()) return;
    klp::Message request, error;
    request.ParseFromString(envelope.message());
    error.set_type(klp::ERROR);
    error.mutable_error()->set_code(said);
    error.mutable_error()->set_message("conflict with lunch");
    error.mutable_error()->set_details_json(R"({"stack":"…"})");
    host.answer(request, error);
  };
  CHECK(code(f.call(send_of("a1", "echo", "{}"))) == "CONFLICT");
  said = "QUARANTINED";
  const auto answer = f.call(send_of("a1", "echo", "{}"));
  CHECK(answer.failed().code() == "AGENT_ERROR");
  CHECK(answer.failed().message() == "conflict with lunch");
  CHECK(answer.failed().details_json() == R"({"stack":"…"})");
}

TEST_CASE("start and stop are idempotent") {
  AgentsFixture f;
  CHECK(code(f.call(stop_of("a1"))) == "done");
  CHECK(code(f.start()) == "done");
  CHECK(code(f.start()) == "done");
  CHECK(f.keeper->spawned == 1);
  CHECK(code(f.call(stop_of("a1"))) == "done");
  CHECK(code(f.call(stop_of("a1"))) == "done");
}

TEST_CASE("restart, and a start asked for while it stops") {
  AgentsFixture f;
  f.start();
  control::Request restart;
  restart.mutable_restart()->set_id("a1");
  CHECK(document(f.call(restart))["state"] == "running");
  CHECK(f.keeper->spawned == 2);

  OperatorClient client(f.loop, f.socket());
  const auto stopped = client.send(stop_of("a1"));
  const auto started = client.send(start_of("a1"));
  CHECK(code(client.wait(started)) == "done");
  CHECK(f.keeper->spawned == 3);
  CHECK(code(client.wait(stopped)) == "done");
}

TEST_CASE("terminate is for good, until the next start") {
  AgentsFixture f;
  f.start();
  control::Request terminate;
  terminate.mutable_terminate()->set_id("a1");
  terminate.mutable_terminate()->set_purge(true);
  CHECK(document(f.call(terminate))["state"] == "terminated");
  CHECK(f.status("a1")["desired"] == "stopped");
  CHECK(document(f.start())["state"] == "running");
}

TEST_CASE("a set-up failure names its step, to who asked, in status and in the log") {
  AgentsFixture f;
  f.keeper->fail_step = "mount /proc";
  const auto answer = f.start();
  CHECK(code(answer) == "INTERNAL");
  CHECK(answer.failed().message().find("mount /proc") != std::string::npos);
  const auto status = f.status("a1");
  CHECK(status["state"] == "stopped");
  CHECK(status["lastEnd"]["cause"] == "setup");
  CHECK(f.log_text().find("mount /proc") != std::string::npos);
}

TEST_CASE("a program that exits 0 by itself is stopped, any other end is a crash and is met with backoff") {
  AgentsFixture f(quick());
  f.start();
  SUBCASE("exit 0") {
    f.keeper->exited(f.keeper->instance(), false, 0);
    f.until_state("stopped");
    CHECK(f.status("a1")["lastEnd"]["exitCode"] == 0);
    CHECK(f.keeper->spawned == 1);
  }
  SUBCASE("crash, restart, and quarantine after maxCrashes") {
    for (int crash = 0; crash < 3; ++crash) {
      f.until([&] { return !f.keeper->hosts.empty(); });
      f.until_state("running");
      f.keeper->exited(f.keeper->instance(), true, SIGKILL, 1);
      f.until([&] { return f.log_text().find("\"crashes\":" + std::to_string(crash + 1)) != std::string::npos; });
    }
    f.until_state("quarantined");
    const auto status = f.status("a1");
    CHECK(status["lastEnd"]["cause"] == "oom");
    CHECK(status["crashes"]["count"] == 3);
    CHECK(status["desired"] == "running");
    CHECK(f.keeper->spawned == 3);
    CHECK(f.log_text().find("maxCrashes") != std::string::npos);
    CHECK(code(f.start()) == "QUARANTINED");
  }
}

TEST_CASE("onInit that throws is told to who asked") {
  AgentsFixture f;
  f.keeper->on_spawn = [&](FakeHost& host) {
    host.script = [&](const klp::Envelope& envelope) {
      if (!envelope.has_accepted()) return;
      klp::Envelope failed;
      failed.mutable_start_failed()->set_step("init");
      failed.mutable_start_failed()->set_message("no calendar today");
      host.send(failed);
      f.loop.defer([&f] { f.keeper->exited(f.keeper->instance(), false, 1); });
    };
    host.say_hello();
  };
  const auto answer = f.start();
  CHECK(code(answer) == "AGENT_ERROR");
  CHECK(answer.failed().message().find("no calendar today") != std::string::npos);
}

TEST_CASE("start with no_wait answers at once; with a short timeout it says TIMEOUT and goes on") {
  AgentsFixture f;
  f.keeper->on_spawn = [](FakeHost&) {};
  control::Request request = start_of("a1");
  request.mutable_start()->set_no_wait(true);
  CHECK(document(f.call(request))["state"] == "starting");
  request.mutable_start()->set_no_wait(false);
  request.mutable_start()->set_timeout_ms(20);
  CHECK(code(f.call(request)) == "TIMEOUT");
  CHECK(f.state() == "starting");
  // Not accepted yet: it is killed, nothing is asked of it.
  CHECK(code(f.call(stop_of("a1"))) == "done");
  CHECK(f.keeper->killed.size() == 1);
}

TEST_CASE("an agent that ignores stop is killed after its grace") {
  Policy policy = quick();
  policy.deadlines.stop = std::chrono::milliseconds(20);
  AgentsFixture f(policy);
  f.start();
  f.keeper->host().script = [](const klp::Envelope&) {};
  CHECK(document(f.call(stop_of("a1")))["state"] == "stopped");
  CHECK(f.keeper->killed.size() == 1);
  CHECK(f.status("a1")["lastEnd"]["signal"] == "SIGKILL");
}

TEST_CASE("SIGTERM stops agents and keeps desired; the next kaid starts them again") {
  AgentsFixture f;
  f.start();
  f.keeper->stop_control();
  f.until([&] { return f.keeper->hosts.empty(); });
  f.loop.run();  // until control stops it
  CHECK(f.control->exit_status() == 0);
  CHECK_FALSE(connect_to(f.socket()));
  f.end();
  f.ControlFixture::start();
  f.until([&] { return f.keeper->hosts.size() == 1; });
  f.until_state("running");
}

TEST_CASE("messages of the agent's own: to kaid UNAVAILABLE, to another agent DENIED, from is stamped") {
  AgentsFixture f;
  f.start();
  FakeHost& host = f.keeper->host();
  const auto ask = [&](const std::string& to, const std::string& capability) {
    const std::string id = new_uuid();
    klp::Message request;
    request.set_type(klp::REQUEST);
    request.set_protocol("klp/1.0");
    request.set_id(id);
    request.set_from("kaid");
    request.set_to(to);
    request.set_capability(capability);
    klp::Envelope envelope;
    request.SerializeToString(envelope.mutable_message());
    host.received.clear();
    host.send(envelope);
    f.until([&] { return !host.received.empty(); });
    klp::Message answer;
    answer.ParseFromString(host.received.front().message());
    CHECK(answer.correlation_id() == id);
    return answer.error().code();
  };
  CHECK(ask("kaid", "memory.get") == "UNAVAILABLE");
  CHECK(ask("a2", "echo") == "DENIED");
  CHECK(f.status("a1")["denials"] == 1);
}

TEST_CASE("output and SDK logs are records of the agent") {
  AgentsFixture f;
  f.start();
  FakeHost& host = f.keeper->host();
  host.write_output(1, "hello from stdout\nno line feed");
  host.write_output(2, "and stderr\n");
  klp::Envelope log;
  log.mutable_log()->set_level("warn");
  log.mutable_log()->set_message("by the SDK");
  host.send(log);
  f.call(stop_of("a1"));
  const std::string text = f.log_text();
  for (const char* wanted : {"hello from stdout", "no line feed", "and stderr", "by the SDK"}) {
    CAPTURE(wanted);
    CHECK(text.find(wanted) != std::string::npos);
  }
}

TEST_CASE("list has every agent in contracts.md's shape") {
  AgentsFixture f;
  REQUIRE(f.add(manifest_of("a2")).has_done());
  f.start();
  control::Request request;
  request.mutable_list();
  const auto list = document(f.call(request))["agents"];
  REQUIRE(list.size() == 2);
  CHECK(list[0]["id"] == "a1");
  CHECK(list[0]["state"] == "running");
  CHECK(list[1]["state"] == "registered");
  for (const char* key : {"id", "name", "version", "state", "status", "desired", "uptime", "restarts", "policy"}) {
    CAPTURE(key);
    CHECK(list[0].contains(key));
  }
}

}  // namespace
}  // namespace kai::test
