#include "policies/exposure.h"

#include <cmath>

#include <doctest/doctest.h>

#include "policies/compile.h"
#include "tests/unit/policies/manifests.h"
#include "tests/unit/policies/policy_fixture.h"

namespace kai {
namespace {

using testing::Json;
using testing::policy;
using Words = std::vector<std::string>;

/// The score of an agent that asks for everything, under a policy of these keys.
Exposure exposure(const std::string& keys, const Words& degraded = {}, bool sandbox = true) {
  Json document = testing::example();
  document["security"]["sandbox"] = sandbox;
  document["security"]["fileAccess"]["allowedPaths"] = {"/data", "/a", "/b", "/c"};
  const ManifestResult parsed = parse_manifest(document.dump());
  REQUIRE(parsed.manifest);
  const Policy rules = policy("  cpuLimit: 100\n" + keys);
  const auto result = compile(*parsed.manifest, rules, {"p", ""});
  REQUIRE_MESSAGE(result, result.error().message());
  const Exposure found = exposure_of(result->spec, rules, degraded);
  double sum = 0;
  for (const Exposure::Item& item : found.items) {
    CHECK(item.points > 0);
    CHECK(!item.name.empty());
    CHECK(!item.reason.empty());
    sum += item.points;
  }
  CHECK(std::abs(sum - found.score) < 1e-9);
  CHECK(found.score >= 0);
  CHECK(found.score <= 10);
  return found;
}

double score(const std::string& keys, const Words& degraded = {}, bool sandbox = true) {
  return exposure(keys, degraded, sandbox).score;
}

}  // namespace

TEST_CASE("each layer that is missing makes the exposure greater") {
  const double whole = score("");
  CHECK(whole > 0);
  CHECK(whole < 1);
  Words all;
  double before = whole;
  for (const char* layer : {"cgroup", "landlock", "seccompNotify", "io", "disk", "groups"}) {
    CAPTURE(std::string(layer));
    CHECK(score("", {layer}) > whole);
    all.emplace_back(layer);
    CHECK(score("", all) > before);
    before = score("", all);
  }
}

TEST_CASE("each power that is added makes the exposure greater") {
  const std::pair<const char*, const char*> steps[] = {
      {"", "  files: {/a: {host: /srv/a}}\n"},
      {"  files: {/a: {host: /srv/a}}\n", "  files: {/a: {host: /srv/a}, /b: {host: /srv/b}}\n"},
      {"  files: {/a: {host: /srv/a}}\n", "  files: {/a: {host: /srv/a, write: true}}\n  grants: [hostWrite]\n"},
      {"", "  grants: [hostNetwork]\n"},
      {"", "  grants: [hostMounts]\n"},
      {"", "  grants: [\"syscalls:ptrace\"]\n"},
      {"  grants: [\"syscalls:ptrace\"]\n", "  grants: [\"syscalls:ptrace\", \"syscalls:bpf\"]\n"},
      {"", "  network: {allowedDomains: [calendar.google.com]}\n"},
      {"", "  network: {allowedCidrs: [10.0.0.0/8]}\n"},
      {"  network: {allowedDomains: [calendar.google.com]}\n",
       "  network: {allowedDomains: [calendar.google.com, outlook.office.com]}\n"},
      {"  network: {allowedDomains: [calendar.google.com]}\n", "  network: {allowedDomains: [\"*\"]}\n"},
      {"", "  memoryLimit: 8192\n"},
      {"  memoryLimit: 8192\n", "  memoryLimit: 65536\n"},
      {"", "  limits: {processes: 4096}\n"},
      {"", "  limits: {openFiles: 65536}\n"},
      {"", "  limits: {disk: 10240}\n"},
  };
  for (const auto& [less, more] : steps) {
    CAPTURE(std::string(more));
    CHECK(score(more) > score(less));
  }
}

TEST_CASE("no filter, and no sandbox, are worse than whatever a sandbox can have") {
  const std::string everything =
      "  files: {/a: {host: /srv/a}, /b: {host: /srv/b, write: true}, /c: {host: /srv/c, write: true}}\n"
      "  network: {allowedDomains: [\"*\", calendar.google.com]}\n  memoryLimit: 1048576\n"
      "  limits: {processes: 65535, openFiles: 1048576, disk: 1048576}\n  sandbox: false\n"
      "  grants: [unsandboxed, hostWrite, hostNetwork, hostMounts, \"syscalls:bpf\", \"syscalls:ptrace\"]\n";
  for (const Words& degraded : {Words{}, Words{"cgroup", "landlock", "seccompNotify", "io", "disk", "groups"}}) {
    CHECK(score(everything, degraded, false) > score(everything, degraded, true));
  }
  CHECK(score("  sandbox: false\n  grants: [unsandboxed]\n", {"cgroup"}, false) >
        score("  sandbox: false\n  grants: [unsandboxed]\n", {}, false));

  const Policy rules = policy("  grants: [\"syscalls:bpf\", \"syscalls:ptrace\"]\n");
  spec::SandboxSpec spec = compile_run("r", rules, {"/bin/true"}, {});
  const double filtered = exposure_of(spec, rules, {}).score;
  spec.clear_seccomp();
  CHECK(exposure_of(spec, rules, {}).score > filtered);
}

}  // namespace kai
