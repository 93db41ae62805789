#include "policies/compile.h"

#include <sys/resource.h>

#include <algorithm>
#include <map>

#include "policies/decide.h"
#include "policies/filters.h"
#include "policies/layout.h"
#include "policies/manifest_names.h"
#include "policies/network_rules.h"

namespace kai {
namespace {

constexpr std::uint64_t kMegabyte = 1 << 20;

const char* profile_of(RuntimeKind kind) {
  switch (kind) {
    case RuntimeKind::kNode:
      return "node";
    case RuntimeKind::kPython:
      return "python";
    case RuntimeKind::kNative:
      return "native";
    case RuntimeKind::kExec:
      return "exec";
  }
  return "exec";
}

std::vector<std::string> extra_calls(const Policy& policy) {
  constexpr std::string_view kSyscalls = "syscalls:";
  std::vector<std::string> names;
  for (const std::string& grant : policy.grants) {
    if (grant.starts_with(kSyscalls)) names.push_back(grant.substr(kSyscalls.size()));
  }
  return names;
}

Result<> set_filter(spec::SandboxSpec& spec, const char* profile, const std::vector<std::string>& calls) {
  const auto filter = compiled_filter(profile, calls);
  if (!filter) return tl::unexpected(filter.error());
  spec.set_profile(profile);
  spec.set_seccomp(filter->notifying);
  spec.set_seccomp_silent(filter->silent);
  return {};
}

/// Never RLIMIT_AS: V8 and Go reserve far more address space than they use; memory is the cgroup's.
void set_limits(spec::SandboxSpec& spec, const Policy& policy) {
  const Limits& limits = policy.limits;
  struct Limit {
    __rlimit_resource resource;
    std::uint64_t value;
  };
  const Limit values[] = {
      {RLIMIT_CORE, 0},  // a core dump would go to the host's core_pattern
      {RLIMIT_NOFILE, limits.open_files},
      // Per user namespace: holds where there is no pids cgroup; where there is one, that one is met first and tells.
      {RLIMIT_NPROC, limits.processes + 1ULL},
      {RLIMIT_MSGQUEUE, 0},
      {RLIMIT_MEMLOCK, 64ULL << 10},  // a few keys
      {RLIMIT_NICE, 0},
      {RLIMIT_RTPRIO, 0},
      {RLIMIT_SIGPENDING, 1024},  // queued signals and POSIX timers are kernel memory
  };
  for (const Limit& limit : values) {
    spec::Rlimit& rlimit = *spec.add_rlimits();
    rlimit.set_resource(static_cast<std::uint32_t>(limit.resource));
    rlimit.set_soft(limit.value);
    rlimit.set_hard(limit.value);
  }
  spec.mutable_cgroup()->set_memory_bytes(policy.memory_limit_mb * kMegabyte);
  spec.mutable_cgroup()->set_cpu_percent(policy.cpu_limit_percent);
  spec.mutable_cgroup()->set_pids(limits.processes);
  for (const std::string& layer : policy.degrade) spec.add_degrade(layer);
}

/// What every sandbox has: id, limits, system mounts, environment.
spec::SandboxSpec common_spec(const std::string& id, const Policy& policy, bool with_hosts = false) {
  spec::SandboxSpec spec;
  spec.set_agent_id(id);
  spec.set_hostname(hostname_of(id));
  set_limits(spec, policy);
  add_system_mounts(spec, with_hosts ? policy.network.hosts : std::map<std::string, std::string>{});
  spec.add_env("PATH=/usr/local/bin:/usr/bin:/bin");
  spec.add_env("HOME=/tmp");
  spec.add_env("TMPDIR=/tmp");
  spec.add_env("LANG=C.UTF-8");
  spec.add_env("KAI_AGENT_ID=" + id);
  return spec;
}

bool is_typescript(std::string_view entry) {
  return entry.ends_with(".ts") || entry.ends_with(".mts");
}

/// The runner's command line up to runtime.args. With protocol none the interpreter runs the entry by itself.
std::vector<std::string> command(const Manifest& manifest, const Policy& policy, const std::string& entry) {
  const bool runner = manifest.runtime.protocol == Protocol::kRunner;
  switch (manifest.runtime.kind) {
    case RuntimeKind::kNode: {
      // node sees neither the cgroup nor its own limit in this /proc (design.md); a quarter is left to what is not
      // heap.
      std::vector<std::string> argv = {"/usr/bin/node",
                                       "--max-old-space-size=" + std::to_string(policy.memory_limit_mb * 3 / 4)};
      if (is_typescript(manifest.entry)) argv.emplace_back("--enable-source-maps");
      if (runner) argv.push_back(std::string(kNodeSdkDir) + "/runner.mjs");
      argv.push_back(entry);
      return argv;
    }
    case RuntimeKind::kPython:
      // -P keeps /agent, the working directory, out of sys.path, where a kai.py of the agent's would stand before the
      // SDK. -B: there is nowhere to write bytecode. -u: a log line appears when it is written.
      if (runner) return {"/usr/bin/python3", "-P", "-B", "-u", "-m", "kai.runner", entry};
      return {"/usr/bin/python3", "-B", "-u", entry};
    case RuntimeKind::kNative:
      return {std::string(kNativeRunner), entry};
    case RuntimeKind::kExec:
      return {entry};
  }
  return {};
}

void set_environment(spec::SandboxSpec& spec, const Manifest& manifest) {
  const bool runner = manifest.runtime.protocol == Protocol::kRunner;
  if (runner) spec.add_env("KAI_RUNNER_FD=3");
  // This /proc hides the processors from node: its SDK tells os.cpus() how many the limit is worth.
  if (runner && manifest.runtime.kind == RuntimeKind::kNode) {
    spec.add_env("KAI_CPUS=" + std::to_string(std::max(1U, (spec.cgroup().cpu_percent() + 99) / 100)));
  }
  std::string python_path(kPythonSdkDir);
  for (const std::string& variable : manifest.runtime.env) {
    constexpr std::string_view kPythonPath = "PYTHONPATH=";
    if (manifest.runtime.kind == RuntimeKind::kPython && variable.starts_with(kPythonPath)) {
      python_path += ":" + variable.substr(kPythonPath.size());
      continue;
    }
    set_variable(spec, variable);
  }
  if (manifest.runtime.kind == RuntimeKind::kPython) spec.add_env("PYTHONPATH=" + python_path);
}

void add_package(spec::SandboxSpec& spec, const std::string& source, std::string_view target) {
  spec::Mount& mount = *spec.add_mounts();
  mount.set_kind(spec::Mount::PACKAGE);
  mount.set_source(source);
  mount.set_target(std::string(target));
  mount.set_read_only(true);
}

void set_mounts(spec::SandboxSpec& spec, const Manifest& manifest, const Policy& policy, const Package& package,
                const Decisions& decisions) {
  const auto is_tmp = [](const PathPlan& plan) { return plan.path == "/tmp"; };
  const auto tmp = std::find_if(decisions.paths.begin(), decisions.paths.end(), is_tmp);
  const bool lists_tmp = tmp != decisions.paths.end();
  if (!decisions.unsandboxed && (!lists_tmp || tmp->kind != PathPlan::Kind::kHost)) {
    add_tmp(spec, policy.limits, manifest.security.files.temp_file_access || lists_tmp);
  }
  if (!package.directory.empty()) {
    add_package(spec, manifest.id + "/" + package.directory, kPackageDir);
    // A program without an SDK has nothing that could load another version beside it.
    const bool loads = manifest.runtime.protocol == Protocol::kRunner && manifest.runtime.kind != RuntimeKind::kExec;
    if (loads) add_package(spec, manifest.id, kVersionsDir);
  }
  add_runner_mounts(spec, manifest.runtime.kind);
  add_path_mounts(spec, decisions.paths, policy.limits, package.ephemeral);
}

void set_network(spec::SandboxSpec& spec, const Manifest& manifest, const Policy& policy, const Decisions& decisions) {
  spec.set_unsandboxed(decisions.unsandboxed);
  spec.set_host_network(decisions.host_network || decisions.unsandboxed);
  if (manifest.security.network.allow_outbound && !spec.host_network()) {
    *spec.mutable_network() = network_rules(manifest, policy, policy.global_blocks);
  }
  if (!decisions.host_network) return;
  for (const std::uint16_t port : policy.network.ports) spec.add_tcp_ports(port);
}

}  // namespace

void set_variable(spec::SandboxSpec& spec, const std::string& variable) {
  const std::string name = variable.substr(0, variable.find('=') + 1);
  auto& all = *spec.mutable_env();
  const auto same = std::find_if(all.begin(), all.end(), [&](const auto& set) { return set.starts_with(name); });
  if (same != all.end()) {
    *same = variable;
  } else {
    spec.add_env(variable);
  }
}

std::vector<std::string> used_grants(const spec::SandboxSpec& spec, const Policy& policy) {
  std::vector<std::string> used;
  const auto add = [&](bool uses, const char* grant) {
    if (uses && policy.grants_power(grant)) used.emplace_back(grant);
  };
  const bool writes = std::any_of(spec.mounts().begin(), spec.mounts().end(), [](const spec::Mount& mount) {
    return mount.kind() == spec::Mount::HOST && !mount.read_only();
  });
  add(spec.unsandboxed(), "unsandboxed");
  add(writes, "hostWrite");
  add(spec.host_network() && !spec.unsandboxed(), "hostNetwork");
  if (spec.unsandboxed()) return used;  // no filter that could let anything through
  for (const std::string& call : extra_calls(policy)) used.push_back("syscalls:" + call);
  return used;
}

Result<Compiled> compile(const Manifest& manifest, const Policy& policy, const Package& package) {
  Decisions decisions = decide(manifest, policy, package.ephemeral);
  Compiled compiled;
  for (Verdict& verdict : decisions.verdicts) {
    if (verdict.kind == Verdict::Kind::kRefused) return failure(verdict.reason);
    auto& list = verdict.kind == Verdict::Kind::kTrimmed ? compiled.trimmed : compiled.granted;
    list.push_back(std::move(verdict));
  }
  compiled.permissions = std::move(decisions.permissions);
  spec::SandboxSpec& spec = compiled.spec;
  // policy.network.hosts: egress answers for them, with addresses that stand for names. Only on the host's network,
  // where there is no egress, they go into the hosts file.
  spec = common_spec(manifest.id, policy, decisions.host_network);
  if (!decisions.unsandboxed) {
    auto done = set_filter(spec, profile_of(manifest.runtime.kind), extra_calls(policy));
    if (!done) return tl::unexpected(done.error());
  }
  spec.set_agent_version(manifest.version);
  for (const std::string& capability : manifest.capabilities) spec.add_capabilities(capability);
  spec.set_manifest_json(manifest.json);
  spec.set_runner_protocol(manifest.runtime.protocol == Protocol::kRunner);
  spec.set_ephemeral(package.ephemeral);
  spec.set_crypto(std::string(manifest::name_of<Crypto>(manifest::kCryptos, manifest.security.crypto)));
  set_network(spec, manifest, policy, decisions);
  set_mounts(spec, manifest, policy, package, decisions);

  const std::string& entry = package.entry_override.empty() ? manifest.entry : package.entry_override;
  if (!entry.empty()) {  // empty for kaictl run --manifest: the caller puts its PROGRAM here
    for (std::string& word : command(manifest, policy, std::string(kPackageDir) + "/" + entry)) {
      spec.add_argv(std::move(word));
    }
    for (const std::string& word : manifest.runtime.args) spec.add_argv(word);
  }
  set_environment(spec, manifest);
  spec.set_cwd(package.directory.empty() ? "/tmp" : std::string(kPackageDir));
  compiled.grants = used_grants(spec, policy);
  return compiled;
}

spec::SandboxSpec compile_run(const std::string& id, const Policy& policy, const std::vector<std::string>& argv,
                              const std::vector<std::string>& env) {
  spec::SandboxSpec spec = common_spec(id, policy);
  // Should the filter be missing, the spec stays without one and sandbox/apply refuses it: no filter, no start.
  (void)set_filter(spec, "exec", extra_calls(policy));
  add_tmp(spec, policy.limits, true);
  for (const std::string& word : argv) spec.add_argv(word);
  for (const std::string& variable : env) set_variable(spec, variable);
  spec.set_cwd("/tmp");
  spec.set_ephemeral(true);
  return spec;
}

}  // namespace kai
