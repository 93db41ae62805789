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
      {Kind::kGranted, "10-test.yaml:5", "allowed by calendar.google.com"},
      {Kind::kGranted, "10-test.yaml:6", "allowed by *.office.com"},
      {Kind::kTrimmed, "10-test.yaml:9", "blockedDomains has evil.office.com, and blocked wins"},
      {Kind::kTrimmed, "10-test.yaml:4", "policy test does not list it"},
      {Kind::kGranted, "10-test.yaml:6", "allowed by *.office.com, but for evil.office.com"},
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
  CHECK(verdict(result, "/security/networkAccess/allowOutbound").kind == Kind::kGranted);
  CHECK(verdict(result, "/security/networkAccess/allowOutbound").reason ==
        "TCP by name through egress, at most 64 connections at once and 10240 KB/s each way; UDP only for DNS");
  CHECK(!result.spec.host_network());
  const Compiled anything = compiled(with_network({"a.com"}), policy("  network: {allowedDomains: [\"*\"]}\n"));
  CHECK(verdict(anything, "/security/networkAccess/allowedDomains/0").kind == Kind::kGranted);
}

TEST_CASE("network: addresses that the manifest lists, and what kaid.yaml and the manifest block") {
  Policy rules =
      policy("  network:\n    allowedDomains: [\"*\"]\n    allowedCidrs: [10.1.0.0/16, fd00::/8]\n    ports: [443]\n");
  rules.global_blocks = {{"*.bad.example", "kaid.yaml:3"}, {"worse.example:80", "kaid.yaml:4"}};
  Json document = with_network({"10.1.2.3", "10.1.0.0/16", "10.0.0.0/8", "10.1.2.3:80", "[fd00::1]:443", "11.0.0.1",
                                "127.0.0.1", "10.1.9.9", "x.bad.example", "worse.example", "own.example",
                                "B\xC3\xBC"
                                "cher.de",
                                "a.com:53"});
  document["security"]["networkAccess"]["blockedDomains"] = {"own.example", "10.1.9.0/24"};
  const Compiled result = compiled(document, rules);
  struct Expected {
    Kind kind;
    const char* rule;
    const char* reason;
  };
  const Expected expected[] = {
      {Kind::kGranted, "10-test.yaml:5", "allowed by 10.1.0.0/16 of allowedCidrs"},
      {Kind::kGranted, "10-test.yaml:5", "allowed by 10.1.0.0/16 of allowedCidrs"},
      {Kind::kTrimmed, "10-test.yaml:5", "policy test allows of it only 10.1.0.0/16"},
      {Kind::kTrimmed, "10-test.yaml:6", "policy test has it in allowedCidrs, but not this port"},
      {Kind::kGranted, "10-test.yaml:5", "allowed by fd00::/8 of allowedCidrs"},
      {Kind::kTrimmed, "10-test.yaml:5",
       "policy test does not list it: the operator can add it to network.allowedCidrs"},
      {Kind::kTrimmed, "builtin", "this is the sandbox's own loopback"},
      {Kind::kTrimmed, "/security/networkAccess/blockedDomains/1", "the manifest blocks it itself"},
      {Kind::kTrimmed, "kaid.yaml:3", "blockedDomains has *.bad.example, and blocked wins"},
      {Kind::kGranted, "10-test.yaml:4", "allowed by *, but for worse.example:80"},
      {Kind::kTrimmed, "/security/networkAccess/blockedDomains/0", "the manifest blocks it itself"},
      {Kind::kGranted, "10-test.yaml:4", "allowed by *"},
      {Kind::kTrimmed, "builtin", "port 53 is the DNS of the sandbox's own"},
  };
  for (std::size_t at = 0; at < std::size(expected); ++at) {
    const Verdict found = verdict(result, "/security/networkAccess/allowedDomains/" + std::to_string(at));
    CAPTURE(found.asked);
    CAPTURE(found.reason);
    CHECK(found.kind == expected[at].kind);
    CHECK(found.rule == expected[at].rule);
    CHECK(found.reason.starts_with(expected[at].reason));
  }
  CHECK(verdict(result, "/security/networkAccess/allowedDomains/11").asked == "xn--bcher-kva.de");
  CHECK(mount_at(result.spec, "/etc/hosts")->content().find("10.") == std::string::npos);

  const auto outbound = [&](const Words& asked, const std::string& keys) {
    return verdict(compiled(with_network(asked), policy(keys)), "/security/networkAccess/allowOutbound");
  };
  const Verdict no_list = outbound({}, "  network: {allowedDomains: [\"*\"]}\n");
  CHECK(no_list.reason == "the manifest lists no allowedDomains: no list, no network");
  CHECK(no_list.rule == "/security/networkAccess/allowedDomains");
  CHECK(outbound({"a.com"}, "  network: {allowedDomains: [b.com]}\n").reason ==
        "nothing of it is left: each entry says why");
  CHECK(outbound({"a.com"}, "  network: {allowedDomains: [a.com]}\n  networkLimit: {allowedProtocols: []}\n").kind ==
        Kind::kTrimmed);
  CHECK(outbound({"a.com"}, "  network: {allowedDomains: [a.com]}\n").kind == Kind::kGranted);
  std::string blocked;
  for (const char c : std::string("abcdefg")) blocked += std::string(blocked.empty() ? "" : ", ") + c + ".b.com";
  const Compiled many = compiled(with_network({"*.b.com"}),
                                 policy("  network: {allowedDomains: [\"*\"], blockedDomains: [" + blocked + "]}\n"));
  CHECK(verdict(many, "/security/networkAccess/allowedDomains/0").reason ==
        "allowed by *, but for a.b.com, b.b.com, c.b.com, d.b.com, e.b.com and 2 more");
  const Verdict off = verdict(compiled(with_network({"a.com"}), policy("  networkLimit: {maxConnections: 0}\n")),
                              "/security/networkAccess/allowedDomains/0");
  CHECK(off.reason.starts_with("networkLimit of policy test allows no connection"));
}

TEST_CASE("network: what policy.network.hosts has stands in no hosts file where there is egress") {
  const Compiled result =
      compiled(with_network({"db.example"}),
               policy("  network: {allowedDomains: [db.example], hosts: {db.example: 10.0.0.1}}\n"));
  CHECK(mount_at(result.spec, "/etc/hosts")->content().find("db.example") == std::string::npos);
  CHECK(mount_at(result.spec, "/etc/resolv.conf")->content() ==
        "nameserver 127.0.0.1\noptions timeout:10 attempts:1\n");
  CHECK(result.spec.network().hosts(0).name() == "db.example");
  CHECK(verdict(result, "/security/networkAccess/allowOutbound").kind == Kind::kGranted);
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
      {"evilcalendar.google.com", 443, Kind::kRefused, "/security/networkAccess/allowedDomains"},
      {"evil.office.com", 443, Kind::kRefused, "10-test.yaml:5"},
      {"db.office.com", 5432, Kind::kGranted, "10-test.yaml:4"},
      {"office.com", 443, Kind::kRefused, "/security/networkAccess/allowedDomains"},
      {"10.1.2.3", 443, Kind::kGranted, "10-test.yaml:6"},
      {"::ffff:10.1.2.3", 443, Kind::kGranted, "10-test.yaml:6"},
      {"10.1.2.3", 80, Kind::kRefused, "10-test.yaml:7"},
      {"169.254.169.254", 443, Kind::kRefused, "10-test.yaml:6"},
      {"0x0a010203", 443, Kind::kRefused, "builtin"},
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
  CHECK(connect_verdict(silent, rules, "calendar.google.com", 443).rule == "/security/networkAccess/allowOutbound");
  Manifest blocks = manifest;
  blocks.security.network.blocked_domains = {"calendar.google.com"};
  CHECK(connect_verdict(blocks, rules, "calendar.google.com", 443).reason == "the manifest blocks it itself");
  CHECK(connect_verdict(blocks, rules, "calendar.google.com", 443).pointer ==
        "/security/networkAccess/blockedDomains/0");
  CHECK(connect_verdict(blocks, rules, "calendar.google.com", 443).rule == "/security/networkAccess/blockedDomains/0");
  CHECK(connect_verdict(manifest, rules, "calendar.google.com", 443).reason ==
        "allowedDomains of policy test has calendar.google.com; checked: TLS for this very name, wherever public it "
        "leads, or where allowedCidrs has it");
  Policy no_cidrs = rules;
  no_cidrs.network.allowed_cidrs.clear();
  CHECK(connect_verdict(manifest, no_cidrs, "calendar.google.com", 443).reason.ends_with("wherever public it leads"));
  CHECK(connect_verdict(manifest, rules, "calendar.google.com", 443).pointer ==
        "/security/networkAccess/allowedDomains/0");
  Policy mapped = rules;
  mapped.network.hosts = {{"calendar.google.com", "10.1.9.9"}};
  CHECK(connect_verdict(manifest, mapped, "calendar.google.com", 443).reason.ends_with("at 10.1.9.9 by network.hosts"));
  mapped.network.hosts = {{"calendar.google.com", "127.0.0.1"}};
  CHECK(connect_verdict(manifest, mapped, "calendar.google.com", 443).reason.starts_with("127.0.0.1 is a loopback"));
  Policy blocking = rules;
  blocking.global_blocks = {{"*.google.com", "kaid.yaml:3"}};
  CHECK(connect_verdict(manifest, blocking, "calendar.google.com", 443).rule == "kaid.yaml:3");
  Policy unchecked = rules;
  unchecked.network_limit.allowed_protocols = {"tcp"};
  CHECK(connect_verdict(manifest, unchecked, "10.1.2.3", 443).reason.find("unchecked (tcp)") != std::string::npos);
  CHECK(connect_verdict(manifest, builtin_policy(false), "calendar.google.com", 443).kind == Kind::kRefused);
  const Policy host = policy("  grants: [hostNetwork]\n");
  CHECK(connect_verdict(manifest, host, "anything.example", 443).kind == Kind::kGranted);
  CHECK(connect_verdict(manifest, host, "anything.example", 22).kind == Kind::kRefused);
}

TEST_CASE("rule: the manifest's pointer wherever the manifest decides, in every answer") {
  const Policy rules = policy("  network: {allowedDomains: [\"*\"], allowedCidrs: [10.0.0.0/8]}\n");
  Json document = with_network({"a.com:443"});
  const std::string base = "/security/networkAccess/";
  CHECK(connect_verdict(manifest_of(document), rules, "a.com", 80).rule == base + "allowedDomains/0");
  document["security"]["networkAccess"]["maxConnections"] = 0;
  const Compiled none = compiled(document, rules);
  for (const char* key : {"allowOutbound", "allowedDomains/0", "maxConnections"}) {
    CAPTURE(std::string(key));
    CHECK(verdict(none, base + key).rule == base + "maxConnections");
  }
  CHECK(verdict(none, base + "allowOutbound").kind == Kind::kTrimmed);
  CHECK(connect_verdict(manifest_of(document), rules, "a.com", 443).rule == base + "maxConnections");
  CHECK(connect_verdict(manifest_of(document), rules, "10.0.0.1", 443).rule == base + "maxConnections");
  CHECK(connect_verdict(manifest_of(with_network(Words())), rules, "10.0.0.1", 443).rule == base + "allowedDomains");
}

TEST_CASE("addresses that the operator blocks, in policy check and in explain --connect") {
  Policy rules = policy(
      "  network:\n    allowedDomains: [\"*\"]\n    allowedCidrs: [10.0.0.0/8]\n    blockedDomains: [10.0.0.1]\n");
  rules.global_blocks = {{"10.9.0.0/16", "kaid.yaml:3"}};
  const Json document = with_network({"10.0.0.1", "10.0.0.0/24", "10.9.1.1", "a.com"});
  const Compiled result = compiled(document, rules);
  const std::string entry = "/security/networkAccess/allowedDomains/";
  CHECK(verdict(result, entry + "0").kind == Kind::kTrimmed);
  CHECK(verdict(result, entry + "0").reason == "blockedDomains has 10.0.0.1, and blocked wins over allowed");
  CHECK(verdict(result, entry + "0").rule == "10-test.yaml:6");
  CHECK(verdict(result, entry + "1").kind == Kind::kGranted);
  CHECK(verdict(result, entry + "1").reason == "allowed by 10.0.0.0/8 of allowedCidrs, but for 10.0.0.1");
  CHECK(verdict(result, entry + "2").rule == "kaid.yaml:3");
  CHECK(connect_verdict(manifest_of(document), rules, "10.0.0.2", 443).kind == Kind::kGranted);
  CHECK(connect_verdict(manifest_of(document), rules, "10.0.0.1", 443).rule == "10-test.yaml:6");
  rules.network.hosts = {{"a.com", "10.0.0.1"}};
  CHECK(connect_verdict(manifest_of(document), rules, "a.com", 443).kind == Kind::kRefused);
  CHECK(connect_verdict(manifest_of(document), rules, "a.com", 443).rule == "10-test.yaml:6");
}

TEST_CASE("explain --connect: a name in Unicode, and one that no list could have") {
  const Policy rules = policy("  network: {allowedDomains: [\"*\"]}\n");
  const Manifest manifest = manifest_of(with_network({"*.example"}));
  const Verdict found = connect_verdict(manifest, rules,
                                        "B\xC3\xBC"
                                        "cher.Example",
                                        443);
  CHECK(found.kind == Kind::kGranted);
  CHECK(found.asked == "xn--bcher-kva.example:443");
  // kai-egress takes it below *.example as it is.
  CHECK(connect_verdict(manifest, rules, "xn--a.example", 443).kind == Kind::kGranted);
}

}  // namespace kai
