// Dependencies of type agent and service: a whole control, a fake keeper.
#include <doctest/doctest.h>

#include "tests/unit/control/control_fixture.h"

namespace kai::test {
namespace {

nlohmann::json dependency(const std::string& name, const std::string& type, bool required = true) {
  return {{"name", name}, {"version", "*"}, {"type", type}, {"required", required}};
}

struct Fixture : ControlFixture {
  explicit Fixture(const Policy& chosen = builtin_policy(true)) : ControlFixture(chosen) {}
  void agent(const std::string& id, const std::vector<nlohmann::json>& dependencies = {}) {
    auto manifest = manifest_of(id);
    manifest["dependencies"] = dependencies;
    const auto added = add(manifest);
    REQUIRE_MESSAGE(added.has_done(), added.failed().message());
  }
  std::string state(const std::string& id) { return status(id)["state"]; }
  /// Place of the agent's first record of this event in the log; npos: none.
  std::size_t place(const std::string& id, const std::string& event) {
    return log_text().find("\"agent\":\"" + id + "\",\"event\":\"" + event + "\"");
  }
};

TEST_CASE("what an agent depends on is started first, and stopped after it") {
  Fixture f;
  f.agent("a", {dependency("b", "agent")});
  f.agent("b", {dependency("c", "agent"), dependency("nobody", "agent", false)});
  f.agent("c");
  CHECK(code(f.call(start_of("a"))) == "done");
  for (const char* id : {"a", "b", "c"}) CHECK(f.state(id) == "running");
  CHECK(f.place("c", "started") < f.place("b", "kai.starting"));
  CHECK(f.place("b", "started") < f.place("a", "kai.starting"));
  CHECK(f.log_text().find("it would like agent 'nobody'") != std::string::npos);

  f.keeper->stop_control();
  f.loop.run();
  CHECK(f.place("a", "kai.stopped") < f.place("b", "kai.stopping"));
  CHECK(f.place("b", "kai.stopped") < f.place("c", "kai.stopping"));
  f.end();
  f.ControlFixture::start();
  for (int asked = 0; f.state("a") != "running" && asked < 2000; ++asked) {
  }
  CHECK(f.state("a") == "running");
}

TEST_CASE("who stops what others need is told who they are") {
  Fixture f;
  f.agent("a", {dependency("b", "agent"), dependency("c", "agent", false)});
  f.agent("b");
  f.agent("c");
  REQUIRE(code(f.call(start_of("a"))) == "done");
  const auto stopped = f.call(stop_of("b"));
  REQUIRE(stopped.done().warnings_size() == 1);
  CHECK(stopped.done().warnings(0).find("agent 'a' depends on it") != std::string::npos);
  CHECK(f.call(stop_of("c")).done().warnings_size() == 0);
  REQUIRE(code(f.call(stop_of("a"))) == "done");
  CHECK(f.call(stop_of("b")).done().warnings_size() == 0);
}

TEST_CASE("a required agent that is not there, or does not come up, refuses the start") {
  Fixture f;
  f.agent("a", {dependency("b", "agent")});
  const auto missing = f.call(start_of("a"));
  CHECK(code(missing) == "UNAVAILABLE");
  CHECK(missing.failed().message().find("'b', which is not registered") != std::string::npos);
  f.agent("b");
  f.keeper->fail_step = "mounts";
  const auto failed = f.call(start_of("a"));
  CHECK(code(failed) == "INTERNAL");
  CHECK(failed.failed().message().find("it depends on 'b'") != std::string::npos);
  CHECK(f.state("a") == "registered");
  f.keeper->fail_step.clear();
  CHECK(code(f.call(start_of("a"))) == "done");
}

TEST_CASE("a cycle is named") {
  Fixture f;
  f.agent("a", {dependency("b", "agent")});
  f.agent("b", {dependency("a", "agent")});
  const auto answer = f.call(start_of("a"));
  CHECK(code(answer) == "CONFLICT");
  CHECK(answer.failed().message().find("a → b → a") != std::string::npos);
}

TEST_CASE("a service has to answer before the start") {
  Policy policy = builtin_policy(true);
  policy.services["db"] = "unix:/run/db.sock";
  Fixture f(policy);
  f.agent("a", {dependency("db", "service"), dependency("cache", "service", false)});
  const auto refused = f.call(start_of("a"));
  CHECK(code(refused) == "UNAVAILABLE");
  CHECK(refused.failed().message().find("service 'db' does not answer") != std::string::npos);
  CHECK(f.keeper->spawned == 0);
  f.keeper->services = {"unix:/run/db.sock"};
  CHECK(code(f.call(start_of("a"))) == "done");
  CHECK(f.log_text().find("service 'cache': has no address") != std::string::npos);
}

TEST_CASE("a service without an address in the policy refuses the start") {
  Fixture f;
  f.agent("a", {dependency("db", "service")});
  const auto refused = f.call(start_of("a"));
  CHECK(code(refused) == "UNAVAILABLE");
  CHECK(refused.failed().message().find("has no address in its policy") != std::string::npos);
}

}  // namespace
}  // namespace kai::test
