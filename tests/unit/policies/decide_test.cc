// manifest ∩ policy: what is granted, trimmed and refused, with reason and rule.
#include <doctest/doctest.h>

#include "policies/compile.h"
#include "policies/layout.h"
#include "policies/policy_check.h"
#include "tests/unit/policies/manifests.h"
#include "tests/unit/policies/policy_fixture.h"

namespace kai {
namespace {

using testing::example;
using testing::Json;
using testing::policies;
using testing::policy;
using Kind = Verdict::Kind;
using Words = std::vector<std::string>;

Manifest manifest_of(const Json& document) {
  ManifestResult result = parse_manifest(document.dump());
  REQUIRE_MESSAGE(result.manifest, testing::errors(document.dump()));
  return *result.manifest;
}

Compiled compiled(const Json& document, const Policy& rules, bool ephemeral = false) {
  Package package{"package", ""};
  package.ephemeral = ephemeral;
  auto result = compile(manifest_of(document), rules, package);
  REQUIRE_MESSAGE(result, result.error().message());
  return std::move(*result);
}

/// The verdict on `pointer`, wherever it is.
Verdict verdict(const Compiled& result, const std::string& pointer) {
  for (const auto* list : {&result.granted, &result.trimmed}) {
    for (const Verdict& each : *list) {
      if (each.pointer == pointer) return each;
    }
  }
  FAIL("no verdict on " << pointer);
  return {};
}

const spec::Mount* mount_at(const spec::SandboxSpec& spec, const std::string& target) {
  for (const auto& mount : spec.mounts()) {
    if (mount.target() == target) return &mount;
  }
  return nullptr;
}

Json with_paths(const Json& paths, bool read_only = false) {
  Json document = example();
  document["security"]["fileAccess"] = {{"allowedPaths", paths}, {"readOnly", read_only}, {"tempFileAccess", true}};
  return document;
}

Json with_network(const Json& domains) {
  Json document = example();
  document["security"]["networkAccess"] = {{"allowOutbound", true}, {"allowedDomains", domains}};
  return document;
}

constexpr const char* kCache = "/security/fileAccess/allowedPaths/0";

}  // namespace

TEST_CASE("paths: private data with one limit for all; memory in a run") {
  const Policy rules = policy("  limits: {disk: 100, inodes: 1000}\n");
  const Json document = with_paths({"/data", "/srv/x", "/data/sub"});
  const Compiled kept = compiled(document, rules);
  for (const char* path : {"/data", "/srv/x"}) {
    CHECK(mount_at(kept.spec, path)->kind() == spec::Mount::PRIVATE);
    CHECK(mount_at(kept.spec, path)->source() == private_directory_name(path));
    CHECK(!mount_at(kept.spec, path)->read_only());
  }
  CHECK(mount_at(kept.spec, "/data/sub") == nullptr);
  CHECK(kept.spec.disk().size_bytes() == 100ULL << 20);
  CHECK(kept.spec.disk().inodes() == 1000);
  CHECK(!kept.spec.ephemeral());
  CHECK(verdict(kept, kCache).kind == Kind::kGranted);
  CHECK(verdict(kept, kCache).rule == "10-test.yaml:3");
  CHECK(verdict(kept, "/security/fileAccess/allowedPaths/2").reason == "inside /data, and part of it");

  const Compiled run = compiled(document, rules, true);
  CHECK(run.spec.ephemeral());
  CHECK(!run.spec.has_disk());
  for (const char* path : {"/data", "/srv/x"}) {
    CHECK(mount_at(run.spec, path)->kind() == spec::Mount::TMPFS);
    CHECK(mount_at(run.spec, path)->size_bytes() == 50ULL << 20);
    CHECK(mount_at(run.spec, path)->inodes() == 500);
  }
  CHECK(verdict(run, kCache).kind == Kind::kTrimmed);
}

TEST_CASE("paths: what the operator maps to the host") {
  const Json asked = with_paths({"/tmp/calendar-cache"});
  const Json reads = with_paths({"/tmp/calendar-cache"}, true);
  const std::string files = "  files: {/tmp/calendar-cache: {host: /srv/cal, write: ";

  const Compiled read_only = compiled(asked, policy(files + "false}}\n"));
  const spec::Mount* mount = mount_at(read_only.spec, "/tmp/calendar-cache");
  CHECK(mount->kind() == spec::Mount::HOST);
  CHECK(mount->source() == "/srv/cal");
  CHECK(mount->read_only());
  CHECK(!read_only.spec.has_disk());
  CHECK(verdict(read_only, kCache).kind == Kind::kTrimmed);
  CHECK(verdict(read_only, kCache).reason ==
        "the host's /srv/cal, read-only: policy test (10-test.yaml:3) does not say write: true");
  CHECK(verdict(read_only, kCache).rule == "10-test.yaml:3");
  CHECK(verdict(compiled(reads, policy(files + "false}}\n")), kCache).kind == Kind::kGranted);

  const Compiled no_grant = compiled(asked, policy(files + "true}}\n"));
  CHECK(mount_at(no_grant.spec, "/tmp/calendar-cache")->read_only());
  CHECK(verdict(no_grant, kCache).kind == Kind::kTrimmed);
  CHECK(no_grant.grants.empty());

  const Policy writes = policy(files + "true}}\n  grants: [hostWrite]\n");
  const Compiled writable = compiled(asked, writes);
  CHECK(!mount_at(writable.spec, "/tmp/calendar-cache")->read_only());
  CHECK(verdict(writable, kCache).kind == Kind::kGranted);
  CHECK(writable.grants == Words{"hostWrite"});
  CHECK(mount_at(compiled(reads, writes).spec, "/tmp/calendar-cache")->read_only());
  CHECK(compiled(reads, writes).grants.empty());
  // Nobody asked for it.
  CHECK(mount_at(compiled(with_paths(Json::array()), writes).spec, "/tmp/calendar-cache") == nullptr);
}

TEST_CASE("paths: /tmp mapped, a mapped path inside another, no disk, no tmp") {
  const Policy tmp = policy("  files: {/tmp: {host: /srv/t}}\n");
  const Compiled mapped = compiled(with_paths({"/tmp", "/tmp/x"}), tmp);
  CHECK(mount_at(mapped.spec, "/tmp")->kind() == spec::Mount::HOST);
  CHECK(mount_at(mapped.spec, "/tmp/x") == nullptr);

  const Compiled hidden = compiled(with_paths({"/data", "/data/x"}), policy("  files: {/data/x: {host: /srv/t}}\n"));
  CHECK(mount_at(hidden.spec, "/data/x") == nullptr);
  CHECK(verdict(hidden, "/security/fileAccess/allowedPaths/1").kind == Kind::kTrimmed);

  const Compiled none = compiled(with_paths({"/data"}), policy("  limits: {disk: 0, tmp: 0}\n"));
  CHECK(mount_at(none.spec, "/data") == nullptr);
  CHECK(!none.spec.has_disk());
  CHECK(verdict(none, kCache).reason == "limits.disk of policy test (10-test.yaml:3) is 0: the path is not there");
  CHECK(mount_at(none.spec, "/tmp")->size_bytes() == kBareTmpBytes);
  CHECK(verdict(none, "/security/fileAccess/tempFileAccess").kind == Kind::kTrimmed);

  Manifest odd = manifest_of(example());
  odd.security.files.allowed_paths = {"/etc/x"};  // which no manifest that was parsed can have
  const auto reserved = compile(odd, builtin_policy(false), {"p", ""});
  REQUIRE(reserved);
  CHECK(mount_at(reserved->spec, "/etc/x") == nullptr);
  CHECK(verdict(*reserved, kCache).kind == Kind::kTrimmed);
}

TEST_CASE("network: each entry against the policy, blocked wins") {
  const Policy rules = policy(
      "  network:\n    allowedDomains:\n    - calendar.google.com\n    - \"*.office.com\"\n    - db.example.com:5432\n"
      "    blockedDomains:\n    - evil.office.com\n");
  const Compiled result =
      compiled(with_network({"calendar.google.com", "Outlook.Office.com", "evil.office.com", "evilcalendar.google.com",
                             "*.office.com", "db.example.com", "db.example.com:5432", "db.example.com:80",
                             "calendar.google.com:8080", "*.google.com", "office.com"}),
               rules);
  struct Expected {
    Kind kind;
    const char* rule;
    const char* reason;
  };
  const Expected expected[] = {
      {Kind::kGranted, "10-test.yaml:5", "allowed by calendar.google.com; egress is not in this version"},
      {Kind::kGranted, "10-test.yaml:6", "allowed by *.office.com; egress"},
      {Kind::kTrimmed, "10-test.yaml:9", "blockedDomains of policy test has evil.office.com, and blocked wins"},
      {Kind::kTrimmed, "10-test.yaml:4", "policy test does not list it"},
      {Kind::kGranted, "10-test.yaml:6", "allowed by *.office.com, but for evil.office.com; egress"},
      {Kind::kTrimmed, "10-test.yaml:7", "policy test allows of it only db.example.com:5432"},
      {Kind::kGranted, "10-test.yaml:7", "allowed by db.example.com:5432"},
      {Kind::kTrimmed, "10-test.yaml:7", "policy test allows db.example.com:5432 and no other port"},
      {Kind::kTrimmed, "10-test.yaml:2", "policy test allows calendar.google.com, but not this port"},
      {Kind::kTrimmed, "10-test.yaml:5", "policy test allows of it only calendar.google.com"},
      {Kind::kTrimmed, "10-test.yaml:4", "policy test does not list it"},
  };
  for (std::size_t at = 0; at < std::size(expected); ++at) {
    const Verdict found = verdict(result, "/security/networkAccess/allowedDomains/" + std::to_string(at));
    CAPTURE(found.asked);
    CAPTURE(found.reason);
    CHECK(found.kind == expected[at].kind);
    CHECK(found.rule == expected[at].rule);
    CHECK(found.reason.starts_with(expected[at].reason));
  }
  // Today's warning stays until there is egress.
  CHECK(verdict(result, "/security/networkAccess/allowOutbound").kind == Kind::kTrimmed);
  CHECK(verdict(result, "/security/networkAccess/allowOutbound").reason ==
        "no network yet: egress is not in this version, the agent has only its own loopback");
  CHECK(!result.spec.host_network());
  const Compiled anything = compiled(with_network({"a.com"}), policy("  network: {allowedDomains: [\"*\"]}\n"));
  CHECK(verdict(anything, "/security/networkAccess/allowedDomains/0").kind == Kind::kGranted);
}

TEST_CASE("network: connections, and the grant hostNetwork") {
  Json document = with_network({"a.com"});
  document["security"]["networkAccess"]["maxConnections"] = 65;
  const std::string pointer = "/security/networkAccess/maxConnections";
  CHECK(verdict(compiled(document, policy("  cpuLimit: 5\n")), pointer).kind == Kind::kTrimmed);
  CHECK(verdict(compiled(document, policy("  networkLimit: {maxConnections: 65}\n")), pointer).kind == Kind::kGranted);

  const Policy rules = policy("  grants: [hostNetwork]\n  network: {ports: [443, 5432], hosts: {db: 10.0.0.1}}\n");
  const Compiled opened = compiled(document, rules);
  CHECK(opened.spec.host_network());
  CHECK(opened.spec.tcp_ports_size() == 2);
  CHECK(opened.spec.tcp_ports(1) == 5432);
  CHECK(opened.grants == Words{"hostNetwork"});
  CHECK(mount_at(opened.spec, "/etc/hosts")->content().find("10.0.0.1 db\n") != std::string::npos);
  CHECK(verdict(opened, "/security/networkAccess/allowOutbound").kind == Kind::kGranted);
  CHECK(verdict(opened, "/security/networkAccess/allowOutbound").rule == "10-test.yaml:3");
  document["security"]["networkAccess"] = {{"allowOutbound", false}};
  const Compiled closed = compiled(document, rules);
  CHECK(!closed.spec.host_network());
  CHECK(closed.grants.empty());
}

TEST_CASE("memory: the store's quota") {
  Json document = example();  // maxSize 50
  CHECK(verdict(compiled(document, policy("  limits: {memoryStore: 50}\n")), "/memory/maxSize").kind == Kind::kGranted);
  const Verdict trimmed = verdict(compiled(document, policy("  limits: {memoryStore: 49}\n")), "/memory/maxSize");
  CHECK(trimmed.kind == Kind::kTrimmed);
  CHECK(trimmed.asked == "50 MB");
  CHECK(trimmed.rule == "10-test.yaml:3");
}

TEST_CASE("permissions name the rule that gives them") {
  Json document = example();
  document["security"]["permissions"] = {{{"resource", "agent"}, {"actions", {"execute"}}, {"scope", "echo"}},
                                         {{"resource", "topic"}, {"actions", {"read", "write"}}, {"scope", "news"}}};
  const Compiled result =
      compiled(document, policy("  permissions:\n  - {resource: agent, scope: \"*\", actions: [execute]}\n"
                                "  - {resource: topic, scope: news, actions: [read]}\n"));
  CHECK(verdict(result, "/security/permissions/0").kind == Kind::kGranted);
  CHECK(verdict(result, "/security/permissions/0").rule == "10-test.yaml:4");
  CHECK(verdict(result, "/security/permissions/1").kind == Kind::kTrimmed);
  CHECK(verdict(result, "/security/permissions/1").rule == "10-test.yaml:3");
  CHECK(verdict(result, "/security/permissions/1").reason.find("grants write (read is granted)") != std::string::npos);
}

TEST_CASE("sandbox: false needs the policy's word and the grant") {
  Json document = example();
  document["security"]["sandbox"] = false;
  const auto refusal = [&](const std::string& keys) {
    const auto result = compile(manifest_of(document), policy(keys), {"p", ""});
    return result ? std::string() : result.error().message();
  };
  CHECK(refusal("  cpuLimit: 5\n").find("say sandbox: false and unsandboxed under grants") != std::string::npos);
  CHECK(refusal("  sandbox: false\n").find("say unsandboxed under grants") != std::string::npos);
  CHECK(refusal("  cpuLimit: 5\n  sandbox: true\n  grants: [unsandboxed]\n").find("(10-test.yaml:4) does not allow") !=
        std::string::npos);
  const Compiled open = compiled(document, policy("  sandbox: false\n  grants: [unsandboxed]\n"));
  CHECK(open.spec.unsandboxed());
  CHECK(open.spec.host_network());
  CHECK(open.spec.seccomp().empty());
  CHECK(open.grants == Words{"unsandboxed"});
  CHECK(verdict(open, "/security/sandbox").kind == Kind::kGranted);
  CHECK(verdict(open, "/security/sandbox").rule == "10-test.yaml:3");
  // Nothing of its own is made, nor promised.
  CHECK(mount_at(open.spec, "/tmp") == nullptr);
  CHECK(mount_at(open.spec, "/tmp/calendar-cache") == nullptr);
  CHECK(mount_at(open.spec, "/agent")->kind() == spec::Mount::PACKAGE);
  CHECK(!open.spec.has_disk());
  CHECK(verdict(open, kCache).reason.starts_with("unsandboxed: the host's own path"));
  CHECK(verdict(open, "/security/networkAccess/allowOutbound").kind == Kind::kGranted);
  // Leave is not enough: the manifest has to ask.
  CHECK(!compiled(example(), policy("  sandbox: false\n  grants: [unsandboxed]\n")).spec.unsandboxed());
}

TEST_CASE("system calls beyond the profile change the filter, of runs too") {
  const Policy rules = policy("  grants: [\"syscalls:ptrace\"]\n");
  const Compiled more = compiled(example(), rules);
  CHECK(more.grants == Words{"syscalls:ptrace"});
  CHECK(more.spec.seccomp() != compiled(example(), builtin_policy(false)).spec.seccomp());
  CHECK(!more.spec.seccomp_silent().empty());
  const spec::SandboxSpec run = compile_run("r", rules, {"/bin/true"}, {});
  CHECK(run.seccomp() != compile_run("r", builtin_policy(false), {"/bin/true"}, {}).seccomp());
  CHECK(used_grants(run, rules) == Words{"syscalls:ptrace"});
}

TEST_CASE("policy check: result, policy, errors, items in the manifest's order") {
  const PolicySet set = policies(
      "policies:\n- name: calendar\n  agentId: \"calendar*\"\n  files:\n    /tmp/calendar-cache: {host: /srv/cal}\n");
  const PolicyCheck check = check_policy(testing::kExample, set);
  CHECK(check.valid);
  CHECK(check.result == "trimmed");
  CHECK(check.policy == "calendar");
  Words pointers;
  for (const Verdict& item : check.items) pointers.push_back(item.pointer);
  CHECK(pointers == Words{"/memory", "/memory/maxSize", "/security/permissions/0",
                          "/security/networkAccess/allowOutbound", "/security/networkAccess/allowedDomains/0",
                          "/security/networkAccess/allowedDomains/1", kCache, "/security/fileAccess/tempFileAccess"});
  const Json json = Json::parse(policy_check_json(check));
  CHECK(json["items"][6] ==
        Json{{"pointer", kCache},
             {"asked", "/tmp/calendar-cache"},
             {"verdict", "trimmed"},
             {"reason", "the host's /srv/cal, read-only: policy calendar (10-test.yaml:5) does not say write: true"},
             {"rule", "10-test.yaml:5"}});

  const PolicyCheck refused = check_policy(testing::with("/security/sandbox", false), set);
  CHECK(refused.valid);
  CHECK(refused.result == "refused");
  CHECK(refused.items[2].kind == Kind::kRefused);
  CHECK(refused.items[2].rule == "10-test.yaml:2");

  const PolicyCheck invalid = check_policy(testing::with("/memory/ttl", -1), set);
  CHECK(policy_check_json(invalid).starts_with(
      R"({"valid":false,"result":"invalid","errors":[{"pointer":"/memory/ttl",)"));
  CHECK(check_policy("{", set).result == "invalid");
}

TEST_CASE("explain --connect: the first thing that stands in the way, or the rules that let it pass") {
  const Policy rules = policy(
      "  network:\n    allowedDomains: [calendar.google.com, \"*.office.com\", db.office.com:5432]\n"
      "    blockedDomains: [evil.office.com]\n    allowedCidrs: [10.1.0.0/16]\n    ports: [443]\n");
  const Manifest manifest = manifest_of(with_network({"calendar.google.com", "*.office.com"}));
  struct Case {
    const char* name;
    std::uint16_t port;
    Kind kind;
    const char* rule;
  };
  const Case cases[] = {
      {"calendar.google.com", 443, Kind::kGranted, "10-test.yaml:4"},
      {"Calendar.Google.com.", 443, Kind::kGranted, "10-test.yaml:4"},
      {"calendar.google.com", 80, Kind::kRefused, "10-test.yaml:7"},
      {"evilcalendar.google.com", 443, Kind::kRefused, "10-test.yaml:4"},
      {"evil.office.com", 443, Kind::kRefused, "10-test.yaml:5"},
      {"db.office.com", 5432, Kind::kGranted, "10-test.yaml:4"},
      {"office.com", 443, Kind::kRefused, "10-test.yaml:4"},
      {"10.1.2.3", 443, Kind::kGranted, "10-test.yaml:6"},
      {"::ffff:10.1.2.3", 443, Kind::kGranted, "10-test.yaml:6"},
      {"10.1.2.3", 80, Kind::kRefused, "10-test.yaml:7"},
      {"169.254.169.254", 443, Kind::kRefused, "10-test.yaml:6"},
      {"0x0a010203", 443, Kind::kRefused, "10-test.yaml:4"},
  };
  for (const Case& each : cases) {
    const Verdict found = connect_verdict(manifest, rules, each.name, each.port);
    CAPTURE(found.asked);
    CAPTURE(found.reason);
    CHECK(found.kind == each.kind);
    CHECK(found.rule == each.rule);
    CHECK(!found.reason.empty());
  }
  Manifest silent = manifest;
  silent.security.network.allow_outbound = false;
  CHECK(connect_verdict(silent, rules, "calendar.google.com", 443).kind == Kind::kRefused);
  Manifest blocks = manifest;
  blocks.security.network.blocked_domains = {"calendar.google.com"};
  CHECK(connect_verdict(blocks, rules, "calendar.google.com", 443).reason == "the manifest blocks it itself");
  CHECK(connect_verdict(manifest, builtin_policy(false), "calendar.google.com", 443).kind == Kind::kRefused);
  const Policy host = policy("  grants: [hostNetwork]\n");
  CHECK(connect_verdict(manifest, host, "anything.example", 443).kind == Kind::kGranted);
  CHECK(connect_verdict(manifest, host, "anything.example", 22).kind == Kind::kRefused);
}

}  // namespace kai
