// A start that is held: control asks for the agent's hooks one by one, and for COMMIT to make it serve.
#include <signal.h>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "agent-host/limits.h"
#include "tests/unit/agent-host/host.h"

namespace kai::test {
namespace {

using Json = nlohmann::json;
using Hook = klp::HookCall;

spec::SandboxSpec idle() {
  return program({"/bin/sh", "-c", "exec tail -f /dev/null"});
}

/// What the runner was asked, of the runners that serve().
Json heard(Host& host) {
  return Json::parse(host.output_line());
}

klp::HookCall restore(std::string state) {
  klp::HookCall call;
  call.set_hook(Hook::RESTORE_STATE);
  call.set_state(std::move(state));
  return call;
}

klp::HookCall upgrade(std::string old_version) {
  klp::HookCall call;
  call.set_hook(Hook::UPGRADE);
  call.set_old_version(std::move(old_version));
  return call;
}

std::string fault(Host& host, Hook::Hook hook) {
  return host.hook(hook).error().code();
}

/// Accepted, held, and its runner has spoken.
void hold(Host& host) {
  host.receive();
  host.accept_held();
  REQUIRE(host.receive().has_runner_hello());
}

}  // namespace

TEST_CASE("held: nothing is asked before control asks, and all of it in its order") {
  Host host(runner(R"(
serve(health={"status": "warning"}, message=lambda m: answer(m, {"payload": m["params"]["message"]["payload"]}))
)"));
  hold(host);
  CHECK_FALSE(host.hook(Hook::LOAD).has_error());
  CHECK(heard(host) == Json::parse(R"(["load", {}])"));  // and no init before it
  CHECK_FALSE(host.hook(Hook::INIT).has_error());
  CHECK(heard(host) == Json::parse(R"(["init", {
    "agent": {"id": "calendarAgent", "name": "Personal Calendar Assistant", "version": "1.0.3"},
    "capabilities": ["scheduleEvent"],
    "manifest": {"id": "calendarAgent", "name": "Personal Calendar Assistant"},
    "permissions": [{"resource": "calendar", "actions": ["read"]}],
    "limits": {"messageMs": 20000, "inFlight": 64, "frameBytes": 1048576},
    "protocol": 1}])"));
  CHECK_FALSE(host.hook(restore("{\n\"events\": [1,\r\n 2.50]}")).has_error());
  CHECK(heard(host) == Json::parse(R"(["restoreState", {"state": {"events": [1, 2.50]}}])"));
  CHECK_FALSE(host.hook(upgrade("1.0.2")).has_error());
  CHECK(heard(host) == Json::parse(R"(["upgrade", {"oldVersion": "1.0.2"}])"));
  CHECK_FALSE(host.hook(Hook::START).has_error());
  CHECK(heard(host) == Json::parse(R"(["start", {}])"));
  const klp::HookDone health = host.hook(Hook::HEALTH);
  CHECK_FALSE(health.has_error());
  CHECK(health.health().status() == klp::HealthReport::WARNING);
  CHECK(heard(host) == Json::parse(R"(["health", {}])"));

  host.request("early", "x", "1");
  CHECK(host.receive_message().error().code() == "NOT_RUNNING");
  CHECK_FALSE(host.hook(Hook::COMMIT).has_error());
  host.request("r", "x", "\"served\"");
  CHECK(host.receive_message().payload() ==
        "\"served\"");  // and neither a Started before it nor a commit to the runner
  CHECK(heard(host)[0] == "message");
  CHECK(host.resumed().phase() == klp::Resume::SERVING);
}

TEST_CASE("held: what a runner does not know is done, where it need not") {
  Host host(runner("serve(load=unknown, restoreState=unknown, upgrade=unknown, health=unknown, init=unknown)"));
  hold(host);
  CHECK_FALSE(host.hook(Hook::LOAD).has_error());
  CHECK_FALSE(host.hook(restore("null")).has_error());
  CHECK_FALSE(host.hook(upgrade("1.0.0")).has_error());
  const klp::HookDone health = host.hook(Hook::HEALTH);
  CHECK_FALSE(health.has_error());
  CHECK(health.health().status() == klp::HealthReport::HEALTHY);
  CHECK(fault(host, Hook::INIT) == "UNKNOWN_CAPABILITY");
}

TEST_CASE("held: the library of an earlier SDK, which serves nothing before init, is loaded by it") {
  Host host(runner(R"(
def early(m): say({"jsonrpc": "2.0", "id": m["id"], "error": {"code": -32600, "message": "load before init"}})
serve(load=early)
)"));
  hold(host);
  for (const Hook::Hook hook : {Hook::LOAD, Hook::INIT, Hook::START, Hook::COMMIT}) {
    CHECK_FALSE(host.hook(hook).has_error());
  }
}

TEST_CASE("held: what a hook throws is told, and the host stays held") {
  Host host(runner(R"(
def throw(m): fail(m, "no " + m["method"], code="AGENT_ERROR", name="TypeError", stack="at x")
serve(load=throw, init=throw, restoreState=throw, upgrade=throw, start=throw, health=throw)
)"));
  hold(host);
  for (const Hook::Hook hook : {Hook::LOAD, Hook::INIT, Hook::UPGRADE, Hook::START}) {
    const klp::ErrorBody error = host.hook(hook).error();
    CHECK(error.code() == "AGENT_ERROR");
    CHECK(error.message() == "no " + heard(host)[0].get<std::string>());
    CHECK(Json::parse(error.details_json()) == Json::parse(R"({"name": "TypeError", "stack": "at x"})"));
  }
  CHECK(host.hook(restore("{}")).error().message() == "no restoreState");
  const klp::HookDone health = host.hook(Hook::HEALTH);
  CHECK(health.error().message() == "no health");
  CHECK(health.health().status() == klp::HealthReport::CRITICAL);
  CHECK(health.health().errors(0).type() == "TypeError");
  CHECK(fault(host, Hook::COMMIT) == "INVALID");  // START threw
  host.stop(20'000);
  // onStart has not returned: there is nothing to shut down.
  CHECK(host.receive(klp::Envelope::kExit).exit().code() == SIGTERM);
}

TEST_CASE("held: calls that have no place") {
  Host host(runner("serve()"));
  hold(host);
  CHECK(fault(host, Hook::SAVE_STATE) == "INVALID");
  CHECK(fault(host, Hook::COMMIT) == "INVALID");
  CHECK(fault(host, Hook::UNSPECIFIED) == "INVALID");
  CHECK(fault(host, static_cast<Hook::Hook>(10)) == "INVALID");
  CHECK(fault(host, static_cast<Hook::Hook>(-1)) == "INVALID");
  klp::HookCall load;
  load.set_hook(Hook::LOAD);
  load.mutable_load()->set_root("/kai/versions/x");
  CHECK(host.hook(load).error().code() == "INVALID");
  load.set_hook(Hook::INIT);
  CHECK(host.hook(load).error().code() == "INVALID");
  CHECK(host.hook(restore("{")).error().code() == "INVALID");
  CHECK(host.hook(restore("")).error().code() == "INVALID");
  CHECK(host.hook(restore(std::string(200, '[') + std::string(200, ']'))).error().code() == "INVALID");
  CHECK_FALSE(host.hook(Hook::DISCARD).has_error());  // nothing beside it
  CHECK_FALSE(host.hook(Hook::LOAD).has_error());
  CHECK(heard(host)[0] == "load");  // the runner has heard none of the others
}

TEST_CASE("a state that is too large for a line is refused with the sizes; the largest goes both ways") {
  SUBCASE("to the runner") {
    Host big(runner(R"(
def keep(m):
    global saved
    saved = m["params"]["state"]
    answer(m, {})
hello()
while m := hear(): keep(m) if m["method"] == "restoreState" else answer(m, {"state": saved} if m["method"] == "saveState" else {})
)"));
    hold(big);
    const std::string largest = '"' + std::string(kMaxStateBytes - 2, 'x') + '"';
    const klp::ErrorBody error = big.hook(restore(largest + " ")).error();
    CHECK(error.code() == "TOO_LARGE");
    CHECK(error.message().find("1048577 bytes") != std::string::npos);
    CHECK(error.message().find("1048576 may") != std::string::npos);
    CHECK_FALSE(big.hook(restore(largest)).has_error());
    CHECK_FALSE(big.hook(Hook::START).has_error());
    CHECK_FALSE(big.hook(Hook::COMMIT).has_error());
    CHECK(big.hook(Hook::SAVE_STATE).state() == largest);
  }
  SUBCASE("from the runner") {
    Host big(runner("start()\nanswer(hear(), {'state': 'x' * (1 << 20)})\nanswer(hear(), {'state': 1})\nhear()"));
    big.start();
    const klp::HookDone done = big.hook(Hook::SAVE_STATE);
    CHECK(done.error().code() == "TOO_LARGE");
    CHECK(done.error().message().find("1048578 bytes") != std::string::npos);
    CHECK(done.state().empty());
    CHECK(big.hook(Hook::SAVE_STATE).state() == "1");
  }
}

TEST_CASE("held: a manifest that no line holds") {
  spec::SandboxSpec spec = runner("serve()");
  spec.set_manifest_json("{\"x\":\"" + std::string(kMaxLineBytes, 'x') + "\"}");
  Host host(spec);
  hold(host);
  CHECK(fault(host, Hook::INIT) == "TOO_LARGE");
}

TEST_CASE("a call to an agent that starts by itself") {
  Host host(runner("hello()\nm = hear()\nnote('log', level='info', message=m['method'])\nhear()"));
  host.accept();
  CHECK(host.receive(klp::Envelope::kLog).log().message() == "init");
  CHECK(fault(host, Hook::HEALTH) == "INVALID");
  CHECK(fault(host, Hook::DISCARD) == "INVALID");
}

TEST_CASE("held: a call that follows before the answer, and DISCARD that overtakes it") {
  Host host(runner(R"(
hello()
m = hear()
hear()  # start
print("started", flush=True)
answer(m, {})
hear()
)"));
  hold(host);
  const std::uint64_t init = host.call(Hook::INIT);
  CHECK(fault(host, Hook::START) == "BUSY");
  const std::uint64_t discard = host.call(Hook::DISCARD);
  CHECK(host.done(init).error().code() == "CONFLICT");
  CHECK_FALSE(host.done(discard).has_error());
  host.call(Hook::START);
  CHECK(host.output_line() == "started\n");  // the answer to init is late, and START's is still waited for
  CHECK(fault(host, Hook::UPGRADE) == "BUSY");
}

TEST_CASE("held: stop") {
  SUBCASE("before anything was asked") {
    Host host(runner("serve()"));
    hold(host);
    host.stop(20'000);
    CHECK(host.receive().exit().code() == SIGTERM);
  }
  SUBCASE("while a hook runs") {
    Host host(runner("hello(); hear()\nwhile True: signal.pause()"));
    hold(host);
    host.call(Hook::INIT);
    host.stop(20'000);
    CHECK(host.receive(klp::Envelope::kExit).exit().code() == SIGTERM);
  }
  SUBCASE("after START: by onShutdown") {
    Host host(runner(
        "hello()\nfor n in range(3): m = hear(); answer(m, {})\nsys.exit(7 if m['method'] == 'shutdown' else 1)"));
    hold(host);
    CHECK_FALSE(host.hook(Hook::INIT).has_error());
    CHECK_FALSE(host.hook(Hook::START).has_error());
    host.stop(20'000);
    CHECK(host.receive(klp::Envelope::kExit).exit().code() == 7);
  }
  SUBCASE("a call that crosses it") {
    Host host(runner("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nhello()\nwhile True: signal.pause()"));
    hold(host);
    host.stop(600'000);
    CHECK(fault(host, Hook::INIT) == "NOT_RUNNING");
    host.stop(0);
    CHECK(host.receive().has_exit());
  }
}

TEST_CASE("held: control is lost") {
  Host host(runner("serve()"));
  hold(host);
  SUBCASE("before START") {
    CHECK_FALSE(host.hook(Hook::INIT).has_error());
    CHECK(host.resumed().phase() == klp::Resume::STARTING);
  }
  SUBCASE("before COMMIT") {
    CHECK_FALSE(host.hook(Hook::START).has_error());
    host.call(Hook::HEALTH);  // and its answer reaches nobody
    CHECK(host.resumed().phase() == klp::Resume::STARTING);
    CHECK_FALSE(host.hook(Hook::COMMIT).has_error());
    CHECK(host.resumed().phase() == klp::Resume::SERVING);
  }
  SUBCASE("after it has said COMMIT") {
    CHECK_FALSE(host.hook(Hook::START).has_error());
    host.call(Hook::COMMIT);
    const klp::Resume resume = host.resumed();
    CHECK(resume.phase() == klp::Resume::SERVING);
    CHECK(resume.runner_spoke());
    CHECK(resume.soft_swaps() == 0);
  }
  host.stop(20'000);
  host.receive(klp::Envelope::kExit);
}

TEST_CASE("held: a runner that breaks the protocol, or ends") {
  SUBCASE("another protocol version") {
    Host host(runner("note('hello', sdk='future/2', protocol=2); hear(); hear()"));
    host.accept_held();
    CHECK(host.receive(klp::Envelope::kStartFailed).start_failed().step() == "runner-protocol");
    CHECK(host.wait() == 1);
  }
  SUBCASE("a hook that ends the process") {
    Host host(runner("hello(); hear(); sys.exit(9)"));
    hold(host);
    host.call(Hook::INIT);
    CHECK(host.receive().exit().code() == 9);
  }
}

TEST_CASE("held with protocol none: there are no hooks, and COMMIT makes it serve") {
  Host host(idle());
  host.receive();
  host.accept_held();
  for (const Hook::Hook hook : {Hook::LOAD, Hook::INIT, Hook::UPGRADE}) CHECK_FALSE(host.hook(hook).has_error());
  CHECK_FALSE(host.hook(restore("{}")).has_error());
  CHECK(fault(host, Hook::COMMIT) == "INVALID");
  CHECK_FALSE(host.hook(Hook::START).has_error());
  CHECK(host.hook(Hook::HEALTH).health().status() == klp::HealthReport::HEALTHY);
  CHECK_FALSE(host.hook(Hook::COMMIT).has_error());
  klp::Envelope envelope;
  envelope.mutable_health_request()->set_sequence(3);
  host.send(envelope);
  CHECK(host.receive().health_report().sequence() == 3);
  CHECK(host.resumed().phase() == klp::Resume::SERVING);
}

}  // namespace kai::test
