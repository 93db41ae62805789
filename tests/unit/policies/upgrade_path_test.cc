#include "policies/upgrade_path.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "policies/policy_yaml.h"
#include "tests/unit/policies/manifests.h"
#include "tests/unit/policies/policy_fixture.h"

namespace kai {
namespace {

using testing::example;
using testing::Json;
using Kind = UpgradeFinding::Kind;
using Weight = UpgradeFinding::Weight;

const char* const kKey = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
const char* const kOtherKey = "RWSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSS";

Manifest manifest_of(const Json& document) {
  ManifestResult result = parse_manifest(document.dump());
  REQUIRE_MESSAGE(result.manifest, testing::errors(document.dump()));
  return *result.manifest;
}

/// The way from the specification's example, 1.0.3, to 1.1.0, which differs in what a test changes.
struct Way {
  Json from = example(), to = example();
  std::string from_package = "aaaa", to_package = "bbbb";
  std::string from_signer, to_signer;
  Policy policy = builtin_policy(false);
  std::vector<UpgradeDependent> dependents;
  bool rollback = false;
  std::string bad;

  Way() { to["version"] = "1.1.0"; }

  [[nodiscard]] std::vector<UpgradeFinding> check() const {
    const Manifest old_manifest = manifest_of(from), new_manifest = manifest_of(to);
    const UpgradeSide old_side{&old_manifest, from_package, from_signer};
    const UpgradeSide new_side{&new_manifest, to_package, to_signer};
    return check_upgrade_path({old_side, new_side, policy, dependents, rollback, bad});
  }
  /// "kind weight pointer" of each finding.
  [[nodiscard]] std::vector<std::string> found() const {
    std::vector<std::string> lines;
    for (const UpgradeFinding& finding : check()) {
      lines.push_back(std::string(to_string(finding.kind)) + " " + std::string(to_string(finding.weight)) +
                      (finding.pointer.empty() ? "" : " " + finding.pointer));
    }
    return lines;
  }
  /// The only finding.
  [[nodiscard]] UpgradeFinding one() const {
    const auto findings = check();
    REQUIRE(findings.size() == 1);
    return findings.front();
  }
};

using Lines = std::vector<std::string>;

bool says(const UpgradeFinding& finding, std::string_view part) {
  return finding.message.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a newer version that asks for nothing else has nothing to be told") {
  CHECK(Way().check().empty());
}

TEST_CASE("the order of versions is semver's") {
  struct Case {
    const char* from;
    const char* to;
    Lines found;
  };
  const std::vector<Case> cases = {
      {"1.0.3", "1.0.10", {}},
      {"1.0.3", "2.0.0-rc.1", {}},
      {"2.0.0-rc.1", "2.0.0-rc.2", {}},
      {"2.0.0-rc.9", "2.0.0", {}},
      {"2.0.0-9", "2.0.0-10", {}},
      {"1.0.10", "1.0.9", {"version needs_force /version"}},
      {"2.0.0", "2.0.0-rc.1", {"version needs_force /version"}},
      {"1.0.0+1", "1.0.0+2", {"version note /version"}},
      {"1.0.3", "1.0.3", {"version needs_force /version"}},
      {"1.0.3", "99999999999999999999.0.0", {"version needs_force /version"}},  // more than npm compares
  };
  for (const Case& each : cases) {
    CAPTURE(std::string(each.to));
    Way way;
    way.from["version"] = each.from;
    way.to["version"] = each.to;
    CHECK(way.found() == each.found);
  }
}

TEST_CASE("a downgrade names the way back") {
  Way way;
  way.to["version"] = "1.0.2";
  CHECK(says(way.one(), "kaictl rollback calendarAgent 1.0.2"));
}

TEST_CASE("the bytes that are active already are refused, whatever the way") {
  Way way;
  way.to_package = way.from_package;
  way.to["version"] = "1.0.3";
  CHECK(way.found() == Lines{"version refused /version"});
  way.rollback = true;
  CHECK(way.found() == Lines{"version refused /version"});
}

TEST_CASE("another agent's package is refused") {
  Way way;
  way.to["id"] = "mailAgent";
  CHECK(way.found() == Lines{"identity refused /id"});
  way.rollback = true;
  CHECK(way.found() == Lines{"identity refused /id"});
}

TEST_CASE("the signer stays the same but for the grant") {
  Way way;
  way.policy.trusted_keys = {kKey, kOtherKey};
  way.from_signer = way.to_signer = kKey;
  CHECK(way.found() == Lines{});

  way.to_signer = kOtherKey;
  CHECK(way.found() == Lines{"signer refused"});
  CHECK(says(way.one(), "signerChange"));
  way.to_signer.clear();  // stripped
  CHECK(way.found() == Lines{"signer refused"});

  way.policy.grants = {"hostWrite", "signerChange"};
  way.policy.places["grants.1"] = "10-test.yaml:9";
  CHECK(way.found() == Lines{"signer note"});
  CHECK(way.one().rule == "10-test.yaml:9");
  way.to_signer = kOtherKey;
  CHECK(way.found() == Lines{"signer note"});

  way.policy.grants.clear();
  way.from_signer.clear();  // from then on it is signed
  CHECK(way.found() == Lines{"signer note"});
}

TEST_CASE("a version of the archive must be what the policy takes today") {
  Way way;
  way.from_signer = way.to_signer = kKey;
  CHECK(way.found() == Lines{"signer refused"});
  CHECK(says(way.one(), "trustedKeys"));
  way.from_signer = way.to_signer = "";
  way.policy.allow_unsigned = Unsigned::kNever;
  CHECK(way.found() == Lines{"signer refused"});
  way.rollback = true;
  CHECK(way.found() == Lines{"signer note"});
}

TEST_CASE("the way back to another signer is told, and open") {
  Way way;
  way.policy.trusted_keys = {kKey, kOtherKey};
  way.from_signer = kKey;
  way.to_signer = kOtherKey;
  way.rollback = true;
  CHECK(way.found() == Lines{"signer note"});
}

TEST_CASE("what was taken back needs force; the way back is open") {
  Way way;
  way.bad = "it crashed in probation: exit 1";
  CHECK(way.found() == Lines{"bad needs_force"});
  CHECK(says(way.one(), "it crashed in probation: exit 1"));
  way.rollback = true;
  CHECK(way.found() == Lines{"bad note"});
}

TEST_CASE("a capability that goes needs force where others depend on the agent") {
  Way way;
  way.to["capabilities"] = {"scheduleEvent", "queryAvailability", "importEvents"};
  CHECK(way.found() == Lines{"capability note /capabilities"});
  way.dependents = {{"mailAgent", ""}};
  CHECK(way.found() == Lines{"capability needs_force /capabilities"});
  CHECK(says(way.one(), "cancelEvent"));
  CHECK(says(way.one(), "mailAgent"));
  for (int at = 0; at < 7; ++at) way.dependents.push_back({"agent" + std::to_string(at), "*"});
  CHECK(says(way.one(), "agent3 and 3 more"));
}

TEST_CASE("an agent that nobody can ask any more has lost all its capabilities") {
  Way way;
  way.to["runtime"] = {{"protocol", "none"}};
  CHECK(way.found() == Lines{"capability note /runtime/protocol"});
  way.dependents = {{"mailAgent", ""}};
  CHECK(way.found() == Lines{"capability needs_force /runtime/protocol"});
}

TEST_CASE("a dependent's range that the new version leaves") {
  Way way;
  way.to["version"] = "2.0.0";
  way.dependents = {{"a", ">=1.0.0"}, {"b", "^1.0.0"}, {"c", "~0.9.0"}, {"d", "latest"}, {"e", "*"}, {"f", ""}};
  CHECK(way.found() ==
        Lines{"dependency needs_force /version", "dependency note /version", "dependency note /version"});
  const auto findings = way.check();
  CHECK(says(findings[0], "agent b depends on \"^1.0.0\" of it, which 2.0.0 is not"));
  CHECK(says(findings[1], "neither is 1.0.3"));
  CHECK(says(findings[2], "\"latest\""));
}

TEST_CASE("what is asked beyond the version before it: given by the policy or not") {
  struct Case {
    const char* pointer;
    Json value;
    Lines without, with;  ///< under the built-in policy, and under one that gives it
  };
  const std::string network = "/security/networkAccess/", files = "/security/fileAccess/";
  const std::vector<Case> cases = {
      {"/security/networkAccess/allowedDomains",
       {"calendar.google.com", "outlook.office.com", "api.example.com"},
       {"widened needs_force " + network + "allowedDomains/2"},
       {"widened note " + network + "allowedDomains/2"}},
      {"/security/networkAccess/allowedDomains",
       {"calendar.google.com:8443"},
       {"widened needs_force " + network + "allowedDomains/0"},
       {"widened note " + network + "allowedDomains/0"}},
      {"/security/networkAccess/allowedDomains", {"calendar.google.com:443"}, {}, {}},
      {"/security/networkAccess/allowedDomains",
       {"*.google.com"},
       {"widened needs_force " + network + "allowedDomains/0"},
       {"widened note " + network + "allowedDomains/0"}},
      {"/security/permissions",
       {{{"resource", "agent"}, {"scope", "mailAgent"}, {"actions", {"execute"}}}},
       {"widened needs_force /security/permissions/0"},
       {"widened note /security/permissions/0"}},
      {"/security/permissions",
       {{{"resource", "calendar"}, {"actions", {"read", "delete"}}}},
       {"widened note /security/permissions/0"},
       {"widened note /security/permissions/0"}},
      {"/security/permissions", {{{"resource", "calendar"}, {"actions", {"read"}}}}, {}, {}},
      {"/security/fileAccess/allowedPaths",
       {"/tmp/calendar-cache", "/data"},
       {"widened note " + files + "allowedPaths/1"},
       {"widened note " + files + "allowedPaths/1"}},
      {"/memory/maxSize", 60, {"widened note /memory/maxSize"}, {"widened note /memory/maxSize"}},
      {"/memory/maxSize", 100, {"widened needs_force /memory/maxSize"}, {"widened note /memory/maxSize"}},
      {"/memory/sharedAccess", true, {"widened note /memory/sharedAccess"}, {"widened note /memory/sharedAccess"}},
      {"/security/crypto", "none", {"widened needs_force /security/crypto"}, {"widened needs_force /security/crypto"}},
      {"/security/crypto", "secp256k1", {}, {}},
      {"/security/networkAccess/maxConnections", 1000, {}, {}},  // the version before asked for all there are
  };
  const Policy generous = testing::policy(
      "  network: {allowedDomains: ['*', 'calendar.google.com:8443']}\n"
      "  permissions: [{resource: agent, scope: '*', actions: [execute]}]\n"
      "  limits: {memoryStore: 200}\n");
  for (const Case& each : cases) {
    CAPTURE(std::string(each.pointer));
    CAPTURE(each.value.dump());
    Way way;
    way.to[Json::json_pointer(each.pointer)] = each.value;
    CHECK(way.found() == each.without);
    way.policy = generous;
    CHECK(way.found() == each.with);
    way.policy = builtin_policy(false);
    way.rollback = true;
    Lines told = each.without;  // the way back asks for no force
    for (std::string& line : told) {
      if (const std::size_t at = line.find("needs_force"); at != std::string::npos) line.replace(at, 11, "note");
    }
    CHECK(way.found() == told);
  }
}

TEST_CASE("a finding says what is asked, what the policy says to it, and by which rule") {
  Way way;
  way.policy = testing::policy("  network: {allowedDomains: [calendar.google.com]}\n");
  way.to["security"]["networkAccess"]["allowedDomains"] = {"api.example.com"};
  const UpgradeFinding finding = way.one();
  CHECK(
      finding.message ==
      "it asks for connections to \"api.example.com\", which 1.0.3 did not: policy test does not list it: the operator "
      "can add it to network.allowedDomains");
  CHECK(finding.rule == "10-test.yaml:3");
}

TEST_CASE("a first network, fewer names blocked, more connections") {
  Way way;
  way.from["security"]["networkAccess"] = {{"allowOutbound", false}};
  way.to["security"]["networkAccess"]["allowedDomains"] = {"calendar.google.com"};
  CHECK(way.found() == Lines{"widened needs_force /security/networkAccess/allowOutbound",
                             "widened needs_force /security/networkAccess/allowedDomains/0"});

  Way unblocked;
  unblocked.from["security"]["networkAccess"]["blockedDomains"] = {"ads.google.com"};
  CHECK(unblocked.found() == Lines{"widened note /security/networkAccess/blockedDomains"});

  Way connections;
  connections.from["security"]["networkAccess"]["maxConnections"] = 4;
  CHECK(connections.found() == Lines{"widened note /security/networkAccess/maxConnections"});
  connections.to["security"]["networkAccess"]["maxConnections"] = 8;
  CHECK(connections.found() == Lines{"widened note /security/networkAccess/maxConnections"});
  connections.to["security"]["networkAccess"]["maxConnections"] = 800;
  CHECK(connections.found() == Lines{"widened needs_force /security/networkAccess/maxConnections"});
  connections.to["security"]["networkAccess"]["maxConnections"] = 2;
  CHECK(connections.check().empty());
}

TEST_CASE("blocks of addresses are held against those of the version before") {
  Way way;
  way.from["security"]["networkAccess"]["allowedDomains"] = {"10.1.0.0/16"};
  way.to["security"]["networkAccess"]["allowedDomains"] = {"10.1.2.3:443", "10.1.2.0/24"};
  CHECK(way.check().empty());
  way.to["security"]["networkAccess"]["allowedDomains"] = {"10.0.0.0/8"};
  CHECK(way.found() == Lines{"widened needs_force /security/networkAccess/allowedDomains/0"});
}

TEST_CASE("files that become writable, and /tmp") {
  Way way;
  way.from["security"]["fileAccess"] = {
      {"allowedPaths", {"/data", "/srv/shared"}}, {"readOnly", true}, {"tempFileAccess", false}};
  way.to["security"]["fileAccess"] = {
      {"allowedPaths", {"/data", "/srv/shared"}}, {"readOnly", false}, {"tempFileAccess", true}};
  way.policy = testing::policy("  files: {/srv/shared: {host: /srv/shared, write: false}}\n");
  CHECK(way.found() == Lines{"widened note /security/fileAccess/allowedPaths/0",
                             "widened needs_force /security/fileAccess/allowedPaths/1",
                             "widened note /security/fileAccess/tempFileAccess"});
}

TEST_CASE("a sandbox that goes is refused where the policy has no leave for it, and told where it has") {
  Way way;
  way.to["security"]["sandbox"] = false;
  CHECK(way.found() == Lines{"widened refused /security/sandbox"});
  way.rollback = true;  // it could not be started
  CHECK(way.found() == Lines{"widened refused /security/sandbox"});
  way.policy = testing::policy("  sandbox: false\n  grants: [unsandboxed]\n");
  CHECK(way.found().front() == "widened note /security/sandbox");
}

TEST_CASE("another runtime is told") {
  Way way;
  way.to["entry"] = "main.py";
  CHECK(way.found() == Lines{"widened note /runtime/kind"});
}

TEST_CASE("memory that is not carried over needs force") {
  struct Case {
    Json from, to;
    Lines found;
  };
  const auto memory = [](const char* type, const char* backend) {
    return Json{{"type", type}, {"backend", backend}, {"persistent", std::string_view(type) != "volatile"}};
  };
  const std::vector<Case> cases = {
      {memory("persistent", "sqlite"), memory("volatile", "sqlite"), {"memory needs_force /memory/type"}},
      {memory("volatile", "memory"), memory("persistent", "sqlite"), {"memory needs_force /memory/type"}},
      {memory("persistent", "sqlite"), memory("persistent", "redis"), {"memory needs_force /memory/backend"}},
      {memory("persistent", "indexeddb"), memory("persistent", "sqlite"), {"memory needs_force /memory/backend"}},
      {memory("persistent", "sqlite"), memory("persistent", "indexeddb"), {"memory note /memory/backend"}},
      {memory("persistent", "sqlite"), memory("hybrid", "sqlite"), {"memory note /memory/type"}},
      {memory("volatile", "memory"), memory("volatile", "sqlite"), {"memory note /memory/backend"}},
      {memory("persistent", "sqlite"), memory("persistent", "sqlite"), {}},
  };
  for (const Case& each : cases) {
    CAPTURE(each.from.dump());
    CAPTURE(each.to.dump());
    Way way;
    way.from["memory"] = each.from;
    way.to["memory"] = each.to;
    CHECK(way.found() == each.found);
  }
  Way smaller;
  smaller.to["memory"]["maxSize"] = 10;
  CHECK(smaller.found() == Lines{"memory note /memory/maxSize"});
}

TEST_CASE("findings come in the order of their kinds") {
  Way way;
  way.to["version"] = "0.9.0";
  way.to["id"] = "mailAgent";
  way.to["capabilities"] = {"scheduleEvent"};
  way.to["security"]["crypto"] = "none";
  way.to["memory"] = {{"type", "volatile"}, {"backend", "memory"}, {"persistent", false}};
  way.to_signer = kKey;
  way.bad = "it crashed";
  way.dependents = {{"a", "^1.0.0"}};
  const auto findings = way.check();
  CHECK(std::is_sorted(findings.begin(), findings.end(), [](const auto& a, const auto& b) { return a.kind < b.kind; }));
  CHECK(findings.back().kind == Kind::kMemory);
}

namespace {

/// Why the example in its one form cannot become its other form in one process.
std::string why(const Json& from, const Json& to, const Policy& to_policy = builtin_policy(false)) {
  const Manifest old_manifest = manifest_of(from), new_manifest = manifest_of(to);
  const auto old_compiled = compile(old_manifest, builtin_policy(false), {"aaaa", ""});
  const auto new_compiled = compile(new_manifest, to_policy, {"bbbb", ".kai/main.mjs"});
  REQUIRE(old_compiled);
  REQUIRE(new_compiled);
  return needs_new_process(old_manifest, *old_compiled, new_manifest, *new_compiled);
}

std::string why_with(const char* pointer, Json value) {
  return why(example(), Json::parse(testing::with(pointer, std::move(value))));
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("what belongs to the version alone needs no new process") {
  Json to = example();
  to["version"] = "1.1.0";
  to["name"] = "Calendar";
  to["entry"] = "src/other.ts";
  to["capabilities"] = {"scheduleEvent", "importEvents"};
  to["metadata"]["license"] = "Apache-2.0";
  to["memory"]["ttl"] = 60;
  to["memory"]["maxSize"] = 20;
  to["security"]["permissions"] = {{{"resource", "mail"}, {"actions", {"read"}}}};
  CHECK(why(example(), to).empty());
}

TEST_CASE("what a process gets once needs a new one, and is named") {
  CHECK(why_with("/entry", "main.py") == "it has another runtime: python instead of node");
  CHECK(contains(why_with("/entry", "main.mjs"), "the options of its runner"));  // of TypeScript: source maps
  CHECK(contains(why_with("/runtime", {{"args", {"--verbose"}}}), "runtime.args"));
  CHECK(contains(why_with("/runtime", {{"env", {{"MODE", "fast"}}}}), "runtime.env"));
  CHECK(contains(why_with("/security/fileAccess/allowedPaths", {"/tmp/calendar-cache", "/data"}), "\"/data\""));
  CHECK(contains(why_with("/security/fileAccess/tempFileAccess", false), "\"/tmp\""));
  CHECK(contains(why_with("/security/networkAccess/allowedDomains", {"a.example"}), "networkAccess"));
  CHECK(contains(why_with("/security/networkAccess/allowOutbound", false), "networkAccess"));
  CHECK(contains(why_with("/memory/backend", "sqlite"), "memory.backend"));
  CHECK(contains(why_with("/security/crypto", "none"), "security.crypto"));

  Policy policy = builtin_policy(false);
  policy.limits.open_files = 7;
  CHECK(contains(why(example(), example(), policy), "its limits"));
  policy = builtin_policy(false);
  policy.grants = {"syscalls:ptrace"};
  CHECK(contains(why(example(), example(), policy), "its filter of system calls"));
  policy = builtin_policy(false);
  policy.memory_limit_mb = 1024;
  CHECK(contains(why(example(), example(), policy), "its limits"));
}

TEST_CASE("all that differs is named in one sentence") {
  Json to = example();
  to["runtime"] = {{"args", {"--verbose"}}};
  to["security"]["crypto"] = "none";
  CHECK(why(example(), to) ==
        "what a process gets once, when it is made, differs: its arguments (runtime.args), the key of its channel "
        "(security.crypto)");
}

TEST_CASE("programs that nobody can ask to load another version") {
  Json program = example();
  program["entry"] = "main";
  CHECK(contains(why(program, program), "runtime.kind exec"));
  program["runtime"] = {{"protocol", "runner"}};
  CHECK(contains(why(program, program), "runtime.kind exec"));
  Json silent = example();
  silent["runtime"] = {{"protocol", "none"}};
  CHECK(contains(why(silent, silent), "runtime.protocol none"));
  CHECK(contains(why(example(), silent), "runtime.protocol none"));
}

TEST_CASE("a field of the spec that nobody compares by name is not overlooked") {
  const Manifest manifest = manifest_of(example());
  const auto compiled = compile(manifest, builtin_policy(false), {"aaaa", ""});
  REQUIRE(compiled);
  Compiled changed = *compiled;
  changed.spec.set_hostname("another");
  CHECK(contains(needs_new_process(manifest, *compiled, manifest, changed), "its sandbox"));
}

}  // namespace kai
