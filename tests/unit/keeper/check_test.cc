// What a control that was taken over could ask for, and does not get.
#include "supervisor/keeper/check.h"

#include <sys/resource.h>

#include <functional>
#include <string>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "policies/compile.h"

namespace {

using kai::keeper::check_spec;
using kai::spec::Mount;
using kai::spec::SandboxSpec;

SandboxSpec good() {
  return kai::compile_run("run-test", kai::builtin_policy(false), {"/bin/true"}, {});
}

/// The error of the good spec after `change`; empty: accepted.
std::string after(const std::function<void(SandboxSpec&)>& change) {
  SandboxSpec spec = good();
  change(spec);
  const auto checked = check_spec(spec);
  return checked ? "" : checked.error().message();
}

std::string with_mount(Mount::Kind kind, const std::string& source, const std::string& target) {
  return after([&](SandboxSpec& spec) {
    auto* mount = spec.add_mounts();
    mount->set_kind(kind);
    mount->set_source(source);
    mount->set_target(target);
    mount->set_size_bytes(4096);
    mount->set_inodes(1);
  });
}

}  // namespace

TEST_CASE("what the compiler makes is accepted") {
  CHECK(after([](SandboxSpec&) {}).empty());
}

TEST_CASE("host sources: system directories only") {
  CHECK(with_mount(Mount::SYSTEM, "/usr/share/zoneinfo", "/x").empty());
  for (const char* source : {"/", "/etc", "/etc/shadow", "/root", "/home", "/proc", "/sys", "/usr/../etc/shadow",
                             "/usr/", "/usrx", "usr", "/usr//lib", "/usr/./lib", "/var/lib/kai"}) {
    CAPTURE(source);
    CHECK_FALSE(with_mount(Mount::SYSTEM, source, "/x").empty());
  }
}

TEST_CASE("no kind gives a writable host directory") {
  CHECK_FALSE(with_mount(Mount::STATE, "/srv", "/x").empty());
  CHECK_FALSE(with_mount(Mount::UNSPECIFIED, "", "/x").empty());
  CHECK_FALSE(with_mount(static_cast<Mount::Kind>(99), "/usr", "/x").empty());
}

TEST_CASE("packages and programs are plain names") {
  CHECK(with_mount(Mount::PACKAGE, "0123abcd", "/x").empty());
  for (const char* source : {"", ".", "..", "../state", "a/b", "/etc"}) {
    CAPTURE(source);
    CHECK_FALSE(with_mount(Mount::PACKAGE, source, "/x").empty());
    CHECK_FALSE(with_mount(Mount::PROGRAM, source, "/x").empty());
  }
  CHECK(with_mount(Mount::PROGRAM, "sdk/node", "/x").empty());
  CHECK_FALSE(with_mount(Mount::PROGRAM, "kaid", "/x").empty());
}

TEST_CASE("targets are absolute, plain, once, and not through a link") {
  for (const char* target :
       {"", "/", "x", "/x/..", "/x/../y", "/x//y", "/x/", "/proc", "/proc/self", "/dev", "/dev/null"}) {
    CAPTURE(target);
    CHECK_FALSE(with_mount(Mount::TMPFS, "", target).empty());
  }
  CHECK_FALSE(with_mount(Mount::TMPFS, "", "/tmp").empty());    // there already
  CHECK_FALSE(with_mount(Mount::TMPFS, "", "/bin/x").empty());  // /bin is a link
  CHECK(with_mount(Mount::TMPFS, "", "/data/x").empty());
}

TEST_CASE("limits within bounds") {
  CHECK_FALSE(after([](SandboxSpec& spec) { spec.mutable_cgroup()->set_memory_bytes(0); }).empty());
  CHECK_FALSE(after([](SandboxSpec& spec) { spec.mutable_cgroup()->set_memory_bytes(~0ULL); }).empty());
  CHECK_FALSE(after([](SandboxSpec& spec) { spec.mutable_cgroup()->set_cpu_percent(0); }).empty());
  CHECK_FALSE(after([](SandboxSpec& spec) { spec.mutable_cgroup()->set_pids(1); }).empty());
  CHECK_FALSE(after([](SandboxSpec& spec) { spec.mutable_cgroup()->set_pids(1U << 30); }).empty());
  CHECK_FALSE(after([](SandboxSpec& spec) { spec.clear_cgroup(); }).empty());
  CHECK_FALSE(after([](SandboxSpec& spec) {
                auto* limit = spec.add_rlimits();
                limit->set_resource(RLIMIT_NICE);
                limit->set_hard(40);
              }).empty());
  CHECK_FALSE(after([](SandboxSpec& spec) { spec.add_rlimits()->set_resource(1000); }).empty());
}

TEST_CASE("no filter, no start") {
  CHECK_FALSE(after([](SandboxSpec& spec) { spec.clear_seccomp(); }).empty());
  CHECK_FALSE(after([](SandboxSpec& spec) { spec.set_seccomp("1234567"); }).empty());
  CHECK_FALSE(after([](SandboxSpec& spec) { spec.set_seccomp(std::string(8 * 5000, 'x')); }).empty());
}

TEST_CASE("names") {
  CHECK_FALSE(after([](SandboxSpec& spec) { spec.set_agent_id("../x"); }).empty());
  CHECK_FALSE(after([](SandboxSpec& spec) { spec.set_agent_id("kaid"); }).empty());
  CHECK_FALSE(after([](SandboxSpec& spec) { spec.set_hostname(std::string(65, 'x')); }).empty());
  CHECK_FALSE(after([](SandboxSpec& spec) { spec.clear_argv(); }).empty());
  CHECK_FALSE(after([](SandboxSpec& spec) { spec.set_cwd("../etc"); }).empty());
}

TEST_CASE("a spec that could still change is not read") {
  const std::string bytes = good().SerializeAsString();
  const auto sealed = kai::sealed_memfd("spec", bytes);
  REQUIRE(sealed);
  CHECK(kai::keeper::read_spec(*sealed));
  auto pipe = kai::make_pipe();
  REQUIRE(pipe);
  CHECK_FALSE(kai::keeper::read_spec(pipe->first));
  const auto garbage = kai::sealed_memfd("spec", "\xff\xff\xff\xff");
  REQUIRE(garbage);
  CHECK_FALSE(kai::keeper::read_spec(*garbage));
  const auto empty = kai::sealed_memfd("spec", "");
  REQUIRE(empty);
  CHECK_FALSE(kai::keeper::read_spec(*empty));
}
