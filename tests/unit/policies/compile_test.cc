#include "policies/compile.h"

#include <sys/resource.h>

#include <map>
#include <set>
#include <string>

#include <doctest/doctest.h>

#include "policies/filters.h"
#include "policies/layout.h"
#include "tests/unit/policies/manifests.h"

namespace kai {
namespace {

using testing::example;
using testing::Json;

Manifest manifest_of(const Json& document) {
  ManifestResult result = parse_manifest(document.dump());
  REQUIRE_MESSAGE(result.manifest, testing::errors(document.dump()));
  return *result.manifest;
}

Manifest manifest_with(const char* entry, const Json& runtime = Json::object()) {
  Json document = example();
  document["entry"] = entry;
  document["runtime"] = runtime;
  return manifest_of(document);
}

Compiled compiled(const Manifest& manifest, const Package& package = {"calendarAgent-abc", ""}) {
  auto result = compile(manifest, builtin_policy(false), package);
  REQUIRE(result);
  return std::move(*result);
}

std::vector<std::string> argv(const spec::SandboxSpec& spec) {
  return {spec.argv().begin(), spec.argv().end()};
}
std::vector<std::string> env(const spec::SandboxSpec& spec) {
  return {spec.env().begin(), spec.env().end()};
}

const spec::Mount* mount_at(const spec::SandboxSpec& spec, const std::string& target) {
  for (const auto& mount : spec.mounts()) {
    if (mount.target() == target) return &mount;
  }
  return nullptr;
}

using Words = std::vector<std::string>;

}  // namespace

TEST_CASE("the built-in policy is contracts.md's") {
  const Policy root = builtin_policy(false);
  CHECK(root.name == "builtin");
  CHECK(root.sandbox);
  CHECK(root.max_crashes == 5);
  CHECK(root.memory_limit_mb == 512);
  CHECK(root.cpu_limit_percent == 100);
  CHECK(root.limits.processes == 128);
  CHECK(root.permissions.empty());
  CHECK(root.grants.empty());
  CHECK(root.degrade.empty());
  CHECK(builtin_policy(true).degrade == Words{"cgroup", "disk", "groups"});
}

TEST_CASE("the same input gives the same spec, byte for byte") {
  const Manifest manifest = manifest_of(example());
  CHECK(compiled(manifest).spec.SerializeAsString() == compiled(manifest).spec.SerializeAsString());
}

TEST_CASE("argv of each kind") {
  CHECK(argv(compiled(manifest_with("main.ts"), {"p", ".kai/main.mjs"}).spec) ==
        Words{"/usr/bin/node", "--max-old-space-size=384", "--enable-source-maps",
              "/node_modules/@kai/agent/runner.mjs", "/agent/.kai/main.mjs"});
  CHECK(argv(compiled(manifest_with("src/main.mjs", {{"args", {"-x", "y"}}})).spec) ==
        Words{"/usr/bin/node", "--max-old-space-size=384", "/node_modules/@kai/agent/runner.mjs", "/agent/src/main.mjs",
              "-x", "y"});
  CHECK(argv(compiled(manifest_with("main.js", {{"protocol", "none"}})).spec) ==
        Words{"/usr/bin/node", "--max-old-space-size=384", "/agent/main.js"});
  CHECK(argv(compiled(manifest_with("main.py")).spec) ==
        Words{"/usr/bin/python3", "-P", "-B", "-u", "-m", "kai.runner", "/agent/main.py"});
  CHECK(argv(compiled(manifest_with("main.py", {{"protocol", "none"}})).spec) ==
        Words{"/usr/bin/python3", "-B", "-u", "/agent/main.py"});
  CHECK(argv(compiled(manifest_with("agent.so")).spec) == Words{"/kai/kai-native-runner", "/agent/agent.so"});
  CHECK(argv(compiled(manifest_with("bin/run", {{"args", {"a"}}})).spec) == Words{"/agent/bin/run", "a"});
}

TEST_CASE("profile and runner protocol follow from runtime") {
  const std::pair<const char*, const char*> kinds[] = {
      {"a.js", "node"}, {"a.py", "python"}, {"a.so", "native"}, {"a", "exec"}};
  for (const auto& [entry, profile] : kinds) {
    const spec::SandboxSpec spec = compiled(manifest_with(entry)).spec;
    CHECK(spec.profile() == profile);
    CHECK(spec.seccomp() == compiled_filter(profile, {})->notifying);
    CHECK(spec.seccomp_silent() == compiled_filter(profile, {})->silent);
    CHECK(spec.runner_protocol() == (std::string(entry) != "a"));
  }
  CHECK(compiled(manifest_with("a", {{"protocol", "runner"}})).spec.runner_protocol());
}

TEST_CASE("the signature scheme is the manifest's") {
  const std::pair<Crypto, const char*> schemes[] = {
      {Crypto::kEd25519, "ed25519"}, {Crypto::kSecp256k1, "secp256k1"}, {Crypto::kNone, "none"}};
  for (const auto& [crypto, name] : schemes) {
    Manifest manifest = manifest_with("a.js");
    manifest.security.crypto = crypto;
    CHECK(compiled(manifest).spec.crypto() == name);
  }
}

TEST_CASE("environment: the sandbox's own, then the manifest's, each name once") {
  CHECK(env(compiled(manifest_with("a")).spec) == Words{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp", "TMPDIR=/tmp",
                                                        "LANG=C.UTF-8", "KAI_AGENT_ID=calendarAgent"});
  CHECK(env(compiled(manifest_with("a.js", {{"env", {{"LANG", "de_DE.UTF-8"}, {"X", "1"}}}})).spec) ==
        Words{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp", "TMPDIR=/tmp", "LANG=de_DE.UTF-8",
              "KAI_AGENT_ID=calendarAgent", "KAI_RUNNER_FD=3", "KAI_CPUS=1", "X=1"});
  CHECK(env(compiled(manifest_with("a.py", {{"env", {{"PYTHONPATH", "/agent/lib"}}}})).spec).back() ==
        "PYTHONPATH=/kai/python:/agent/lib");
}

TEST_CASE("node is told how many processors its limit is worth") {
  const std::pair<std::uint32_t, const char*> limits[] = {{50, "KAI_CPUS=1"}, {100, "KAI_CPUS=1"}, {250, "KAI_CPUS=3"}};
  for (const auto& [percent, expected] : limits) {
    Policy policy = builtin_policy(false);
    policy.cpu_limit_percent = percent;
    const auto result = compile(manifest_with("a.js"), policy, {"p", ""});
    REQUIRE(result);
    CHECK(env(result->spec).back() == expected);
  }
}

TEST_CASE("the largest manifest stays within what the keeper takes: 64 mounts, no tmpfs without inodes") {
  Json document = example();
  Json paths = Json::array();
  for (int at = 0; at < 32; ++at) paths.push_back("/data" + std::to_string(at));
  document["security"]["fileAccess"]["allowedPaths"] = paths;
  const spec::SandboxSpec spec = compiled(manifest_of(document)).spec;
  CHECK(spec.mounts_size() <= 64);
  Package run;
  run.ephemeral = true;
  const spec::SandboxSpec in_memory = compiled(manifest_of(document), run).spec;
  for (const auto& mount : in_memory.mounts()) {
    CHECK(mount.kind() != spec::Mount::PRIVATE);
    if (mount.kind() != spec::Mount::TMPFS) continue;
    CHECK(mount.size_bytes() >= 1U << 20);
    CHECK(mount.inodes() >= 64);
  }
}

TEST_CASE("limits become rlimits and a cgroup; never RLIMIT_AS") {
  const spec::SandboxSpec spec = compiled(manifest_of(example())).spec;
  std::map<std::uint32_t, std::uint64_t> limits;
  for (const auto& limit : spec.rlimits()) {
    CHECK(limit.soft() == limit.hard());
    limits[limit.resource()] = limit.hard();
  }
  CHECK(limits.at(RLIMIT_CORE) == 0);
  CHECK(limits.at(RLIMIT_NOFILE) == 1024);
  CHECK(limits.at(RLIMIT_NPROC) == 129);  // behind the pids cgroup
  CHECK(limits.at(RLIMIT_MSGQUEUE) == 0);
  CHECK(!limits.contains(RLIMIT_AS));
  CHECK(spec.cgroup().memory_bytes() == 512ULL << 20);
  CHECK(spec.cgroup().cpu_percent() == 100);
  CHECK(spec.cgroup().pids() == 128);
}

TEST_CASE("mounts: read-only system, package, runner, private directories in order") {
  const spec::SandboxSpec spec = compiled(manifest_of(example())).spec;
  std::set<std::string> targets;
  std::size_t tmp_at = 0;
  std::size_t cache_at = 0;
  for (int at = 0; at < spec.mounts_size(); ++at) {
    const spec::Mount& mount = spec.mounts(at);
    CHECK(mount.target().starts_with('/'));
    CHECK(targets.insert(mount.target()).second);
    const bool writable = mount.kind() == spec::Mount::TMPFS || mount.kind() == spec::Mount::PRIVATE;
    CHECK(mount.read_only() == !writable);
    if (mount.target() == "/tmp") tmp_at = static_cast<std::size_t>(at);
    if (mount.target() == "/tmp/calendar-cache") cache_at = static_cast<std::size_t>(at);
  }
  CHECK(tmp_at < cache_at);
  CHECK(mount_at(spec, "/usr")->kind() == spec::Mount::SYSTEM);
  CHECK(!mount_at(spec, "/usr")->optional());
  CHECK(mount_at(spec, "/lib64")->kind() == spec::Mount::SYMLINK);
  CHECK(mount_at(spec, "/lib64")->source() == "usr/lib64");
  CHECK(mount_at(spec, "/etc/passwd")->kind() == spec::Mount::CONTENT);
  CHECK(mount_at(spec, "/etc/hosts")->content().find("calendarAgent") != std::string::npos);
  CHECK(mount_at(spec, "/etc/ssl/certs")->optional());
  CHECK(mount_at(spec, "/etc") == nullptr);
  CHECK(mount_at(spec, "/proc") == nullptr);
  CHECK(mount_at(spec, "/agent")->kind() == spec::Mount::PACKAGE);
  CHECK(mount_at(spec, "/agent")->source() == "calendarAgent/calendarAgent-abc");
  CHECK(mount_at(spec, "/node_modules/@kai/agent")->source() == "sdk/node");
  CHECK(mount_at(spec, "/kai/python") == nullptr);
  CHECK(mount_at(spec, "/tmp")->size_bytes() == 64ULL << 20);
  CHECK(mount_at(spec, "/tmp")->mode() == 01777);
  CHECK(mount_at(spec, "/tmp/calendar-cache")->kind() == spec::Mount::PRIVATE);
  CHECK(mount_at(spec, "/tmp/calendar-cache")->source() == "tmp__calendar-cache");
  CHECK(mount_at(compiled(manifest_with("a.py")).spec, "/kai/python")->source() == "sdk/python");
  CHECK(mount_at(compiled(manifest_with("a.so")).spec, "/kai/kai-native-runner")->source() == "kai-native-runner");
}

TEST_CASE("all versions of a package are where an SDK can load one, and read-only") {
  for (const char* entry : {"a.mjs", "a.py", "a.so"}) {
    CAPTURE(std::string(entry));
    const spec::SandboxSpec spec = compiled(manifest_with(entry)).spec;
    REQUIRE(mount_at(spec, "/kai/versions") != nullptr);
    CHECK(mount_at(spec, "/kai/versions")->kind() == spec::Mount::PACKAGE);
    CHECK(mount_at(spec, "/kai/versions")->source() == "calendarAgent");
    CHECK(mount_at(spec, "/kai/versions")->read_only());
    CHECK(mount_at(spec, "/agent")->read_only());
  }
  CHECK(mount_at(compiled(manifest_with("a.sh")).spec, "/kai/versions") == nullptr);
  const Json runner = {{"kind", "exec"}, {"protocol", "runner"}};
  CHECK(mount_at(compiled(manifest_with("a.sh", runner)).spec, "/kai/versions") == nullptr);
}

TEST_CASE("file access: read-only, nothing mounted twice, a bare /tmp") {
  Json document = example();
  document["security"]["fileAccess"] = {
      {"allowedPaths", {"/data/sub", "/data", "/srv/x"}}, {"readOnly", true}, {"tempFileAccess", false}};
  const spec::SandboxSpec spec = compiled(manifest_of(document)).spec;
  CHECK(mount_at(spec, "/data/sub") == nullptr);  // inside /data
  for (const char* path : {"/data", "/srv/x"}) {
    CHECK(mount_at(spec, path)->read_only());
    CHECK(mount_at(spec, path)->size_bytes() == 0);  // spec.disk bounds them together
  }
  CHECK(mount_at(spec, "/tmp")->size_bytes() == kBareTmpBytes);
  CHECK(mount_at(spec, "/tmp")->inodes() == kBareTmpInodes);
  document["security"]["fileAccess"]["allowedPaths"] = {"/tmp", "/tmp/x"};
  const spec::SandboxSpec tmp = compiled(manifest_of(document)).spec;
  CHECK(mount_at(tmp, "/tmp")->kind() == spec::Mount::TMPFS);
  CHECK(mount_at(tmp, "/tmp")->size_bytes() == 64ULL << 20);
  CHECK(mount_at(tmp, "/tmp/x") == nullptr);
}

TEST_CASE("a private directory's name is safe, stable and its own") {
  CHECK(private_directory_name("/data") == "data");
  CHECK(private_directory_name("/tmp/a_b") == "tmp__a_5fb");
  CHECK(private_directory_name("/tmp/a/b") == "tmp__a__b");
  CHECK(private_directory_name("/.hidden") == "_2ehidden");
  CHECK(private_directory_name("/-x") == "_2dx");
  CHECK(private_directory_name("/a b\xC3\xA4") == "a_20b_c3_a4");
  const std::string long_path = "/" + std::string(250, 'a') + "/" + std::string(250, 'b');
  CHECK(private_directory_name(long_path).size() == 200);
  CHECK(private_directory_name(long_path) != private_directory_name(long_path + "b"));
  CHECK(private_directory_name("/d/..a").find('/') == std::string::npos);
}

TEST_CASE("a host name of an id") {
  CHECK(hostname_of("calendarAgent") == "calendarAgent");
  CHECK(hostname_of("a.b_c") == "a-b-c");
  CHECK(hostname_of(std::string(64, 'x')).size() == 63);
  CHECK(hostname_of("a-") == "a");
}

TEST_CASE("what is asked beyond the policy is trimmed, with a reason") {
  Json document = example();
  document["security"]["permissions"] = {{{"resource", "calendar"}, {"actions", {"read"}}},
                                         {{"resource", "agent"}, {"actions", {"execute"}}, {"scope", "echo"}},
                                         {{"resource", "topic"}, {"actions", {"read", "write"}}, {"scope", "news"}},
                                         {{"resource", "file"}, {"actions", {"read"}}},
                                         {{"resource", "network"}, {"actions", {"read"}}},
                                         {{"resource", "memory"}, {"actions", {"read"}}, {"scope", "other"}}};
  const Manifest manifest = manifest_of(document);
  const Compiled without_rules = compiled(manifest);
  REQUIRE(without_rules.permissions.size() == 1);
  CHECK(without_rules.permissions[0].resource == "calendar");
  Words pointers;
  for (const Verdict& verdict : without_rules.trimmed) {
    pointers.push_back(verdict.pointer);
    CHECK(!verdict.asked.empty());
    CHECK(!verdict.reason.empty());
  }
  CHECK(pointers == Words{"/security/permissions/1", "/security/permissions/2", "/security/permissions/3",
                          "/security/permissions/4", "/security/permissions/5", "/security/networkAccess/allowOutbound",
                          "/security/networkAccess/allowedDomains/0", "/security/networkAccess/allowedDomains/1"});
  const Verdict& outbound = without_rules.trimmed[5];
  CHECK(outbound.asked == "connections to calendar.google.com, outlook.office.com");
  CHECK(outbound.reason ==
        "policy builtin (builtin) allows no network: the operator can list names in network.allowedDomains");
  CHECK(outbound.rule == "builtin");

  Policy policy = builtin_policy(false);
  policy.permissions = {{"agent", {"execute"}, "*"}, {"topic", {"read"}, "news"}, {"memory", {"read"}, "another"}};
  const auto ruled = compile(manifest, policy, {"p", ""});
  REQUIRE(ruled);
  REQUIRE(ruled->permissions.size() == 3);
  CHECK(ruled->permissions[1] == Permission{"agent", {"execute"}, "echo"});
  CHECK(ruled->permissions[2] == Permission{"topic", {"read"}, "news"});
  CHECK(ruled->trimmed.size() == 7);
}

TEST_CASE("no outbound asked, no verdict about it") {
  Json document = example();
  document["security"]["networkAccess"] = {{"allowOutbound", false}};
  const Compiled result = compiled(manifest_of(document));
  CHECK(result.trimmed.empty());
}

TEST_CASE("sandbox: false is refused without the operator's leave") {
  Json document = example();
  document["security"]["sandbox"] = false;
  const auto refused = compile(manifest_of(document), builtin_policy(false), {"p", ""});
  REQUIRE(!refused);
  CHECK(refused.error().message().find("security.sandbox") != std::string::npos);
}

TEST_CASE("run: argv as it is, no package, /tmp as home") {
  const spec::SandboxSpec spec =
      compile_run("run-1", builtin_policy(true), {"/bin/sh", "-c", "id"}, {"A=1", "HOME=/", "A=2"});
  CHECK(argv(spec) == Words{"/bin/sh", "-c", "id"});
  CHECK(env(spec) == Words{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/", "TMPDIR=/tmp", "LANG=C.UTF-8",
                           "KAI_AGENT_ID=run-1", "A=2"});
  CHECK(spec.cwd() == "/tmp");
  CHECK(spec.ephemeral());
  CHECK(spec.profile() == "exec");
  CHECK(!spec.seccomp().empty());
  CHECK(mount_at(spec, "/agent") == nullptr);
  CHECK(spec.degrade_size() == 3);
}

TEST_CASE("run --manifest: no entry, no package, the caller's argv") {
  const ManifestResult parsed = parse_manifest(testing::without("/entry"), false);
  REQUIRE(parsed.manifest);
  const Compiled result = compiled(*parsed.manifest, {});
  CHECK(result.spec.argv_size() == 0);
  CHECK(result.spec.cwd() == "/tmp");
  CHECK(mount_at(result.spec, "/agent") == nullptr);
}

}  // namespace kai
