// Upgrades and rollbacks: a whole control, with agent-hosts that do at each hook what a test wants.
#include "supervisor/control/upgrade.h"

#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/control/control_fixture.h"
#include "tests/unit/control/tar_builder.h"

namespace kai::test {
namespace {

using Json = nlohmann::json;
using Call = klp::HookCall;

Json version_of(const std::string& version) {
  Json manifest = manifest_of("a1");
  manifest["entry"] = "main.py";
  manifest["version"] = version;
  manifest.erase("runtime");
  return manifest;
}

Policy quick() {
  Policy policy = builtin_policy(true);
  policy.backoff.initial = std::chrono::milliseconds(0);
  return policy;
}

struct Upgrading : ControlFixture {
  explicit Upgrading(const Policy& policy = quick()) : ControlFixture(policy) {
    REQUIRE(code(add(version_of("1.0.0"))) == "done");
    keeper->on_spawn = [this](FakeHost& host) { greet(host); };
    REQUIRE(code(call(start_of("a1"))) == "done");
  }

  /// Each hook call goes to `hooks`, and is written down, before it is answered as by an agent that works.
  void greet(FakeHost& host) {
    host.state = R"({"n":7})";
    host.on_hook = [this, &host](const Call& hook) {
      calls.push_back(host.spec.agent_version() + " " + std::string(to_string(hook.hook())));
      if (hook.hook() == Call::RESTORE_STATE) restored = hook.state();
      if (on_call && on_call(host, hook)) return;
      succeed(host, hook);
    };
    host.say_hello();
  }

  static void succeed(FakeHost& host, const Call& hook) {
    klp::Envelope envelope;
    klp::HookDone& done = *envelope.mutable_hook_done();
    done.set_id(hook.id());
    if (hook.hook() == Call::SAVE_STATE) done.set_state(host.state);
    if (hook.hook() == Call::HEALTH) done.mutable_health()->set_status(klp::HealthReport::HEALTHY);
    host.send(envelope);
  }
  static void throw_in(FakeHost& host, const Call& hook) {
    klp::Envelope envelope;
    envelope.mutable_hook_done()->set_id(hook.id());
    envelope.mutable_hook_done()->mutable_error()->set_code("AGENT_ERROR");
    envelope.mutable_hook_done()->mutable_error()->set_message("no");
    host.send(envelope);
  }

  std::uint64_t ask(const std::string& version, const std::string& type) {
    TarBuilder tar;
    tar.file("manifest.json", version_of(version).dump());
    tar.file("main.py", "# " + version);
    const Fd file = std::move(*sealed_memfd("tar", tar.bytes()));
    control::Request request;
    request.mutable_upgrade()->set_id("a1");
    request.mutable_upgrade()->set_type(type);
    request.mutable_upgrade()->set_directory(true);
    request.mutable_upgrade()->set_no_backup(true);
    return operator_->send(request, {file.get()});
  }
  control::Response upgrade(const std::string& version, const std::string& type) {
    return operator_->wait(ask(version, type));
  }
  control::Response roll_back() {
    control::Request request;
    request.mutable_rollback()->set_id("a1");
    return call(request);
  }
  /// It answers, and is this version.
  void check_serves(const std::string& version) {
    CHECK(document(call(send_of("a1", "echo", R"({"x":1})")))["payload"]["x"] == 1);
    CHECK(status("a1")["version"] == version);
    CHECK(status("a1")["state"] == "running");
  }
  void until_runs() {
    for (int asked = 0; status("a1")["state"] != "running" && asked < 2000; ++asked) {
    }
    REQUIRE(status("a1")["state"] == "running");
  }
  void until_called(const std::string& what) {
    until([&] { return std::find(calls.begin(), calls.end(), what) != calls.end(); });
  }

  std::vector<std::string> calls;
  std::string restored;
  std::function<bool(FakeHost&, const Call&)> on_call;  ///< true: it answers, or does not
};

TEST_CASE_FIXTURE(Upgrading, "soft: the order of its steps, in the process that runs") {
  const std::uint64_t before = keeper->instance();
  const Json result = document(upgrade("1.1.0", "soft"));
  CHECK(result["success"] == true);
  CHECK(result["type"] == "soft");
  CHECK(result["rollbackAvailable"] == true);
  CHECK(keeper->instance() == before);
  CHECK(keeper->spawned == 1);
  const std::vector<std::string> expected = {"1.0.0 load",    "1.0.0 saveState", "1.0.0 init",   "1.0.0 restoreState",
                                             "1.0.0 upgrade", "1.0.0 start",     "1.0.0 health", "1.0.0 commit"};
  CHECK(calls == expected);  // one process: its sandbox was made for 1.0.0
  CHECK(restored == R"({"n":7})");
  check_serves("1.1.0");

  calls.clear();
  const Json back = document(roll_back());
  CHECK(back["type"] == "rollback");
  CHECK(back["to"] == "1.0.0");
  CHECK(keeper->spawned == 1);
  check_serves("1.0.0");
}

TEST_CASE_FIXTURE(Upgrading, "hard: the new one serves when it has shown that it can, and then the old one stops") {
  const std::uint64_t before = keeper->instance();
  const Json result = document(upgrade("1.1.0", "hard"));
  CHECK(result["type"] == "hard");
  CHECK(keeper->spawned == 2);
  const std::vector<std::string> expected = {"1.1.0 load",    "1.0.0 saveState", "1.1.0 init",   "1.1.0 restoreState",
                                             "1.1.0 upgrade", "1.1.0 start",     "1.1.0 health", "1.1.0 commit"};
  CHECK(calls == expected);
  until([&] { return !keeper->hosts.contains(before); });
  check_serves("1.1.0");
}

TEST_CASE("a hook that throws takes nothing away from the version that serves") {
  for (const std::string type : {"soft", "hard"}) {
    for (const auto hook : {Call::INIT, Call::RESTORE_STATE, Call::UPGRADE, Call::START, Call::HEALTH}) {
      CAPTURE(type);
      CAPTURE(hook);
      Upgrading f;
      const std::uint64_t before = f.keeper->instance();
      f.on_call = [hook](FakeHost& host, const Call& call) {
        if (call.hook() != hook) return false;
        Upgrading::throw_in(host, call);
        return true;
      };
      const auto failed = f.upgrade("1.1.0", type);
      CHECK(code(failed) == "AGENT_ERROR");
      const Json details = Json::parse(failed.failed().details_json());
      CHECK(details["success"] == false);
      f.until([&] { return f.keeper->hosts.size() == 1; });
      CHECK(f.keeper->instance() == before);
      f.check_serves("1.0.0");
      f.on_call = nullptr;
      // In a process of its own, and not with what the one before had saved: until its bytes change.
      const bool marked = type == "hard" && hook != Call::RESTORE_STATE;
      CHECK(code(f.upgrade("1.1.0", type)) == (marked ? "DENIED" : "done"));
      f.check_serves(marked ? "1.0.0" : "1.1.0");
    }
  }
}

TEST_CASE_FIXTURE(Upgrading, "messages wait from saveState on, and each is answered once by the new version") {
  FakeHost* waiting = nullptr;
  Call held;
  on_call = [&](FakeHost& host, const Call& call) {
    if (call.hook() != Call::UPGRADE) return false;
    waiting = &host;
    held = call;
    return true;
  };
  const std::uint64_t asked = ask("1.1.0", "soft");
  until([&] { return waiting != nullptr; });
  std::vector<std::uint64_t> sent;
  for (int number = 0; number < 200; ++number) {
    sent.push_back(operator_->send(send_of("a1", "echo", std::to_string(number))));
  }
  CHECK(status("a1")["state"] == "upgrading");
  const auto got = [&] {
    return std::count_if(waiting->received.begin(), waiting->received.end(),
                         [](const klp::Envelope& each) { return each.has_message(); });
  };
  CHECK(got() == 0);
  CHECK(code(upgrade("1.2.0", "soft")) == "UPGRADING");
  succeed(*waiting, held);
  CHECK(document(operator_->wait(asked))["messagesHeld"] == 200);
  for (int number = 0; number < 200; ++number) {
    CHECK(document(operator_->wait(sent[static_cast<std::size_t>(number)]))["payload"] == number);
  }
  CHECK(got() == 200);
}

TEST_CASE_FIXTURE(Upgrading, "a request under way is answered before the state is saved") {
  klp::Message request;
  keeper->host().script = [&](const klp::Envelope& envelope) {
    if (envelope.has_message()) request.ParseFromString(envelope.message());
    if (envelope.has_hook_call()) keeper->host().on_hook(envelope.hook_call());
  };
  const std::uint64_t slow = operator_->send(send_of("a1", "echo", "5"));
  until([&] { return !request.id().empty(); });
  const std::uint64_t asked = ask("1.1.0", "soft");
  until_called("1.0.0 load");
  CHECK(status("a1")["state"] == "upgrading");
  CHECK(std::find(calls.begin(), calls.end(), "1.0.0 saveState") == calls.end());
  klp::Message response;
  response.set_type(klp::RESPONSE);
  response.set_payload("6");
  keeper->host().answer(request, response);
  CHECK(document(operator_->wait(slow))["payload"] == 6);
  CHECK(document(operator_->wait(asked))["success"] == true);
}

TEST_CASE(
    "a process that ends in the middle is started anew with the state that was saved, and what waited is answered") {
  for (const std::string type : {"soft", "hard"}) {
    CAPTURE(type);
    Upgrading f;
    const std::uint64_t before = f.keeper->instance();
    bool died = false;
    std::uint64_t waits = 0;
    f.on_call = [&](FakeHost&, const Call& call) {
      if (call.hook() != Call::UPGRADE || died) return false;
      died = true;
      waits = f.operator_->send(send_of("a1", "echo", "3"));
      f.loop.defer([&] { f.keeper->exited(before, true, 9); });
      return true;
    };
    const auto failed = f.upgrade("1.1.0", type);
    CHECK(code(failed) == "AGENT_CRASHED");
    CHECK(document(f.operator_->wait(waits))["payload"] == 3);
    CHECK(f.restored == R"({"n":7})");
    CHECK_FALSE(f.keeper->hosts.contains(before));
    f.check_serves("1.0.0");
    CHECK(f.status("a1")["crashes"]["count"] == 0);
  }
}

TEST_CASE_FIXTURE(Upgrading, "the new version's process ends: the old one never stopped") {
  const std::uint64_t before = keeper->instance();
  on_call = [&](FakeHost& host, const Call& call) {
    if (call.hook() != Call::INIT) return false;
    for (const auto& [instance, other] : keeper->hosts) {
      if (other.get() == &host) loop.defer([this, number = instance] { keeper->exited(number, false, 3); });
    }
    return true;
  };
  const auto failed = upgrade("1.1.0", "hard");
  CHECK(code(failed) == "AGENT_ERROR");
  CHECK(failed.failed().message().find("exited with status 3") != std::string::npos);
  CHECK(keeper->instance() == before);
  check_serves("1.0.0");
}

TEST_CASE_FIXTURE(Upgrading, "on probation a crash leads back, with the state of before, and the version is marked") {
  REQUIRE(document(upgrade("1.1.0", "soft"))["probationMs"] == 30'000);
  restored.clear();
  keeper->exited(keeper->instance(), true, 11);
  until([&] { return restored == R"({"n":7})"; });
  until_runs();
  check_serves("1.0.0");
  control::Request request;
  request.mutable_versions()->set_id("a1");
  const Json versions = document(call(request))["versions"];
  const auto bad =
      std::find_if(versions.begin(), versions.end(), [](const Json& each) { return each["version"] == "1.1.0"; });
  REQUIRE(bad != versions.end());
  CHECK((*bad)["bad"].get<std::string>().find("SIGSEGV") != std::string::npos);
  // The way back is not on probation itself.
  keeper->exited(keeper->instance(), true, 11);
  until([&] { return keeper->spawned == 3; });
  until_runs();
  check_serves("1.0.0");
}

TEST_CASE("stop, terminate and quarantine in the middle: nobody waits for ever") {
  for (const std::string type : {"soft", "hard"}) {
    for (const std::string what : {"stop", "terminate", "quarantine"}) {
      CAPTURE(type);
      CAPTURE(what);
      Upgrading f;
      bool reached = false;
      f.on_call = [&](FakeHost&, const Call& call) { return call.hook() == Call::START && (reached = true); };
      const std::uint64_t asked = f.ask("1.1.0", type);
      f.until([&] { return reached; });
      const std::uint64_t waits = f.operator_->send(send_of("a1", "echo", "1"));
      control::Request request;
      if (what == "stop") request = stop_of("a1");
      if (what == "terminate") request.mutable_terminate()->set_id("a1");
      if (what == "quarantine") {
        request.mutable_quarantine()->set_id("a1");
        request.mutable_quarantine()->set_reason("test");
      }
      CHECK(code(f.call(request)) == "done");
      CHECK(code(f.operator_->wait(asked)) == "CONFLICT");
      const control::Response ended = f.operator_->wait(waits);
      CHECK((ended.has_done() || !code(ended).empty()));
      CHECK(f.status("a1")["version"] == "1.0.0");
      CHECK(f.status("a1")["state"] == (what == "stop"        ? "stopped"
                                        : what == "terminate" ? "terminated"
                                                              : "quarantined"));
    }
  }
}

}  // namespace
}  // namespace kai::test
