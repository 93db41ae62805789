// A version loaded beside the one that serves, and the state of the one that serves: each step, and what fails.
#include "tests/unit/agent-host/soft_upgrade.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "agent-host/limits.h"

namespace kai::test {

TEST_CASE("saveState: any JSON, and null where there is none") {
  Host host(runner(R"(
start()
answer(hear(), {"state": {"events": [1, 2.50], "x": "\u001b"}})
answer(hear(), {})
answer(hear(), None)
answer(hear(), [1])
answer(hear(), {"state": None})
unknown(hear())
fail(hear(), "full", code="AGENT_ERROR", name="DiskError")
raw(b'{"jsonrpc": "2.0", "id": %d, "result": {"state" :  [1.00,  2e3] }}\n' % hear()["id"])
hear()
)"));
  host.start();
  CHECK(Json::parse(host.hook(Hook::SAVE_STATE).state()) == Json::parse(R"({"events": [1, 2.5], "x": "\u001b"})"));
  for (int count = 0; count < 5; ++count) {
    const klp::HookDone done = host.hook(Hook::SAVE_STATE);
    CHECK_FALSE(done.has_error());
    CHECK(done.state() == "null");
  }
  const klp::HookDone failed = host.hook(Hook::SAVE_STATE);
  CHECK(failed.error().code() == "AGENT_ERROR");
  CHECK(failed.error().message() == "full");
  CHECK(failed.state().empty());
  CHECK(host.hook(Hook::SAVE_STATE).state() == "[1.00,  2e3]");  // byte for byte
}

TEST_CASE("soft upgrade: each step, and the version that serves") {
  Host host(serving("saveState={'state': [1]}, health={'status': 'healthy', 'uptime': 5}"));
  start(host);
  check_version(host.resumed(), "1.0.3", 0);
  CHECK_FALSE(host.hook(load()).has_error());
  CHECK(heard(host) == Json::parse(R"(["load", {"root": "/kai/versions/1.1.0", "entry": "main.mjs"}])"));
  check_serving(host);  // messages go on
  CHECK(host.hook(Hook::SAVE_STATE).state() == "[1]");
  CHECK(heard(host) == Json::parse(R"(["saveState", {}])"));
  CHECK_FALSE(host.hook(Hook::INIT).has_error());
  CHECK(heard(host) == Json::parse(R"(["init", {
    "agent": {"id": "calendarAgent", "name": "Calendar", "version": "1.1.0"},
    "capabilities": ["scheduleEvent", "cancelEvent"],
    "manifest": {"id": "calendarAgent", "name": "Calendar"},
    "permissions": [{"resource": "clock", "actions": []}],
    "limits": {"messageMs": 20000, "inFlight": 64, "frameBytes": 1048576},
    "protocol": 1, "next": true}])"));
  klp::HookCall call;
  call.set_hook(Hook::RESTORE_STATE);
  call.set_state("[1]");
  CHECK_FALSE(host.hook(call).has_error());
  CHECK(heard(host) == Json::parse(R"(["restoreState", {"state": [1], "next": true}])"));
  call.Clear();
  call.set_hook(Hook::UPGRADE);
  call.set_old_version("1.0.3");
  CHECK_FALSE(host.hook(call).has_error());
  CHECK(heard(host) == Json::parse(R"(["upgrade", {"oldVersion": "1.0.3", "next": true}])"));
  CHECK_FALSE(host.hook(Hook::START).has_error());
  CHECK(heard(host) == Json::parse(R"(["start", {"next": true}])"));
  const klp::HookDone health = host.hook(Hook::HEALTH);
  CHECK(health.health().status() == klp::HealthReport::HEALTHY);
  CHECK(health.health().uptime_ms() == 5);
  CHECK(heard(host) == Json::parse(R"(["health", {"next": true}])"));
  CHECK_FALSE(host.hook(Hook::COMMIT).has_error());
  CHECK(heard(host) == Json::parse(R"(["commit", {}])"));
  check_serving(host);
  const klp::Resume resume = host.resumed();
  CHECK(resume.phase() == klp::Resume::SERVING);
  check_version(resume, "1.1.0", 1);
  CHECK(host.hook(Hook::INIT).error().code() == "INVALID");  // there is no other any more

  make_ready(host);
  CHECK_FALSE(host.hook(Hook::COMMIT).has_error());
  CHECK(heard(host)[0] == "commit");
  check_version(host.resumed(), "1.1.0", 2);
}

TEST_CASE("soft upgrade: a hook of the loaded version throws; discarded, the other one goes on") {
  Host host(runner(std::string(kServing) + R"(
def of_next(f): return lambda m: f(m) if m["params"].get("next") else answer(m, {})
serve(message=echo, init=of_next(throw), restoreState=of_next(throw), upgrade=of_next(unknown), health=of_next(throw))
)"));
  start(host);
  CHECK_FALSE(host.hook(load()).has_error());
  const klp::ErrorBody error = host.hook(Hook::INIT).error();
  CHECK(error.code() == "AGENT_ERROR");
  CHECK(error.message() == "no init");
  CHECK(Json::parse(error.details_json()) == Json::parse(R"({"name": "TypeError", "stack": "at x"})"));
  klp::HookCall restore;
  restore.set_hook(Hook::RESTORE_STATE);
  restore.set_state("1");
  CHECK(host.hook(restore).error().message() == "no restoreState");
  CHECK_FALSE(host.hook(Hook::UPGRADE).has_error());
  for (int count = 0; count < 2; ++count) {
    const klp::HookDone health = host.hook(Hook::HEALTH);
    CHECK(health.error().message() == "no health");
    CHECK(health.health().status() == klp::HealthReport::CRITICAL);
    CHECK(health.health().errors(0).count() == 1);
  }
  CHECK(host.hook(Hook::COMMIT).error().code() == "INVALID");  // START has not returned
  CHECK_FALSE(host.hook(Hook::DISCARD).has_error());
  for (const char* method : {"load", "init", "restoreState", "upgrade", "health", "health", "discard"}) {
    CHECK(heard(host)[0] == method);
  }
  check_serving(host);
  CHECK(host.hook(Hook::START).error().code() == "INVALID");
  check_version(host.resumed(), "1.0.3", 0);
}

TEST_CASE("soft upgrade: the loaded version's health is read like every health") {
  Host host(runner(R"(
start()
answer(hear(), {}); answer(hear(), {})
answer(hear(), {"status": "healthy", "uptime": "long", "evil": "\u001b[2J", "errors": [1]})
answer(hear(), {"status": "healthy", "errors": [{"type": "E", "count": 1, "lastOccurrence": "2026-05-04T13:00:00Z"}] * 40})
answer(hear(), "fine")
answer(hear(), None)
answer(hear(), {"status": "critical"})
hear()
)"));
  host.start();
  CHECK_FALSE(host.hook(load()).has_error());
  CHECK_FALSE(host.hook(Hook::INIT).has_error());
  CHECK(host.hook(Hook::HEALTH).health().status() == klp::HealthReport::WARNING);
  const klp::HealthReport many = host.hook(Hook::HEALTH).health();
  CHECK(many.status() == klp::HealthReport::WARNING);
  CHECK(many.errors_size() == static_cast<int>(kMaxHealthErrors));
  CHECK(host.hook(Hook::HEALTH).health().status() == klp::HealthReport::WARNING);
  CHECK(host.hook(Hook::HEALTH).health().status() == klp::HealthReport::HEALTHY);
  const klp::HookDone critical = host.hook(Hook::HEALTH);
  CHECK_FALSE(critical.has_error());
  CHECK(critical.health().status() == klp::HealthReport::CRITICAL);
}

TEST_CASE("soft upgrade: a runner that cannot, and one that could not") {
  SUBCASE("it has no load") {
    Host host(serving("load=unknown"));
    start(host);
    for (int count = 0; count < 2; ++count) {
      const klp::ErrorBody error = host.hook(load()).error();
      CHECK(error.code() == "UNAVAILABLE");
      CHECK(error.message() ==
            "its runner cannot load another version beside the one that serves (runner protocol `load`): upgrade it "
            "with --type hard");
    }
    CHECK_FALSE(host.hook(Hook::DISCARD).has_error());
    CHECK(heard(host)[0] == "load");
    CHECK(heard(host)[0] == "load");
    check_serving(host);  // and nothing was discarded
  }
  SUBCASE("its code does not load") {
    Host host(serving("load=throw"));
    start(host);
    CHECK(host.hook(load()).error().message() == "no load");
    CHECK(heard(host)[0] == "load");
    CHECK(host.hook(Hook::INIT).error().code() == "INVALID");
    check_serving(host);
  }
  SUBCASE("protocol none") {
    Host host(program({"/bin/sh", "-c", "exec tail -f /dev/null"}));
    host.start();
    CHECK(host.hook(load()).error().code() == "UNAVAILABLE");
    CHECK(host.hook(Hook::SAVE_STATE).state() == "null");
    CHECK(host.hook(Hook::INIT).error().code() == "INVALID");
    CHECK_FALSE(host.hook(Hook::DISCARD).has_error());
  }
}

TEST_CASE("serving: calls that have no place") {
  Host host(serving());
  start(host);
  for (const Hook::Hook hook : {Hook::UNSPECIFIED, Hook::LOAD, Hook::INIT, Hook::RESTORE_STATE, Hook::UPGRADE,
                                Hook::START, Hook::HEALTH, Hook::COMMIT, static_cast<Hook::Hook>(10)}) {
    CHECK(host.hook(hook).error().code() == "INVALID");
  }
  CHECK_FALSE(host.hook(Hook::DISCARD).has_error());
  check_serving(host);  // the runner has heard none of them
  CHECK_FALSE(host.hook(load()).has_error());
  CHECK(host.hook(load()).error().code() == "INVALID");
  CHECK(host.hook(Hook::COMMIT).error().code() == "INVALID");
}

TEST_CASE("one call at a time, and DISCARD overtakes it") {
  // The loaded version's init does not return: the runner answers discard first, then the one that nobody waits for.
  Host host(runner(std::string(kServing) + R"(
def init(m): globals().update(late=m) if m["params"].get("next") else answer(m, {})
def discard(m): answer(m, {}); answer(late, {}); fail(late, "late too")
serve(message=echo, init=init, discard=discard)
)"));
  start(host);
  CHECK_FALSE(host.hook(load()).has_error());
  const std::uint64_t init = host.call(Hook::INIT);
  CHECK(host.hook(Hook::SAVE_STATE).error().code() == "BUSY");
  const std::uint64_t discard = host.call(Hook::DISCARD);
  const klp::HookDone taken_back = host.done(init);
  CHECK(taken_back.error().code() == "CONFLICT");
  CHECK_FALSE(taken_back.error().retryable());
  CHECK_FALSE(host.done(discard).has_error());
  for (const char* method : {"load", "init", "discard"}) CHECK(heard(host)[0] == method);
  check_serving(host);
  CHECK_FALSE(host.hook(load()).has_error());  // and again
}

TEST_CASE("DISCARD while the version is loaded, while state is saved, and twice") {
  SUBCASE("loading") {
    Host host(serving("load=held"));
    start(host);
    const std::uint64_t loading = host.call(load());
    CHECK(heard(host)[0] == "load");
    const std::uint64_t discard = host.call(Hook::DISCARD);
    CHECK(host.done(loading).error().code() == "CONFLICT");
    const std::uint64_t again = host.call(Hook::DISCARD);
    CHECK(host.done(discard).error().code() == "CONFLICT");
    go_on(host);
    CHECK_FALSE(host.done(again).has_error());  // not before the runner has answered
    CHECK(heard(host)[0] == "discard");
    check_serving(host);  // once
  }
  SUBCASE("a snapshot: nothing was loaded") {
    Host host(serving("saveState=held"));
    start(host);
    const std::uint64_t save = host.call(Hook::SAVE_STATE);
    CHECK(heard(host)[0] == "saveState");
    const std::uint64_t discard = host.call(Hook::DISCARD);
    CHECK(host.done(save).error().code() == "CONFLICT");
    CHECK_FALSE(host.done(discard).has_error());
    go_on(host);
    check_serving(host);
  }
  SUBCASE("it fails: that is told") {
    Host host(serving("discard=throw"));
    start(host);
    CHECK_FALSE(host.hook(load()).has_error());
    CHECK(host.hook(Hook::DISCARD).error().message() == "no discard");
  }
}

}  // namespace kai::test
