#include "policies/policy_yaml.h"

#include <fstream>
#include <sstream>

#include <doctest/doctest.h>

#include "base/text.h"
#include "tests/unit/policies/policy_fixture.h"

namespace kai {
namespace {

using std::chrono::milliseconds;
using testing::fault;
using testing::policies;
using testing::policy;
using Words = std::vector<std::string>;

/// contracts.md's example, each value another one than the default.
constexpr const char* kEveryKey = R"(policies:
- name: calendar
  agentId: "calendar*"
  sandbox: false
  autoRestart: false
  maxCrashes: 6
  crashWindow: 11m
  backoff: {initial: 1s, base: 501ms, max: 1.5m, jitter: 0.25, resetAfter: 2h}
  memoryLimit: 513
  cpuLimit: 101
  networkLimit: {maxConnections: 65, bandwidthLimit: 10241, allowedProtocols: [tcp]}
  limits: {processes: 129, openFiles: 1025, disk: 257, tmp: 65, inodes: 16385,
           logLines: 201, memoryStore: 66, inFlight: 67}
  network:
    allowedDomains: [calendar.google.com, "*.Office.com", "api.example.com.:8443", "*"]
    blockedDomains: [evil.office.com]
    allowedCidrs: [10.1.0.0/16, "fd00::/8"]
    ports: [443]
    hosts: {Api.Example.com: 10.1.2.3}
  files: {"/tmp/calendar-cache": {host: /srv/cal, write: true}}
  permissions: [{resource: agent, scope: echo, actions: [execute]}, {resource: calendar, actions: [read, write]}]
  services: {db: "unix:/run/db.sock", cache: "tcp:cache.local:6379", six: "tcp:[::1]:1"}
  trustedKeys: [RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3]
  allowUnsigned: never
  grants: [unsandboxed, hostWrite, hostNetwork, hostMounts, "syscalls:ptrace", signerChange]
  degrade: [cgroup, landlock, seccompNotify, io, disk, groups]
  deadlines: {hello: 11s, start: 31s, message: 32s, stop: 12s}
  health: {interval: 6s, misses: 4}
  quarantine: {mode: kill, denials: 101, denialWindow: 2m,
               maxRetries: {low: 6, medium: 4, high: 2, critical: 1}}
  upgrade: {probation: 31s, maxSoftSwaps: 21}
  audit: {messages: false}
  memoryEncryption: true
)";

struct Bad {
  const char* text;
  const char* where_and_what;  ///< the beginning of the message
};

}  // namespace

TEST_CASE("every key of contracts.md") {
  const PolicySet set = policies(kEveryKey);
  REQUIRE(set.policies.size() == 2);
  CHECK(set.policies.back().name == "builtin");
  const Policy& policy = set.policies.front();
  CHECK(policy.name == "calendar");
  CHECK(policy.agent_id == "calendar*");
  CHECK(!policy.sandbox);
  CHECK(!policy.auto_restart);
  CHECK(policy.max_crashes == 6);
  CHECK(policy.crash_window == milliseconds(660'000));
  CHECK(policy.backoff.initial == milliseconds(1000));
  CHECK(policy.backoff.base == milliseconds(501));
  CHECK(policy.backoff.max == milliseconds(90'000));
  CHECK(policy.backoff.jitter == 0.25);
  CHECK(policy.backoff.reset_after == milliseconds(7'200'000));
  CHECK(policy.memory_limit_mb == 513);
  CHECK(policy.cpu_limit_percent == 101);
  CHECK(policy.network_limit.max_connections == 65);
  CHECK(policy.network_limit.bandwidth_kb == 10241);
  CHECK(policy.network_limit.allowed_protocols == Words{"tcp"});
  CHECK(policy.limits.processes == 129);
  CHECK(policy.limits.open_files == 1025);
  CHECK(policy.limits.disk_mb == 257);
  CHECK(policy.limits.tmp_mb == 65);
  CHECK(policy.limits.inodes == 16385);
  CHECK(policy.limits.log_lines == 201);
  CHECK(policy.limits.memory_store_mb == 66);
  CHECK(policy.limits.in_flight == 67);
  CHECK(policy.network.allowed_domains == Words{"calendar.google.com", "*.office.com", "api.example.com:8443", "*"});
  CHECK(policy.network.blocked_domains == Words{"evil.office.com"});
  CHECK(policy.network.allowed_cidrs == Words{"10.1.0.0/16", "fd00::/8"});
  CHECK(policy.network.ports == std::vector<std::uint16_t>{443});
  CHECK(policy.network.hosts.at("api.example.com") == "10.1.2.3");
  CHECK(policy.files.at("/tmp/calendar-cache").host == "/srv/cal");
  CHECK(policy.files.at("/tmp/calendar-cache").write);
  CHECK(policy.permissions ==
        std::vector<Permission>{{"agent", {"execute"}, "echo"}, {"calendar", {"read", "write"}, ""}});
  CHECK(policy.services.at("cache") == "tcp:cache.local:6379");
  CHECK(policy.trusted_keys.size() == 1);
  CHECK(policy.allow_unsigned == Unsigned::kNever);
  CHECK(policy.grants ==
        Words{"unsandboxed", "hostWrite", "hostNetwork", "hostMounts", "syscalls:ptrace", "signerChange"});
  CHECK(policy.degrade.size() == 6);
  CHECK(policy.deadlines.hello == milliseconds(11'000));
  CHECK(policy.deadlines.start == milliseconds(31'000));
  CHECK(policy.deadlines.message == milliseconds(32'000));
  CHECK(policy.deadlines.stop == milliseconds(12'000));
  CHECK(policy.health.interval == milliseconds(6000));
  CHECK(policy.health.misses == 4);
  CHECK(policy.quarantine.kill);
  CHECK(policy.quarantine.denials == 101);
  CHECK(policy.quarantine.denial_window == milliseconds(120'000));
  CHECK(policy.quarantine.retries_low == 6);
  CHECK(policy.quarantine.retries_medium == 4);
  CHECK(policy.quarantine.retries_high == 2);
  CHECK(policy.quarantine.retries_critical == 1);
  CHECK(policy.upgrade.probation == milliseconds(31'000));
  CHECK(policy.upgrade.max_soft_swaps == 21);
  CHECK(!policy.audit_messages);
  CHECK(policy.memory_encryption);
  for (const std::string_view key : policy_keys()) {
    CAPTURE(std::string(key));
    CHECK(policy.places.contains(key));
  }
}

TEST_CASE("the place of every rule: key, entry of a list, name in a mapping, else the policy, else builtin") {
  const PolicySet set = policies(kEveryKey);
  const Policy& policy = set.policies.front();
  const std::pair<const char*, const char*> rules[] = {{"", "10-test.yaml:2"},
                                                       {"memoryLimit", "10-test.yaml:9"},
                                                       {"limits.disk", "10-test.yaml:12"},
                                                       {"limits.inFlight", "10-test.yaml:13"},
                                                       {"network.blockedDomains.0", "10-test.yaml:16"},
                                                       {"network.hosts.api.example.com", "10-test.yaml:19"},
                                                       {"files./tmp/calendar-cache", "10-test.yaml:20"},
                                                       {"grants.1", "10-test.yaml:25"},
                                                       {"quarantine.maxRetries.low", "10-test.yaml:30"}};
  for (const auto& [key, rule] : rules) CHECK(policy.rule(key) == rule);
  CHECK(testing::policy("  cpuLimit: 50\n").rule("memoryLimit") == "10-test.yaml:2");
  CHECK(set.policies.back().rule("memoryLimit") == "builtin");
}

TEST_CASE("what is left out has the built-in default; an ordinary user's degrade too") {
  const PolicySet root = policies("policies:\n- agentId: a\n");
  const Policy standard = builtin_policy(false);
  CHECK(root.policies.front().memory_limit_mb == standard.memory_limit_mb);
  CHECK(root.policies.front().name == "10-test.yaml:2");
  CHECK(root.policies.front().degrade.empty());
  CHECK(policies("policies:\n- agentId: a\n", true).policies.front().degrade == Words{"cgroup", "disk", "groups"});
  CHECK(policies("policies:\n- agentId: a\n  degrade: []\n", true).policies.front().degrade.empty());
  CHECK(policy("  backoff: {max: 100ms}\n").backoff.base == milliseconds(100));
}

TEST_CASE("files in their order, the first match wins; nothing is none") {
  const auto set = parse_policies({{"10-a.yaml", "policies:\n- {name: a, agentId: \"cal*\"}\n"},
                                   {"20-empty.yaml", ""},
                                   {"30-comment.yaml", "# nothing yet\n"},
                                   {"40-none.yaml", "policies:\n"},
                                   {"50-list.yaml", "policies: []\n"},
                                   {"60-b.yaml", "\xEF\xBB\xBFpolicies:\r\n- {name: b, agentId: \"c?l\"}\r\n"}},
                                  false);
  REQUIRE_MESSAGE(set, set.error().message());
  REQUIRE(set->policies.size() == 3);
  CHECK(set->for_agent("calendar").name == "a");
  CHECK(set->for_agent("col").name == "b");
  CHECK(set->for_agent("other").name == "builtin");
  CHECK(set->named("b")->rule("agentId") == "60-b.yaml:2");
  CHECK(set->named("c") == nullptr);
  CHECK(parse_policies({}, false)->policies.size() == 1);
}

TEST_CASE("durations: a number with its unit, or 0") {
  const std::pair<const char*, int> good[] = {{"1500ms", 1500}, {"1.5s", 1500},   {"2m", 120'000}, {"1h", 3'600'000},
                                              {"0", 0},         {"\"3s\"", 3000}, {"0s", 0},       {"0.1s", 100}};
  for (const auto& [text, value] : good) {
    CAPTURE(std::string(text));
    CHECK(policy("  backoff: {max: 2h, initial: " + std::string(text) + "}\n").backoff.initial == milliseconds(value));
  }
  for (const char* text : {"5", "5 s", "5S", "5sec", "-5s", "s", "1e3s", ".5s", "5.s", "1.5.5s", "0x5s", "1m30s", "[]",
                           "0.0001s", "true", "\"\"", "99999999999999999999999h", "25h"}) {
    CAPTURE(std::string(text));
    CHECK(fault("policies:\n- backoff:\n    initial: " + std::string(text) + "\n")
              .starts_with("10-test.yaml:3:14: backoff.initial must be"));
  }
}

TEST_CASE("numbers: plain, whole and within bounds") {
  for (const char* text : {"-1", "+1", "1.5", "0x10", "1e3", "010", "1_000", "\"512\"", "512MB", "4294967808",
                           "18446744073709551617", "0", "1048577", "~", "{}", "yes"}) {
    CAPTURE(std::string(text));
    CHECK(fault("policies:\n- memoryLimit: " + std::string(text) + "\n")
              .find(" memoryLimit must be a plain whole number of MB from 1 to 1048576, not ") != std::string::npos);
  }
  CHECK(fault("policies:\n- memoryLimit: 512MB\n") ==
        "10-test.yaml:2:16: memoryLimit must be a plain whole number of MB from 1 to 1048576, not \"512MB\"");
}

TEST_CASE("bad input: file, line and column, each exact") {
  const Bad table[] = {
      // the document
      {"- name: a\n", "10-test.yaml:1:1: the file must be a list of policies under the one key policies:"},
      {"policies: {}\n", "10-test.yaml:1:11: policies must be a list"},
      {"policies:\n  name: a\n", "10-test.yaml:1:1: policies must be a list"},
      {"polices: []\n", "10-test.yaml:1:1: unknown key \"polices\": did you mean \"policies\"?"},
      {"policies: []\nmore: 1\n", "10-test.yaml:2:1: unknown key \"more\""},
      {"policies: []\n---\npolicies: []\n", "10-test.yaml:1:1: the file has more than one YAML document"},
      {"policies: [\n", "10-test.yaml:2:1: is not YAML: "},
      {"policies:\n- name: a\n\tb: 1\n", "10-test.yaml:3:"},
      {"policies:\n- &a {name: b}\n", "10-test.yaml:2:3: anchors"},
      {"policies:\n- name: *a\n", "10-test.yaml:2:9: a pattern that begins with * needs quotes"},
      {"policies:\n- agentId: *\n", "10-test.yaml:2:12: a pattern that begins with * needs quotes"},
      {"policies:\n- agentId: *cal*\n", "10-test.yaml:2:12: a pattern that begins with * needs quotes"},
      {"policies:\n- network: {allowedDomains: [*.a.com]}\n",
       "10-test.yaml:2:30: a pattern that begins with * needs quotes"},
      {"policies:\n- name: !!str a\n", "10-test.yaml:2:9: tags"},
      {"policies:\n- name: a\n  <<: {cpuLimit: 5}\n", "10-test.yaml:3:3: merge keys"},
      {"policies:\n- ? [a]\n  : b\n", "10-test.yaml:2:5: a key must be text"},
      {"policies:\n- [a]\n", "10-test.yaml:2:3: a policy must be a mapping"},
      {"policies:\n- a\n", "10-test.yaml:2:3: a policy must be a mapping"},
      {"policies:\n- name: a\n  x: [[[[[[[[[1]]]]]]]]]\n", "10-test.yaml:3:11: is nested deeper than 8 levels"},
      // bytes
      {"policies:\n- name: \"\x01\"\n", "10-test.yaml:2:10: has a control character here: \"\\x01\""},
      {"policies:\n- name: \"a\\0b\"\n", "10-test.yaml:2:9: has a control character: \"a\\x00b\""},
      {"policies:\n- name: \"a\\nb\"\n", "10-test.yaml:2:9: has a control character: \"a\\nb\""},
      {"# caf\xC3\xA9 \xFF\n", "10-test.yaml:1:8: is not UTF-8 here"},
      {"policies:\n- files: {\"/\xC3\xA4\xC3\xB6\": {hots: /x}}\n",
       "10-test.yaml:2:19: unknown key \"hots\" in files./\xC3\xA4\xC3\xB6: did you mean \"host\"?"},
      // keys
      {"policies:\n- name: a\n  memoryLimits: 5\n",
       "10-test.yaml:3:3: unknown key \"memoryLimits\" in a policy: did you mean \"memoryLimit\"?"},
      {"policies:\n- name: a\n  limits:\n    dsk: 5\n",
       "10-test.yaml:4:5: unknown key \"dsk\" in limits: did you mean \"disk\"?"},
      {"policies:\n- name: a\n  limits: {processes: 5, color: 5}\n",
       "10-test.yaml:3:26: unknown key \"color\" in limits; known are processes, openFiles"},
      {"policies:\n- quarantine:\n    maxRetries:\n      Low: 1\n",
       "10-test.yaml:4:7: unknown key \"Low\" in quarantine.maxRetries: did you mean \"low\"?"},
      {"policies:\n- \"a\\e[2J\": 1\n", "10-test.yaml:2:3: has a control character"},
      {"policies:\n- name: a\n  cpuLimit: 5\n  cpuLimit: 6\n",
       "10-test.yaml:4:3: \"cpuLimit\" comes twice; the first is in line 3"},
      {"policies:\n- name: a\n- name: b\n- name: a\n",
       "10-test.yaml:4:9: there is a policy a already, at 10-test.yaml:2"},
      {"policies:\n- name: builtin\n", "10-test.yaml:2:9: name must not be builtin"},
      {"policies:\n- name: a b\n", "10-test.yaml:2:9: name must have 1 to 64 letters"},
      {"policies:\n- name: \"\"\n", "10-test.yaml:2:9: name must not be empty"},
      {"policies:\n- name:\n  cpuLimit: 5\n", "10-test.yaml:2:3: name must be text, not nothing"},
      {"policies:\n- name: {a: b}\n", "10-test.yaml:2:9: name must be text, not a mapping"},
      {"policies:\n- name:\n    a: b\n", "10-test.yaml:2:3: name must be text, not a mapping"},
      {"policies:\n- agentId: \"a[bc]\"\n", "10-test.yaml:2:12: agentId must be an agent's id with * and ?"},
      {"policies:\n- limits: 5\n", "10-test.yaml:2:11: limits must be a mapping"},
      {"policies:\n- limits:\n", "10-test.yaml:2:3: limits must be a mapping"},
      // values
      {"policies:\n- sandbox: no\n", "10-test.yaml:2:12: sandbox must be true or false, not \"no\""},
      {"policies:\n- sandbox: \"true\"\n", "10-test.yaml:2:12: sandbox must be true or false, not the text \"true\""},
      {"policies:\n- crashWindow: 0\n", "10-test.yaml:2:16: crashWindow must be from 1ms to 168h, not \"0\""},
      {"policies:\n- crashWindow: 10\n", "10-test.yaml:2:16: crashWindow must be a duration"},
      {"policies:\n- backoff: {jitter: 1.5}\n", "10-test.yaml:2:21: backoff.jitter must be a number from 0 to 1"},
      {"policies:\n- backoff: {jitter: -0.1}\n", "10-test.yaml:2:21: backoff.jitter must be a number from 0 to 1"},
      {"policies:\n- backoff: {jitter: 20%}\n", "10-test.yaml:2:21: backoff.jitter must be a number from 0 to 1"},
      {"policies:\n- backoff: {jitter: .nan}\n", "10-test.yaml:2:21: backoff.jitter must be a number from 0 to 1"},
      {"policies:\n- backoff: {base: 2s, max: 1s}\n",
       "10-test.yaml:2:19: backoff.base (2s) must not be more than backoff.max (1s)"},
      {"policies:\n- backoff: {initial: 2m}\n",
       "10-test.yaml:2:22: backoff.initial (2m) must not be more than backoff.max (1m)"},
      {"policies:\n- cpuLimit: 0\n", "10-test.yaml:2:13: cpuLimit must be a plain whole number of percent from 1"},
      {"policies:\n- limits: {processes: 1}\n", "10-test.yaml:2:23: limits.processes must be"},
      {"policies:\n- limits: {tmp: 16385}\n", "10-test.yaml:2:17: limits.tmp must be"},
      {"policies:\n- networkLimit: {allowedProtocols: [tls, udp]}\n",
       "10-test.yaml:2:42: networkLimit.allowedProtocols.1 must be one of tls, http, tcp, not \"udp\""},
      {"policies:\n- networkLimit: {allowedProtocols: [tls, tls]}\n",
       "10-test.yaml:2:42: networkLimit.allowedProtocols.1 is there twice: \"tls\""},
      {"policies:\n- networkLimit: {allowedProtocols: tls}\n",
       "10-test.yaml:2:36: networkLimit.allowedProtocols must be a list, not \"tls\""},
      {"policies:\n- allowUnsigned: alway\n", "10-test.yaml:2:18: allowUnsigned must be one of never, local"},
      {"policies:\n- quarantine: {mode: frezze}\n", "10-test.yaml:2:22: quarantine.mode must be one of freeze, kill"},
      {"policies:\n- quarantine: {mode: freze}\n",
       "10-test.yaml:2:22: quarantine.mode must be one of freeze, kill, not \"freze\": did you mean \"freeze\"?"},
      {"policies:\n- degrade: [network]\n", "10-test.yaml:2:13: degrade.0 must be one of cgroup, landlock"},
      {"policies:\n- health: {misses: 0}\n", "10-test.yaml:2:20: health.misses must be"},
      {"policies:\n- quarantine: {maxRetries: {low: -1}}\n", "10-test.yaml:2:34: quarantine.maxRetries.low must be"},
  };
  for (const Bad& bad : table) {
    CAPTURE(std::string(bad.text));
    const std::string message = fault(bad.text);
    CAPTURE(message);
    CHECK(message.starts_with(bad.where_and_what));
    CHECK(escape_for_terminal(message) == message);
  }
}

TEST_CASE("bad names, addresses, paths, permissions, keys and grants") {
  const auto value_fault = [](const std::string& key, const std::string& value) {
    return fault("policies:\n- " + key + ": " + value + "\n");
  };
  for (const char* each : {"[a*b.com]",
                           "[\"*.*.com\"]",
                           "[\"**\"]",
                           "[\"a.*\"]",
                           "[\"*com\"]",
                           "[1.2.3.4]",
                           "[0x7f.1]",
                           "[\"[::1]\"]",
                           "[a..b]",
                           "[-a.com]",
                           "[a b.com]",
                           "[\"a.com:0\"]",
                           "[\"a.com:65536\"]",
                           "[\"a.com:\"]",
                           "[\"*:443\"]",
                           "[\"m\xC3\xBC ller.de\"]",
                           "[\"\"]",
                           "[.]",
                           "[a.com, A.COM.]",
                           "[\"http://a.com\"]",
                           "[a.com..]"}) {
    CAPTURE(std::string(each));
    const std::string text = std::string("policies:\n- network:\n    allowedDomains: ") + each + "\n";
    const bool twice = std::string(each) == "[a.com, A.COM.]";
    CHECK(fault(text).starts_with(twice ? "" : "10-test.yaml:3:22: network.allowedDomains.0 "));
  }
  for (const char* each : {"10.0.0.1", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/08", "10.0.0/8", "fe80::1%eth0/64",
                           "::ffff:10.0.0.0/104", "a/8", "10.0.0.0/", "10.0.0.0/-1", "fd00::/129"}) {
    CAPTURE(std::string(each));
    CHECK(fault("policies:\n- network: {allowedCidrs: [\"" + std::string(each) + "\"]}\n")
              .starts_with("10-test.yaml:2:28: network.allowedCidrs.0 "));
  }
  for (const char* each : {"0", "65536", "-1", "http"}) {
    CHECK(fault("policies:\n- network: {ports: [" + std::string(each) + "]}\n")
              .starts_with("10-test.yaml:2:21: network.ports.0 "));
  }
  CHECK(fault("policies:\n- network: {ports: [53]}\n")
            .starts_with("10-test.yaml:2:21: network.ports.0 must not be port 53, which is the DNS"));
  CHECK(fault("policies:\n- network: {allowedDomains: [\"a.com:53\"]}\n")
            .starts_with("10-test.yaml:2:30: network.allowedDomains.0 must not be port 53"));
  CHECK(fault("policies:\n- network: {blockedDomains: [\"a.com:53\"]}\n").empty());
  const auto many = [](const char* before, int count, const char* after) {
    std::string text = "policies:\n- network: {ports: [" + std::string(before);
    for (int at = 1; at <= count; ++at) text += (at > 1 ? ", " : "") + std::to_string(1000 + at);
    return fault(text + "]" + after + "}\n");
  };
  CHECK(many("", 32, "").empty());
  CHECK(many("", 33, "").starts_with("10-test.yaml:2:"));
  CHECK(many("", 32, ", allowedDomains: [\"a.com:1001\"]").empty());
  CHECK(many("", 32, ", allowedDomains: [\"a.com:99\"]") ==
        "10-test.yaml:2:3: network names 33 ports, in ports and in allowedDomains: an agent can have 32");
  CHECK(fault("policies:\n- network: {ports: [80, 80]}\n")
            .starts_with("10-test.yaml:2:25: network.ports.1 is there twice"));
  CHECK(fault("policies:\n- network: {hosts: {a b: 1.2.3.4}}\n")
            .starts_with("10-test.yaml:2:21: \"a b\" must be a DNS name"));
  CHECK(fault("policies:\n- network: {hosts: {a: 1.2.3}}\n")
            .starts_with("10-test.yaml:2:24: network.hosts.a must be an IPv4"));
  for (const char* each : {"tmp", "/a/../b", "/a//b", "/a/", "/a/./b", "\"/a/..\""}) {
    CAPTURE(std::string(each));
    CHECK(value_fault("files", "{" + std::string(each) + ": {host: /srv}}").starts_with("10-test.yaml:2:11: "));
    CHECK(value_fault("files", "{/x: {host: " + std::string(each) + "}}")
              .starts_with("10-test.yaml:2:22: files./x.host must"));
  }
  for (const char* each : {"/", "/proc", "/proc/1", "/sys/fs", "/dev", "/dev/null"}) {
    CHECK(value_fault("files", "{/x: {host: " + std::string(each) + "}}")
              .starts_with("10-test.yaml:2:22: files./x.host must not be"));
  }
  CHECK(value_fault("files", "{/x: {write: true}}").starts_with("10-test.yaml:2:15: files./x needs host"));
  CHECK(value_fault("files", "{/x: /srv}").starts_with("10-test.yaml:2:15: files./x must be a mapping"));
  CHECK(
      value_fault("permissions", "[{actions: [read]}]").starts_with("10-test.yaml:2:17: permissions.0 needs resource"));
  CHECK(value_fault("permissions", "[{resource: a}]").starts_with("10-test.yaml:2:17: permissions.0 needs actions"));
  CHECK(value_fault("permissions", "[{resource: a, actions: [reed]}]").find("did you mean \"read\"") !=
        std::string::npos);
  for (const char* each : {"unix:run/x", "unix:/a/../b", "unix:", "tcp:host", "tcp::1", "tcp:h:0", "tcp:h:70000",
                           "http://x", "tcp:::1:5"}) {
    CAPTURE(std::string(each));
    CHECK(value_fault("services", "{db: \"" + std::string(each) + "\"}")
              .starts_with("10-test.yaml:2:18: services.db must be unix:/path"));
  }
  for (const char* each : {"RWQ", "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO", "untrusted comment: x",
                           "AAQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"}) {
    CHECK(value_fault("trustedKeys", "[\"" + std::string(each) + "\"]")
              .starts_with("10-test.yaml:2:17: trustedKeys.0 must be a minisign public key"));
  }
  for (const char* each : {"root", "syscalls", "syscalls:", "syscalls:nosuch", "syscalls:seccomp", "syscalls:prctl",
                           "hostwrite", "signerchange"}) {
    CAPTURE(std::string(each));
    CHECK(value_fault("grants", "[\"" + std::string(each) + "\"]").starts_with("10-test.yaml:2:12: grants.0 must "));
  }
}

TEST_CASE("bounds on the whole: bytes, files, policies") {
  CHECK(fault("# " + std::string(kMaxPolicyFileBytes, 'x')).starts_with("10-test.yaml:1:1: has 262146 bytes"));
  std::vector<PolicyFile> files(kMaxPolicyFiles + 1, {"a.yaml", ""});
  CHECK(!parse_policies(files, false));
  std::string many = "policies:\n";
  for (std::size_t at = 0; at <= kMaxPolicies; ++at) many += "- {}\n";
  CHECK(fault(many).starts_with("10-test.yaml:1026:3: is one policy more"));
  CHECK(!fault("policies:\n- x: " + std::string(5000, '[') + "\n").empty());
  CHECK(parse_policies({{"bad\x1B[2J.yaml", "x"}}, false).error().message().starts_with("bad\\e[2J.yaml:1:1: "));
}

TEST_CASE("warnings: what has no effect, or not the one that it looks like") {
  const auto warnings = [](const std::string& keys) {
    const Words all = policies("policies:\n- name: test\n" + keys).warnings;
    return all.empty() ? "" : all.front();
  };
  CHECK(warnings("  cpuLimit: 50\n") == "");
  CHECK(warnings("  sandbox: false\n") == "10-test.yaml:3: sandbox: false has no effect without the grant unsandboxed");
  CHECK(warnings("  grants: [unsandboxed]\n").starts_with("10-test.yaml:3: the grant unsandboxed has no effect"));
  CHECK(warnings("  sandbox: false\n  grants: [unsandboxed]\n") == "");
  CHECK(warnings("  files: {/x: {host: /srv, write: true}}\n").starts_with("10-test.yaml:3: /x stays read-only"));
  CHECK(warnings("  files: {/x: {host: /srv, write: true}}\n  grants: [hostWrite]\n") == "");
  CHECK(warnings("  grants: [hostWrite]\n").starts_with("10-test.yaml:3: nothing can use the grant hostWrite"));
  CHECK(warnings("  files: {/etc/x: {host: /srv}}\n").starts_with("10-test.yaml:3: no manifest can ask for /etc/x"));
  CHECK(warnings("  grants: [hostNetwork]\n").find("allowedDomains and blockedDomains do not hold it") !=
        std::string::npos);
  CHECK(warnings("  network:\n    allowedDomains: [a.b.com]\n    blockedDomains: [\"*.b.com\"]\n") ==
        "10-test.yaml:4: a.b.com is allowed and, by *.b.com, blocked: blocked wins");
  CHECK(warnings("  network:\n    allowedDomains: [\"*.b.com\"]\n    blockedDomains: [a.b.com]\n") == "");
  CHECK(warnings("  network: {allowedDomains: [a.com], ports: []}\n").find("on no port") != std::string::npos);
  CHECK(warnings("  network: {allowedDomains: [a.com]}\n  networkLimit: {maxConnections: 0}\n")
            .starts_with("10-test.yaml:4: "));
  CHECK(
      warnings("  network: {hosts: {a.com: 10.0.0.1}}\n") ==
      "10-test.yaml:3: a.com leads nowhere: 10.0.0.1 is a private address (RFC 1918), which network.allowedCidrs does "
      "not have; add it there");
  CHECK(warnings("  network: {hosts: {a.com: 10.0.0.1}, allowedCidrs: [10.0.0.0/8]}\n") == "");
  CHECK(
      warnings("  network: {hosts: {a.com: 10.0.0.1}, allowedCidrs: [10.0.0.0/8], blockedDomains: [10.0.0.0/24]}\n") ==
      "10-test.yaml:3: a.com leads nowhere: blockedDomains has 10.0.0.1, and blocked wins");
  CHECK(warnings("  network: {hosts: {a.com: 1.1.1.1, b.com: \"2606:4700::1\"}}\n") == "");
  CHECK(warnings("  network: {allowedCidrs: [0.0.0.0/0]}\n").find("has more in it than the Internet") !=
        std::string::npos);
  CHECK(warnings("  network: {allowedCidrs: [\"::/0\"]}\n").find("this machine (::1)") != std::string::npos);
  CHECK(warnings("  network: {allowedCidrs: [127.0.0.0/8, \"2000::/3\", 128.0.0.0/1, \"::1/128\"]}\n") == "");
  CHECK(warnings("  agentId: kaid\n").starts_with("10-test.yaml:3: no agent's id can match agentId kaid"));
  CHECK(warnings("  agentId: \".*\"\n").starts_with("10-test.yaml:3: no agent's id can match"));

  const Words covered = policies(
                            "policies:\n- {name: a, agentId: \"cal*\"}\n- {name: b, agentId: \"cal?x\"}\n"
                            "- {name: c, agentId: \"*\"}\n- {name: d, agentId: zed}\n")
                            .warnings;
  REQUIRE(covered.size() == 2);
  CHECK(covered[0] ==
        "10-test.yaml:3: never matches: policy a (10-test.yaml:2) has every id of cal?x already; move this "
        "one before it");
  CHECK(covered[1].starts_with("10-test.yaml:5: never matches: policy c"));
  CHECK(policies("policies:\n- {agentId: \"c?\"}\n- {agentId: \"c*\"}\n").warnings.empty());
}

TEST_CASE("what is blocked everywhere is blocked under every policy, the built-in one too") {
  PolicySet set = policies("policies:\n- name: a\n- name: b\n");
  set.block_everywhere({{"*.bad.example", "kaid.yaml:3"}});
  REQUIRE(set.policies.size() == 3);
  for (const Policy& each : set.policies) {
    REQUIRE(each.global_blocks.size() == 1);
    CHECK(each.global_blocks[0].rule == "kaid.yaml:3");
  }
}

TEST_CASE("docs/policy.md has every key") {
  std::ifstream file(KAI_SOURCE_DIR "/docs/policy.md");
  std::ostringstream text;
  text << file.rdbuf();
  for (const std::string_view key : policy_keys()) {
    CAPTURE(std::string(key));
    CHECK(text.str().find("`" + std::string(key) + "`") != std::string::npos);
  }
}

}  // namespace kai
