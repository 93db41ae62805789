// What a control that was taken over could ask for, and does not get.
#include "supervisor/keeper/check.h"

#include <sys/resource.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

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

/// The built-in policy, and before it one that the test changes.
kai::PolicySet policies(const std::function<void(kai::Policy&)>& change) {
  kai::PolicySet set{{kai::builtin_policy(false), kai::builtin_policy(false)}, {}};
  change(set.policies[0]);
  return set;
}

/// The error of the good spec after `change`, under those policies; empty: accepted.
std::string under(const kai::PolicySet& set, const std::function<void(SandboxSpec&)>& change) {
  SandboxSpec spec = good();
  change(spec);
  const auto checked = check_spec(spec, {set, 1});
  return checked ? "" : checked.error().message();
}

std::string after(const std::function<void(SandboxSpec&)>& change) {
  return under(policies([](kai::Policy&) {}), change);
}

bool says(const std::string& error, const std::string& part) {
  CAPTURE(error);
  return error.find(part) != std::string::npos;
}

void set_rlimit(SandboxSpec& spec, int resource, std::uint64_t value) {
  for (auto& limit : *spec.mutable_rlimits()) {
    if (limit.resource() != static_cast<std::uint32_t>(resource)) continue;
    limit.set_soft(value);
    limit.set_hard(value);
  }
}

void drop_rlimit(SandboxSpec& spec, int resource) {
  auto& limits = *spec.mutable_rlimits();
  for (int at = 0; at < limits.size(); ++at) {
    if (limits[at].resource() == static_cast<std::uint32_t>(resource)) limits.DeleteSubrange(at--, 1);
  }
}

Mount& host_mount(SandboxSpec& spec, const std::string& source, bool read_only) {
  Mount& mount = *spec.add_mounts();
  mount.set_kind(Mount::HOST);
  mount.set_source(source);
  mount.set_target("/data/cal");
  mount.set_read_only(read_only);
  return mount;
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

TEST_CASE("packages are the agent's own, and programs kAI's") {
  CHECK(with_mount(Mount::PACKAGE, "run-test/0123abcd", "/x").empty());
  CHECK(with_mount(Mount::PACKAGE, "run-test", "/kai/versions").empty());
  for (const char* source :
       {"other/0123abcd", "other", "run-test2", "run-test2/0123abcd", "run", "0123abcd", "run-test/", "run-test/.",
        "run-test/..", "run-test/a/b", "run-test/../other", "run-test//a", "/run-test"}) {
    CAPTURE(source);
    CHECK(says(with_mount(Mount::PACKAGE, source, "/x"), "not a package of the agent's own"));
  }
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

TEST_CASE("rlimits: all that count, within bounds, once") {
  for (const int resource : {RLIMIT_CORE, RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_MSGQUEUE, RLIMIT_MEMLOCK, RLIMIT_NICE,
                             RLIMIT_RTPRIO, RLIMIT_SIGPENDING}) {
    CAPTURE(resource);
    CHECK(says(after([&](SandboxSpec& spec) { drop_rlimit(spec, resource); }), "rlimit missing: RLIMIT_"));
    CHECK(says(after([&](SandboxSpec& spec) { set_rlimit(spec, resource, 1ULL << 40); }), "rlimit out of bounds"));
  }
  CHECK(says(after([](SandboxSpec& spec) { set_rlimit(spec, RLIMIT_CORE, 1); }), "RLIMIT_CORE"));
  CHECK(says(after([](SandboxSpec& spec) { *spec.add_rlimits() = spec.rlimits(0); }), "given twice"));
  CHECK(says(after([](SandboxSpec& spec) { spec.mutable_rlimits(1)->set_soft(~0ULL); }), "over its own maximum"));
}

TEST_CASE("no filter, no start") {
  CHECK(says(after([](SandboxSpec& spec) { spec.clear_seccomp(); }), "no seccomp program"));
  CHECK(says(after([](SandboxSpec& spec) { spec.set_seccomp("1234567"); }), "no seccomp program"));
  CHECK(says(after([](SandboxSpec& spec) { spec.set_seccomp(std::string(8 * 5000, 'x')); }), "no seccomp program"));
  CHECK(says(after([](SandboxSpec& spec) { spec.clear_seccomp_silent(); }), "no silent seccomp program"));
  CHECK(says(after([](SandboxSpec& spec) { spec.set_seccomp_silent("x"); }), "no silent seccomp program"));
}

TEST_CASE("host paths: only those that a policy maps, written only with its grant") {
  const auto reads = policies([](kai::Policy& policy) { policy.files["/data/cal"] = {"/srv/cal", false}; });
  const auto mapped = policies([](kai::Policy& policy) { policy.files["/data/cal"] = {"/srv/cal", true}; });
  const auto writes = policies([](kai::Policy& policy) {
    policy.files["/data/cal"] = {"/srv/cal", true};
    policy.grants = {"hostWrite"};
  });
  const auto read = [](SandboxSpec& spec) { host_mount(spec, "/srv/cal", true); };
  const auto write = [](SandboxSpec& spec) { host_mount(spec, "/srv/cal", false); };
  CHECK(says(after(read), "no operator policy maps this host path (files): /srv/cal"));
  CHECK(under(reads, read).empty());
  CHECK(under(writes, write).empty());
  CHECK(says(under(reads, write), "no operator policy lets this host path be written"));
  CHECK(says(under(mapped, write), "no operator policy lets this host path be written"));
  for (const char* source : {"/srv", "/srv/cal/x", "/srv/cal/", "/srv/../srv/cal", "/", "", "/etc/shadow"}) {
    CAPTURE(source);
    CHECK_FALSE(under(writes, [&](SandboxSpec& spec) { host_mount(spec, source, true); }).empty());
  }
  // The grant has to be in the policy that maps the path.
  kai::PolicySet apart = mapped;
  apart.policies[1].grants = {"hostWrite"};
  CHECK(says(under(apart, write), "no operator policy lets this host path be written"));
}

TEST_CASE("host network, no sandbox, missing layers: only with a policy that says so") {
  const auto network = [](SandboxSpec& spec) {
    spec.set_host_network(true);
    spec.add_tcp_ports(443);
  };
  const auto bare = [](SandboxSpec& spec) {
    spec.set_unsandboxed(true);
    spec.clear_seccomp();
    spec.clear_seccomp_silent();
  };
  CHECK(says(after(network), "grant hostNetwork"));
  CHECK(under(policies([](kai::Policy& policy) { policy.grants = {"hostNetwork"}; }), network).empty());
  CHECK(says(after(bare), "grant unsandboxed"));
  CHECK(says(under(policies([](kai::Policy& policy) { policy.grants = {"unsandboxed"}; }), bare), "sandbox: false"));
  CHECK(says(under(policies([](kai::Policy& policy) { policy.sandbox = false; }), bare), "grant unsandboxed"));
  CHECK(under(policies([](kai::Policy& policy) {
                policy.sandbox = false;
                policy.grants = {"unsandboxed"};
              }),
              bare)
            .empty());
  CHECK(says(after([](SandboxSpec& spec) { spec.add_degrade("landlock"); }), "be missing (degrade): landlock"));
  CHECK(under(policies([](kai::Policy& policy) { policy.degrade = {"landlock"}; }), [](SandboxSpec& spec) {
          spec.add_degrade("landlock");
        }).empty());
  for (const std::uint32_t port : {0U, 65536U}) {
    CHECK(says(after([&](SandboxSpec& spec) { spec.add_tcp_ports(port); }), "no TCP port"));
  }
}

TEST_CASE("private data: plain names, with a limit, and not of a run that leaves nothing") {
  const auto with = [](const std::string& source, std::uint64_t bytes, std::uint64_t inodes) {
    return after([&](SandboxSpec& spec) {
      spec.set_ephemeral(false);
      spec.mutable_disk()->set_size_bytes(bytes);
      spec.mutable_disk()->set_inodes(inodes);
      Mount& mount = *spec.add_mounts();
      mount.set_kind(Mount::PRIVATE);
      mount.set_source(source);
      mount.set_target("/data/cal");
    });
  };
  CHECK(with("data__cal", 1 << 20, 100).empty());
  // What is in there is the agent's, links too.
  CHECK(says(after([&](SandboxSpec& spec) {
               spec.set_ephemeral(false);
               spec.mutable_disk()->set_size_bytes(1 << 20);
               spec.mutable_disk()->set_inodes(100);
               for (const char* target : {"/data/cal", "/data/cal/below"}) {
                 Mount& mount = *spec.add_mounts();
                 mount.set_kind(Mount::PRIVATE);
                 mount.set_source("x");
                 mount.set_target(target);
               }
             }),
             "goes through a link: /data/cal/below"));
  for (const char* source : {"", ".", "..", "a/b", "a b", "/x"}) {
    CAPTURE(source);
    CHECK(says(with(source, 1 << 20, 100), "private data is not a plain name"));
  }
  CHECK(says(with("x", 0, 100), "disk limit out of bounds"));
  CHECK(says(with("x", 1ULL << 50, 100), "disk limit out of bounds"));
  CHECK(says(with("x", 1 << 20, 0), "inode limit out of bounds"));
  CHECK(says(with("x", 1 << 20, 1ULL << 40), "inode limit out of bounds"));
  CHECK(says(with_mount(Mount::PRIVATE, "x", "/x"), "private data without a limit"));
  CHECK(says(after([](SandboxSpec& spec) {
               spec.set_ephemeral(true);
               spec.mutable_disk()->set_size_bytes(1 << 20);
               spec.mutable_disk()->set_inodes(10);
               spec.add_mounts()->set_kind(Mount::PRIVATE);
               spec.mutable_mounts(spec.mounts_size() - 1)->set_source("x");
               spec.mutable_mounts(spec.mounts_size() - 1)->set_target("/x");
             }),
             "leaves nothing behind"));
}

TEST_CASE("descriptors: those that came, written only with both grants") {
  const auto granted = [](std::vector<std::string> grants) {
    return policies([&](kai::Policy& policy) { policy.grants = grants; });
  };
  const auto with = [&](std::uint32_t number, bool read_only, std::vector<std::string> grants = {}) {
    return under(granted(std::move(grants)), [&](SandboxSpec& spec) {
      Mount& mount = *spec.add_mounts();
      mount.set_kind(Mount::DESCRIPTOR);
      mount.set_target("/x");
      mount.set_descriptor(number);
      mount.set_read_only(read_only);
    });
  };
  CHECK(with(0, true).empty());
  CHECK(says(with(1, true), "its descriptor did not come"));
  CHECK(says(with(0, false), "grants hostMounts and hostWrite"));
  CHECK(says(with(0, false, {"hostMounts"}), "grants hostMounts and hostWrite"));
  CHECK(with(0, false, {"hostMounts", "hostWrite"}).empty());
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
  const kai::PolicySet set = policies([](kai::Policy&) {});
  const kai::keeper::Allowed allowed{set, 0};
  const auto sealed = kai::sealed_memfd("spec", bytes);
  REQUIRE(sealed);
  CHECK(kai::keeper::read_spec(*sealed, allowed));
  auto pipe = kai::make_pipe();
  REQUIRE(pipe);
  CHECK_FALSE(kai::keeper::read_spec(pipe->first, allowed));
  const auto garbage = kai::sealed_memfd("spec", "\xff\xff\xff\xff");
  REQUIRE(garbage);
  CHECK_FALSE(kai::keeper::read_spec(*garbage, allowed));
  const auto empty = kai::sealed_memfd("spec", "");
  REQUIRE(empty);
  CHECK_FALSE(kai::keeper::read_spec(*empty, allowed));
}

TEST_CASE("a socket is tried only where a policy has that address under services") {
  const auto set = policies([](kai::Policy& policy) {
    policy.services = {{"db", "unix:/run/postgresql/.s.PGSQL.5432"}, {"cache", "tcp:127.0.0.1:6379"}};
  });
  const auto path = kai::keeper::check_service("unix:/run/postgresql/.s.PGSQL.5432", set);
  REQUIRE(path);
  CHECK(*path == "/run/postgresql/.s.PGSQL.5432");
  for (const char* address :
       {"", "unix:", "unix:/run/docker.sock", "/run/postgresql/.s.PGSQL.5432", "unix:/run/postgresql",
        "unix:/run/postgresql/../postgresql/.s.PGSQL.5432", "unix:/run/postgresql/.s.PGSQL.5432\n",
        "unix:/run/postgresql/.s.PGSQL.54321", "tcp:127.0.0.1:6379", "db"}) {
    CAPTURE(address);
    const auto refused = kai::keeper::check_service(address, set);
    CHECK((!refused && says(refused.error().message(), "no operator policy has a service at this Unix socket")));
  }
}
