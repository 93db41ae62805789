#include "policies/explain.h"

#include <algorithm>
#include <fstream>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "policies/policy_check.h"
#include "tests/unit/policies/manifests.h"
#include "tests/unit/policies/policy_fixture.h"
#include "tests/unit/policies/valijson.h"

namespace kai {
namespace {

using testing::policy;
using Words = std::vector<std::string>;
using PlainJson = nlohmann::json;

bool holds(const char* schema_name, const std::string& text) {
  std::ifstream file(std::string(KAI_SOURCE_DIR "/docs/schema/") + schema_name);
  const PlainJson document = PlainJson::parse(file);
  valijson::Schema schema;
  valijson::SchemaParser().populateSchema(valijson::adapters::NlohmannJsonAdapter(document), schema);
  const PlainJson target = PlainJson::parse(text);
  return valijson::Validator().validate(schema, valijson::adapters::NlohmannJsonAdapter(target), nullptr);
}

Compiled compiled(const std::string& manifest, const Policy& rules) {
  const ManifestResult parsed = parse_manifest(manifest);
  REQUIRE(parsed.manifest);
  auto result = compile(*parsed.manifest, rules, {"calendarAgent-abc", ""});
  REQUIRE_MESSAGE(result, result.error().message());
  return std::move(*result);
}

PlainJson layer(const std::string& text, const char* name) {
  const PlainJson json = PlainJson::parse(text);
  for (const PlainJson& each : json["layers"]) {
    if (each["layer"] == name) return each;
  }
  return {};
}

}  // namespace

TEST_CASE("explain: every layer with its state and rule; the schema holds") {
  const Policy rules = policy(
      "  memoryLimit: 100\n  files: {/tmp/calendar-cache: {host: /srv/cal, write: true}}\n"
      "  grants: [hostNetwork, hostWrite, \"syscalls:ptrace\"]\n  degrade: [cgroup]\n");
  const Compiled result = compiled(testing::kExample, rules);
  const std::string text = explain_json(result, rules, {"cgroup"});
  CHECK(holds("policy-explain.schema.json", text));
  const PlainJson json = PlainJson::parse(text);
  CHECK(json["layers"].size() == 11);
  CHECK(json["grants"][0] == PlainJson{{"name", "hostWrite"}, {"rule", "10-test.yaml:5"}});
  CHECK(json["degraded"][0] == PlainJson{{"name", "cgroup"}, {"rule", "10-test.yaml:6"}});
  CHECK(json["exposure"]["score"] > 0);
  CHECK(layer(text, "cgroup")["state"] == "degraded");
  CHECK(layer(text, "cgroup")["rule"] == "10-test.yaml:6");
  CHECK(layer(text, "cgroup")["items"][0] ==
        PlainJson{{"name", "memory"}, {"value", 100}, {"unit", "MB"}, {"rule", "10-test.yaml:3"}});
  CHECK(layer(text, "network")["state"] == "opened");
  CHECK(layer(text, "seccomp")["items"][0]["name"] == "ptrace");
  const PlainJson mounts = layer(text, "mounts");
  CHECK(mounts["state"] == "opened");
  const auto host = std::find_if(mounts["items"].begin(), mounts["items"].end(),
                                 [](const PlainJson& item) { return item["kind"] == "host"; });
  REQUIRE(host != mounts["items"].end());
  CHECK((*host)["name"] == "/tmp/calendar-cache");
  CHECK((*host)["source"] == "/srv/cal");
  CHECK((*host)["readOnly"] == false);
  CHECK((*host)["rule"] == "10-test.yaml:4");
}

TEST_CASE("explain: a text that fits a screen, each line with its rule") {
  const Policy rules = builtin_policy(false);
  const std::string text = explain_text(compiled(testing::kExample, rules), rules, {});
  CAPTURE(text);
  CHECK(std::count(text.begin(), text.end(), '\n') <= 35);
  CHECK(text.starts_with("calendarAgent under policy builtin [builtin], exposure "));
  CHECK(text.find("\nseccomp     on        profile node") != std::string::npos);
  CHECK(text.find("\n  /tmp/calendar-cache: private tmp__calendar-cache, writable [builtin]\n") != std::string::npos);
  CHECK(text.find("\n  memory: 512 MB [builtin]\n") != std::string::npos);
}

TEST_CASE("explain: the network, with what egress holds it to") {
  Policy rules = policy(
      "  network:\n    allowedDomains: [calendar.google.com]\n    allowedCidrs: [10.1.0.0/16]\n"
      "    hosts: {calendar.google.com: 10.1.2.3}\n  networkLimit: {maxConnections: 5}\n");
  rules.global_blocks = {{"*.bad.example", "kaid.yaml:3"}};
  const std::string text = explain_json(compiled(testing::kExample, rules), rules, {});
  CHECK(holds("policy-explain.schema.json", text));
  const PlainJson network = layer(text, "network");
  CHECK(network["state"] == "on");
  CHECK(network["summary"] == "its own loopback, and by name, through egress, what is listed here");
  CHECK(network["rule"] == "10-test.yaml:4");
  Words names;
  for (const PlainJson& item : network["items"]) names.push_back(item["name"]);
  CHECK(names == Words{"calendar.google.com", "outlook.office.com", "10.1.0.0/16", "*.bad.example",
                       "calendar.google.com", "ports", "protocols", "connections", "bandwidth"});
  CHECK(network["items"][3]["rule"] == "kaid.yaml:3");
  CHECK(network["items"][5]["value"] == "80, 443");
  CHECK(network["items"][7]["value"] == 5);
  CHECK(network["items"][7]["rule"] == "10-test.yaml:7");
  // Nobody is reached: nothing is listed but what was asked.
  const Policy none = builtin_policy(false);
  const PlainJson closed = layer(explain_json(compiled(testing::kExample, none), none, {}), "network");
  CHECK(closed["summary"] == "its own loopback only");
  CHECK(closed["items"].size() == 2);
}

TEST_CASE("explain: the network of an agent that runs is that of the policy of now, all else that of its start") {
  const Policy before = policy("  memoryLimit: 100\n  network:\n    allowedDomains: [calendar.google.com]\n");
  const Policy now = policy(
      "  memoryLimit: 200\n  network:\n    allowedDomains: [outlook.office.com]\n    blockedDomains: [10.0.0.1]\n"
      "    ports: [80, 8443]\n  networkLimit: {maxConnections: 5}\n");
  const Compiled started = compiled(testing::kExample, before);
  const Compiled would_be = compiled(testing::kExample, now);
  const auto network = [&](const Compiled& start, const NetworkNow& changed) {
    return layer(explain_json(start, before, {}, &changed), "network");
  };
  const NetworkNow changed{now, &would_be};
  const std::string text = explain_json(started, before, {}, &changed);
  CHECK(holds("policy-explain.schema.json", text));
  CHECK(layer(text, "cgroup")["items"][0]["value"] == 100);
  CHECK(layer(text, "network")["summary"] ==
        "its own loopback, and by name, through egress, what is listed here; by policy test as it is now, all else by "
        "that of its start");
  const PlainJson items = layer(text, "network")["items"];
  CHECK(items[0]["name"] == "outlook.office.com");
  CHECK(items[0]["value"] == "granted: allowed by outlook.office.com");
  CHECK(items[1]["value"].get<std::string>().starts_with("trimmed: "));
  CHECK(items[2] == PlainJson{{"name", "10.0.0.1"}, {"value", "blocked"}, {"rule", "10-test.yaml:6"}});
  CHECK(items[5]["value"] == 5);
  CHECK(explain_text(started, before, {}, &changed).find("by policy test as it is now") != std::string::npos);
  CHECK(items[3]["value"] == "80; after kaictl restart calendarAgent: 8443");
  // Nothing has changed: nothing is said of it.
  const NetworkNow same{before, &started};
  CHECK(explain_json(started, before, {}, &same) == explain_json(started, before, {}));
  CHECK(explain_text(started, before, {}, &same) == explain_text(started, before, {}));

  // What waits for the next start, or is cut.
  const Policy none = policy("  memoryLimit: 100\n");
  const Compiled without = compiled(testing::kExample, none);
  CHECK(network(without, changed)["summary"].get<std::string>().ends_with(
      "it gives a network, which waits for kaictl restart calendarAgent"));
  CHECK(
      network(started, {none, &without})["summary"].get<std::string>().starts_with("its own loopback only; by policy"));
  const Policy host = policy("  grants: [hostNetwork]\n");
  const Compiled opened = compiled(testing::kExample, host);
  CHECK(network(started, {host, &opened})["summary"].get<std::string>().ends_with(
      "it gives the host's network, which waits for kaictl restart calendarAgent"));
  CHECK(network(started, {host, nullptr})["summary"].get<std::string>().ends_with(
      "it refuses this agent, whose network is cut"));
  CHECK(network(started, {host, nullptr})["items"].empty());
}

TEST_CASE("explain: unsandboxed, and nothing asked") {
  const Policy open = policy("  sandbox: false\n  grants: [unsandboxed]\n");
  const std::string text = explain_json(compiled(testing::with("/security/sandbox", false), open), open, {});
  CHECK(holds("policy-explain.schema.json", text));
  for (const char* name : {"mounts", "landlock", "seccomp"}) CHECK(layer(text, name)["state"] == "off");
  CHECK(layer(text, "seccomp")["rule"] == "10-test.yaml:4");
}

TEST_CASE("policy check and connect hold their schema") {
  const PolicySet none = testing::policies("");
  CHECK(holds("policy-check.schema.json", policy_check_json(check_policy(testing::kExample, none))));
  CHECK(holds("policy-check.schema.json", policy_check_json(check_policy("{}", none))));
  CHECK(!holds("policy-check.schema.json", R"({"valid":true,"result":"fine","errors":[],"items":[]})"));
  const ManifestResult parsed = parse_manifest(testing::kExample);
  const PlainJson verdict =
      PlainJson::parse(connect_json(connect_verdict(*parsed.manifest, none.policies[0], "a\x1B.com", 1)));
  CHECK(verdict["verdict"] == "refused");
  CHECK(verdict["asked"] == "a\\e.com:1");
}

}  // namespace kai
