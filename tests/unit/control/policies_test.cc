// Operator policies as control uses them: chosen by id, replaced whole, explained.
#include <doctest/doctest.h>

#include "base/unix.h"
#include "proto/keeper.pb.h"
#include "tests/unit/control/control_fixture.h"

using namespace kai;
using namespace kai::test;

namespace {

constexpr const char* kCalendar = R"(policies:
- name: calendar
  agentId: "a*"
  memoryLimit: 64
  limits: {processes: 7}
)";

control::Request reload() {
  control::Request request;
  request.mutable_reload();
  return request;
}

control::Request check_of(const nlohmann::json& manifest) {
  control::Request request;
  request.mutable_policy_check()->set_manifest(manifest.dump());
  return request;
}

}  // namespace

TEST_CASE("reload takes policies for the next start, and tells who runs under an old one") {
  ControlFixture f;
  REQUIRE(code(f.add(manifest_of("a1"))) == "done");
  REQUIRE(code(f.call(start_of("a1"))) == "done");
  CHECK(f.status("a1")["policy"] == "builtin");
  CHECK(f.keeper->host().spec.cgroup().pids() == 128);

  f.keeper->policies = {{"10-calendar.yaml", kCalendar}};
  const auto answer = document(f.call(reload()));
  CHECK(answer["policies"] == nlohmann::json{"calendar", "builtin"});
  CHECK(f.status("a1")["policy"] == "builtin");
  CHECK(f.log_text().find("it runs in its old sandbox until: kaictl restart a1") != std::string::npos);

  control::Request restart;
  restart.mutable_restart()->set_id("a1");
  REQUIRE(code(f.call(restart)) == "done");
  CHECK(f.status("a1")["policy"] == "calendar");
  CHECK(f.keeper->host().spec.cgroup().pids() == 7);
  CHECK(f.keeper->host().spec.cgroup().memory_bytes() == 64 << 20);
}

TEST_CASE("what kaid.yaml blocks comes with the policies, however long the list is") {
  keeper::Policies message;
  auto& file = *message.add_files();
  file.set_name("10-calendar.yaml");
  file.set_text(kCalendar);
  for (int at = 0; at < 1024; ++at) {
    auto& block = *message.add_blocked_domains();
    block.set_pattern(std::to_string(at) + "." + std::string(63, 'a') + "." + std::string(63, 'b') + ".example");
    block.set_rule("kaid.yaml:" + std::to_string(at));
  }
  const auto memfd = sealed_memfd("policies", message.SerializeAsString());
  REQUIRE(memfd);
  Policies policies(true);
  REQUIRE(policies.take(*memfd));
  for (const Policy& policy : policies.all().policies) CHECK(policy.global_blocks.size() == 1024);
}

TEST_CASE("a set with an error changes nothing and is told with its place") {
  ControlFixture f;
  REQUIRE(code(f.add(manifest_of("a1"))) == "done");
  f.keeper->policies = {{"10-calendar.yaml", kCalendar}};
  REQUIRE(code(f.call(reload())) == "done");
  SUBCASE("found by the keeper") {
    f.keeper->policies_error = "20-more.yaml:3:5: unknown key \"memroyLimit\"";
  }
  SUBCASE("found by control") {
    f.keeper->policies = {{"20-more.yaml", "policies:\n- name: x\n  memroyLimit: 3\n"}};
  }
  const auto answer = f.call(reload());
  CHECK(answer.failed().code() == "INVALID");
  CHECK(answer.failed().message().find("20-more.yaml:3:") != std::string::npos);
  CHECK(f.status("a1")["policy"] == "calendar");
}

TEST_CASE("SIGHUP does what reload does, and tells the log") {
  ControlFixture f;
  f.keeper->reload_control({{"10-calendar.yaml", kCalendar}});
  f.until([&] { return f.log_text().find("the operator's policies are in force") != std::string::npos; });
  CHECK(f.policies.for_agent("abc")->name == "calendar");
  f.keeper->reload_control({}, "10-calendar.yaml:1:1: no");
  f.until([&] { return f.log_text().find("10-calendar.yaml:1:1: no") != std::string::npos; });
  CHECK(f.policies.for_agent("abc")->name == "calendar");
}

TEST_CASE("policy check says what would be granted, trimmed and refused, with the rule") {
  ControlFixture f;
  f.keeper->reload_control({{"10-calendar.yaml", kCalendar}});
  f.until([&] { return f.policies.for_agent("abc")->name == "calendar"; });
  auto manifest = manifest_of("a1");
  CHECK(document(f.call(check_of(manifest)))["result"] == "ok");
  manifest["security"]["permissions"] = {{{"resource", "agent"}, {"scope", "b"}, {"actions", {"execute"}}}};
  const auto trimmed = document(f.call(check_of(manifest)));
  CHECK(trimmed["result"] == "trimmed");
  CHECK(trimmed["policy"] == "calendar");
  CHECK(trimmed["valid"] == true);
  manifest["security"]["sandbox"] = false;
  const auto refused = f.call(check_of(manifest));
  CHECK(refused.failed().code() == "INVALID");
  CHECK(nlohmann::json::parse(refused.failed().document())["result"] == "refused");
  manifest.erase("version");
  const auto invalid = nlohmann::json::parse(f.call(check_of(manifest)).failed().document());
  CHECK(invalid["valid"] == false);
  CHECK(invalid["errors"][0]["pointer"] == "/version");
}

TEST_CASE("policy explain and exposure of an agent") {
  ControlFixture f;
  REQUIRE(code(f.add(manifest_of("a1"))) == "done");
  control::Request explain;
  explain.mutable_policy_explain()->set_id("a1");
  CHECK(document(f.call(explain))["policy"] == "builtin");
  explain.mutable_policy_explain()->set_connect_name("example.com");
  explain.mutable_policy_explain()->set_connect_port(443);
  CHECK(document(f.call(explain))["verdict"] != "granted");
  explain.mutable_policy_explain()->set_id("nobody");
  CHECK(code(f.call(explain)) == "NOT_FOUND");
  const auto exposure = f.status("a1")["exposure"];
  CHECK(exposure["score"].is_number());
  CHECK(exposure["items"].is_array());
}
