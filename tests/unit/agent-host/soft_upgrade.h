// What the tests of soft upgrades share: a runner that prints what it is asked, and the calls of its control.
#pragma once

#include <signal.h>

#include <string>
#include <string_view>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tests/unit/agent-host/host.h"

namespace kai::test {

using Json = nlohmann::json;
using Hook = klp::HookCall;

/// Answers everything, and prints what it was asked. SIGUSR1 lets held(request) go on, which does not answer before.
inline constexpr std::string_view kServing = R"(
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
def held(m): signal.sigwait([signal.SIGUSR1]); answer(m, {})
def echo(m): answer(m, {"payload": m["params"]["message"]["payload"]})
def throw(m): fail(m, "no " + m["method"], code="AGENT_ERROR", name="TypeError", stack="at x")
)";

inline spec::SandboxSpec serving(const std::string& results = "") {
  return runner(std::string(kServing) + "serve(message=echo" + (results.empty() ? "" : ", " + results) + ")");
}

/// What the runner was asked.
inline Json heard(Host& host) {
  return Json::parse(host.output_line());
}

inline void start(Host& host) {
  host.start();
  CHECK(heard(host)[0] == "init");
  CHECK(heard(host)[0] == "start");
}

inline void go_on(Host& host) {
  klp::Envelope go;
  go.mutable_signal()->set_number(SIGUSR1);
  host.send(go);
}

inline klp::HookCall load(const std::string& version = "1.1.0") {
  klp::HookCall call;
  call.set_hook(Hook::LOAD);
  klp::Load& next = *call.mutable_load();
  next.set_root("/kai/versions/" + version);
  next.set_entry("main.mjs");
  next.set_version(version);
  next.add_capabilities("scheduleEvent");
  next.add_capabilities("cancelEvent");
  next.set_manifest_json("{\"id\":\"calendarAgent\",\n\"name\":\"Calendar\"}");
  next.add_permissions()->set_resource("clock");
  return call;
}

/// The runner answers this request, and what it is asked first is that.
inline void check_serving(Host& host) {
  host.request("serving", "x", "\"served\"");
  CHECK(host.receive_message().payload() == "\"served\"");
  CHECK(heard(host)[0] == "message");
}

inline void check_version(const klp::Resume& resume, const std::string& version, std::uint32_t soft_swaps) {
  CHECK(resume.hello().version() == version);
  CHECK(resume.hello().capabilities_size() == (version == "1.0.3" ? 1 : 2));
  CHECK(resume.soft_swaps() == soft_swaps);
}

/// LOAD, INIT and START have returned.
inline void make_ready(Host& host) {
  CHECK_FALSE(host.hook(load()).has_error());
  CHECK_FALSE(host.hook(Hook::INIT).has_error());
  CHECK_FALSE(host.hook(Hook::START).has_error());
  for (const char* method : {"load", "init", "start"}) CHECK(heard(host)[0] == method);
}

}  // namespace kai::test
