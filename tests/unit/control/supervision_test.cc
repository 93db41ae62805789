// Quarantine, health, the ends that condemn, and what a new control adopts: a whole control, a fake keeper.
#include <csignal>
#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/control/control_fixture.h"

namespace kai::test {
namespace {

Policy quick() {
  Policy policy = builtin_policy(true);
  policy.backoff.base = std::chrono::milliseconds(1);
  policy.backoff.jitter = 0;
  policy.max_crashes = 1;
  return policy;
}

control::Request quarantine_of(const std::string& id, const std::string& severity = "") {
  control::Request request;
  request.mutable_quarantine()->set_id(id);
  request.mutable_quarantine()->set_reason("it looks odd");
  request.mutable_quarantine()->set_severity(severity);
  return request;
}

control::Request recover_of(const std::string& id, bool force = false) {
  control::Request request;
  request.mutable_recover()->set_id(id);
  request.mutable_recover()->set_force(force);
  return request;
}

control::Request show_of(const std::string& id) {
  control::Request request;
  request.mutable_quarantine_show()->set_id(id);
  return request;
}

control::Request terminate_of(const std::string& id) {
  control::Request request;
  request.mutable_terminate()->set_id(id);
  return request;
}

struct Fixture : ControlFixture {
  explicit Fixture(const Policy& chosen = quick()) : ControlFixture(chosen) {
    REQUIRE(add(manifest_of("a1")).has_done());
    REQUIRE(code(call(start_of("a1"))) == "done");
  }
  std::string state() { return status("a1")["state"]; }
  void until_state(const std::string& wanted) {
    for (int asked = 0; state() != wanted && asked < 2000; ++asked) {
    }
    REQUIRE(state() == wanted);
  }
  nlohmann::json reason() { return status("a1")["quarantine"]["reason"]; }
  bool logged(const std::string& event) { return log_text().find("\"event\":\"" + event + "\"") != std::string::npos; }
};

TEST_CASE("a quarantine by hand: frozen, with evidence, refused to everybody, recovered by a fresh start") {
  Fixture f;
  REQUIRE(code(f.call(send_of("a1", "echo", "1"))) == "done");
  CHECK(code(f.call(quarantine_of("a1", "low"))) == "done");
  auto status = f.status("a1");
  CHECK(status["status"] == "quarantined");
  CHECK(status["quarantine"]["agentId"] == "a1");
  CHECK(status["quarantine"]["reason"]["type"] == "manual");
  CHECK(status["quarantine"]["reason"]["description"] == "it looks odd");
  CHECK(status["quarantine"]["maxRetries"] == 5);
  CHECK(status["quarantine"]["retryCount"] == 0);
  f.until([&] { return f.keeper->frozen.size() == 1; });
  f.until([&] { return std::filesystem::exists(f.directory / "state/quarantine/a1.json"); });
  CHECK(f.keeper->killed.empty());
  CHECK(code(f.call(send_of("a1", "echo", "1"))) == "QUARANTINED");
  CHECK(code(f.call(start_of("a1"))) == "QUARANTINED");
  while (!document(f.call(show_of("a1"))).contains("evidence")) {
  }
  const auto evidence = document(f.call(show_of("a1")))["evidence"];
  CHECK(evidence["processes"] == "pid 4711 stands still\n");
  CHECK(evidence["log"].size() > 2);
  REQUIRE(evidence["messages"].size() == 2);
  CHECK(evidence["messages"][0]["capability"] == "echo");
  CHECK(evidence["messages"][1]["outcome"] == "ok");

  CHECK(code(f.call(recover_of("a1"))) == "done");
  CHECK(f.keeper->killed.size() == 1);
  CHECK(f.keeper->spawned == 2);
  status = f.status("a1");
  CHECK(status["state"] == "running");
  CHECK_FALSE(status.contains("quarantine"));
  CHECK(f.logged("recovered"));
  CHECK(code(f.call(recover_of("a1"))) == "CONFLICT");
  CHECK(code(f.call(show_of("a1"))) == "CONFLICT");
}

TEST_CASE("where nothing can be frozen, or mode is kill, its processes are ended") {
  Policy policy = quick();
  SUBCASE("no control group") {
    Fixture f(policy);
    f.keeper->freeze_error = "no control group";
    CHECK(code(f.call(quarantine_of("a1"))) == "done");
    f.until([&] { return f.keeper->killed.size() == 1; });
    CHECK(f.state() == "quarantined");
  }
  SUBCASE("mode: kill") {
    policy.quarantine.kill = true;
    Fixture f(policy);
    CHECK(code(f.call(quarantine_of("a1"))) == "done");
    f.until([&] { return f.keeper->killed.size() == 1; });
    CHECK(f.keeper->frozen.size() == 1);
    f.until([&] { return f.keeper->hosts.empty(); });
    CHECK(f.state() == "quarantined");
  }
}

TEST_CASE("what a quarantine does not take") {
  Fixture f;
  auto request = quarantine_of("a1");
  request.mutable_quarantine()->set_type("bored");
  CHECK(code(f.call(request)) == "INVALID");
  CHECK(code(f.call(quarantine_of("a1", "huge"))) == "INVALID");
  request = quarantine_of("a1");
  request.mutable_quarantine()->set_reason("");
  CHECK(code(f.call(request)) == "INVALID");
  request.mutable_quarantine()->set_reason(std::string(2000, 'x'));
  CHECK(code(f.call(request)) == "INVALID");
  CHECK(code(f.call(quarantine_of("nobody"))) == "NOT_FOUND");
  CHECK(f.state() == "running");
}

TEST_CASE("crashes beyond maxCrashes quarantine, and every failed recovery is counted") {
  Fixture f;
  f.keeper->exited(f.keeper->instance(), true, SIGSEGV);
  f.until([&] { return f.keeper->spawned == 2 && !f.keeper->hosts.empty(); });
  f.until_state("running");
  f.keeper->exited(f.keeper->instance(), true, SIGSEGV);
  f.until_state("quarantined");
  CHECK(f.reason()["type"] == "crash");
  CHECK(f.reason()["severity"] == "medium");
  CHECK(f.keeper->frozen.empty());
  f.keeper->fail_step = "mounts";
  for (int retry = 1; retry <= 3; ++retry) {
    CHECK(code(f.call(recover_of("a1"))) == "INTERNAL");
    CHECK(f.status("a1")["quarantine"]["retryCount"] == retry);
    CHECK(f.state() == "quarantined");
  }
  const auto refused = f.call(recover_of("a1"));
  CHECK(code(refused) == "QUARANTINED");
  CHECK(refused.failed().details_json().find("max_retries_exceeded") != std::string::npos);
  // A restart of everything changes nothing of it.
  f.end();
  f.start();
  CHECK(f.state() == "quarantined");
  CHECK(f.status("a1")["quarantine"]["retryCount"] == 3);
  CHECK(f.keeper->spawned == 0);
  CHECK(code(f.call(recover_of("a1", true))) == "done");
  CHECK(f.state() == "running");
  CHECK(f.status("a1")["desired"] == "running");
}

TEST_CASE("ends that condemn at once") {
  Fixture f;
  SUBCASE("a system call of another architecture") {
    f.keeper->exited(f.keeper->instance(), true, SIGSYS);
    f.until_state("quarantined");
    CHECK(f.reason()["type"] == "security_violation");
    CHECK(f.reason()["severity"] == "high");
  }
  SUBCASE("a hello that lies") {
    f.call(stop_of("a1"));
    f.keeper->on_spawn = [](FakeHost& host) {
      host.spec.set_agent_id("somebody-else");
      host.say_hello();
    };
    CHECK(code(f.call(start_of("a1"))) == "DENIED");
    CHECK(f.state() == "quarantined");
    CHECK(f.reason()["type"] == "security_violation");
    CHECK(f.reason()["severity"] == "critical");
    CHECK(f.status("a1")["lastEnd"]["cause"] == "hello_refused");
    CHECK(code(f.call(recover_of("a1"))) == "QUARANTINED");
  }
  SUBCASE("memory, again and again") {
    f.keeper->exited(f.keeper->instance(), true, SIGKILL, 1);
    f.until([&] { return f.keeper->spawned == 2 && !f.keeper->hosts.empty(); });
    f.until_state("running");
    f.keeper->exited(f.keeper->instance(), true, SIGKILL, 1);
    f.until_state("quarantined");
    CHECK(f.reason()["type"] == "resource_abuse");
    CHECK(f.reason()["severity"] == "high");
  }
}

TEST_CASE("denials over the threshold quarantine") {
  Policy policy = quick();
  policy.quarantine.denials = 3;
  Fixture f(policy);
  for (int denial = 0; denial < 3; ++denial) f.keeper->file_denied(f.keeper->instance(), "fs.write_file", "/etc/x");
  f.until_state("quarantined");
  CHECK(f.reason()["type"] == "security_violation");
}

TEST_CASE("limits met over the threshold are abuse of resources") {
  Policy policy = quick();
  policy.quarantine.denials = 3;
  Fixture f(policy);
  for (int denial = 0; denial < 3; ++denial) f.keeper->limit(f.keeper->instance(), "pids", 128);
  f.until_state("quarantined");
  CHECK(f.reason()["type"] == "resource_abuse");
}

TEST_CASE("one that answers no health check is a crash of cause hung; one that says critical thrice is ended") {
  Policy policy = quick();
  policy.health.interval = std::chrono::milliseconds(20);
  policy.max_crashes = 0;
  Fixture f(policy);
  SUBCASE("hung") {
    f.keeper->host().script = [](const klp::Envelope&) {};
    f.until_state("quarantined");
    CHECK(f.status("a1")["lastEnd"]["cause"] == "hung");
  }
  SUBCASE("critical") {
    FakeHost& host = f.keeper->host();
    host.script = [&](const klp::Envelope& envelope) {
      if (!envelope.has_health_request()) return;
      klp::Envelope report;
      report.mutable_health_report()->set_sequence(envelope.health_request().sequence());
      report.mutable_health_report()->set_status(klp::HealthReport::CRITICAL);
      report.mutable_health_report()->add_errors()->set_type("DiskError");
      host.send(report);
    };
    f.until_state("quarantined");
    CHECK(f.status("a1")["lastEnd"]["cause"] == "signal");
    CHECK(f.status("a1")["lastEnd"]["message"].get<std::string>().find("DiskError") != std::string::npos);
    CHECK(f.logged("kai.health"));
  }
}

TEST_CASE("terminate ends a quarantine, and what was frozen") {
  Fixture f;
  CHECK(code(f.call(quarantine_of("a1"))) == "done");
  CHECK(code(f.call(terminate_of("a1"))) == "done");
  CHECK(f.state() == "terminated");
  CHECK(f.keeper->hosts.empty());
  CHECK_FALSE(f.status("a1").contains("quarantine"));
  CHECK(code(f.call(start_of("a1"))) == "done");
}

TEST_CASE("a recovery that an operator stops stays in quarantine, and is not counted") {
  Fixture f;
  CHECK(code(f.call(quarantine_of("a1"))) == "done");
  f.keeper->on_spawn = [](FakeHost&) {};  // never says hello
  OperatorClient client(f.loop, f.socket());
  const auto recovering = client.send(recover_of("a1"));
  f.until([&] { return f.keeper->spawned == 2; });
  CHECK(code(f.call(stop_of("a1"))) == "done");
  CHECK(code(client.wait(recovering)) != "done");
  CHECK(f.state() == "quarantined");
  CHECK(f.status("a1")["quarantine"]["retryCount"] == 0);
}

/// The next control finds one instance of a1, as the keeper describes it, whose agent-host is `host`.
struct Adopted : ControlFixture {
  Adopted() : ControlFixture(quick()) {
    REQUIRE(add(manifest_of("a1")).has_done());
    REQUIRE(code(call(start_of("a1"))) == "done");
    end();
  }
  void begin(keeper::Adoptable instance) {
    instance.set_instance(77);
    instance.set_agent_id("a1");
    instance.set_pid(4712);
    instance.set_spawned_ms(static_cast<std::uint64_t>(monotonic_ms()));
    KeeperClient::Adoption adoption{instance, {}};
    const bool ended = instance.has_exited();
    auto sockets = std::move(*socket_pair(SOCK_STREAM));
    auto output = std::move(*make_pipe());
    auto error = std::move(*make_pipe());
    REQUIRE(write_all(output.second.get(), "last words\n"));
    if (!ended) adoption.descriptors.push_back(std::move(sockets.first));
    adoption.descriptors.push_back(std::move(output.first));
    adoption.descriptors.push_back(std::move(error.first));
    adoptions.push_back(std::move(adoption));
    start();
    std::vector<Fd> given;
    given.push_back(std::move(sockets.second));
    if (!ended) host = &keeper->stand_in(77, std::move(given), "a1");
  }
  void resume(klp::Resume::Phase phase) {
    klp::Envelope envelope;
    klp::Resume& resume = *envelope.mutable_resume();
    resume.set_phase(phase);
    resume.set_runner_spoke(true);
    resume.mutable_hello()->set_agent_id("a1");
    resume.mutable_hello()->set_version("1.0.0");
    resume.mutable_hello()->add_capabilities("echo");
    resume.mutable_hello()->set_runner_protocol(true);
    host->send(envelope);
  }
  void until_state(const std::string& wanted) {
    for (int asked = 0; status("a1")["state"] != wanted && asked < 2000; ++asked) {
    }
    REQUIRE(status("a1")["state"] == wanted);
  }
  FakeHost* host = nullptr;
};

TEST_CASE_FIXTURE(Adopted, "an agent that ran on is adopted and serves") {
  begin({});
  resume(klp::Resume::SERVING);
  until_state("running");
  CHECK(keeper->spawned == 0);
  CHECK(status("a1")["pid"] == 4712);
  CHECK(code(call(send_of("a1", "echo", "5"))) == "done");
  CHECK(log_text().find("kai.adopted") != std::string::npos);
  until([&] { return log_text().find("last words") != std::string::npos; });
  CHECK(code(call(stop_of("a1"))) == "done");
}

TEST_CASE_FIXTURE(Adopted, "one that was starting goes on with it") {
  begin({});
  resume(klp::Resume::STARTING);
  klp::Envelope started;
  started.mutable_started();
  host->send(started);
  until_state("running");
}

TEST_CASE_FIXTURE(Adopted, "one that ended meanwhile is restarted, and its last words are kept") {
  keeper::Adoptable instance;
  instance.mutable_exited()->set_instance(77);
  instance.mutable_exited()->set_signaled(true);
  instance.mutable_exited()->set_code(SIGSEGV);
  begin(instance);
  until_state("running");
  CHECK(keeper->spawned == 1);
  CHECK(status("a1")["lastEnd"]["signal"] == "SIGSEGV");
  CHECK(log_text().find("last words") != std::string::npos);
}

TEST_CASE_FIXTURE(Adopted, "one that lies when it resumes is condemned") {
  begin({});
  klp::Envelope envelope;
  envelope.mutable_resume()->mutable_hello()->set_agent_id("somebody-else");
  host->send(envelope);
  until_state("quarantined");
  CHECK(status("a1")["quarantine"]["reason"]["severity"] == "critical");
}

TEST_CASE_FIXTURE(Adopted, "processes of an agent that nobody knows are ended") {
  control::Request unregister;
  unregister.mutable_unregister()->set_id("a1");
  start();
  until_state("running");
  REQUIRE(code(call(stop_of("a1"))) == "done");
  REQUIRE(code(call(unregister)) == "done");
  end();
  begin({});
  until([&] { return keeper->killed == std::vector<std::uint64_t>{77}; });
}

}  // namespace
}  // namespace kai::test
