#include "policies/compile.h"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <map>

#include "base/text.h"
#include "policies/layout.h"

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
      return "base";
  }
  return "base";
}

/// Each profile is compiled once a process (about a millisecond); the program depends on the profile alone.
const Result<std::string>& compiled_profile(const char* name) {
  static const std::map<std::string, Result<std::string>, std::less<>> programs = [] {
    std::map<std::string, Result<std::string>, std::less<>> made;
    for (const char* each : {"base", "node", "python", "native"}) {
      const SeccompProfile* profile = find_profile(each);
      made.emplace(each, profile != nullptr ? compile_seccomp(*profile) : failure("no seccomp profile", each));
    }
    return made;
  }();
  return programs.find(name)->second;
}

Result<> set_filter(spec::SandboxSpec& spec, const char* profile) {
  const Result<std::string>& program = compiled_profile(profile);
  if (!program) return tl::unexpected(program.error());
  spec.set_profile(profile);
  spec.set_seccomp(*program);
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
      {RLIMIT_NPROC, limits.processes},  // per user namespace: holds even where there is no pids cgroup
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
spec::SandboxSpec common_spec(const std::string& id, const Policy& policy) {
  spec::SandboxSpec spec;
  spec.set_agent_id(id);
  spec.set_hostname(hostname_of(id));
  set_limits(spec, policy);
  add_system_mounts(spec);
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

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

/// The actions of `asked` that one of the policy's rules gives.
std::vector<std::string> granted_actions(const Permission& asked, const Policy& policy) {
  std::vector<std::string> granted;
  for (const std::string& action : asked.actions) {
    const bool given = std::any_of(policy.permissions.begin(), policy.permissions.end(), [&](const Permission& rule) {
      return rule.resource == asked.resource && (rule.scope == "*" || rule.scope == asked.scope) &&
             std::find(rule.actions.begin(), rule.actions.end(), action) != rule.actions.end();
    });
    if (given) granted.push_back(action);
  }
  return granted;
}

void decide_permissions(const Manifest& manifest, const Policy& policy, Compiled& compiled) {
  constexpr std::array<std::string_view, 5> kGoverned = {"file", "network", "agent", "topic", "memory"};
  for (std::size_t at = 0; at < manifest.security.permissions.size(); ++at) {
    const Permission& asked = manifest.security.permissions[at];
    if (std::find(kGoverned.begin(), kGoverned.end(), asked.resource) == kGoverned.end()) {
      compiled.permissions.push_back(asked);  // a label of the agent's own
      continue;
    }
    Permission granted = asked;
    granted.actions = granted_actions(asked, policy);
    if (!granted.actions.empty()) compiled.permissions.push_back(granted);
    if (granted.actions.size() == asked.actions.size()) continue;
    compiled.trimmed.push_back(
        {"/security/permissions/" + std::to_string(at),
         asked.resource + (asked.scope.empty() ? "" : "/" + asked.scope) + " " + joined(asked.actions),
         "policy " + policy.name + " has no rule that grants it; the operator can add one under permissions"});
  }
}

void decide_network(const NetworkPolicy& network, Compiled& compiled) {
  if (!network.allow_outbound) return;
  compiled.trimmed.push_back(
      {"/security/networkAccess/allowOutbound",
       network.allowed_domains.empty() ? "outbound connections" : "connections to " + joined(network.allowed_domains),
       "no network yet: egress is not in this version, the agent has only its own loopback"});
}

void decide_files(const FileAccessPolicy& files, const Policy& policy, Compiled& compiled) {
  for (std::size_t at = 0; at < files.allowed_paths.size(); ++at) {
    compiled.trimmed.push_back(
        {"/security/fileAccess/allowedPaths/" + std::to_string(at), files.allowed_paths[at],
         "backed by memory in this version, " + std::to_string(policy.limits.disk_mb) +
             " MB for all of them, and empty at each start: keep nothing there that has to last"});
  }
}

void decide_memory(Compiled& compiled) {
  compiled.trimmed.push_back(
      {"/memory", "a memory store",
       "memory calls answer UNAVAILABLE in this version: keep state in files or in the process"});
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

Result<Compiled> compile(const Manifest& manifest, const Policy& policy, const Package& package) {
  if (!manifest.security.sandbox && policy.sandbox) {
    return failure("the manifest asks for security.sandbox: false, which policy " + policy.name +
                   " does not allow: set it to true, or let the operator's policy for this agent say sandbox: false");
  }
  Compiled compiled{.spec = common_spec(manifest.id, policy)};
  spec::SandboxSpec& spec = compiled.spec;
  if (auto done = set_filter(spec, profile_of(manifest.runtime.kind)); !done) return tl::unexpected(done.error());
  spec.set_agent_version(manifest.version);
  for (const std::string& capability : manifest.capabilities) spec.add_capabilities(capability);
  spec.set_manifest_json(manifest.json);
  spec.set_runner_protocol(manifest.runtime.protocol == Protocol::kRunner);

  const FileAccessPolicy& files = manifest.security.files;
  const bool lists_tmp =
      std::find(files.allowed_paths.begin(), files.allowed_paths.end(), "/tmp") != files.allowed_paths.end();
  add_tmp(spec, policy.limits, files.temp_file_access || lists_tmp);
  if (!package.directory.empty()) {
    spec::Mount& mount = *spec.add_mounts();
    mount.set_kind(spec::Mount::PACKAGE);
    mount.set_source(package.directory);
    mount.set_target(std::string(kPackageDir));
    mount.set_read_only(true);
  }
  add_runner_mounts(spec, manifest.runtime.kind);
  add_private_mounts(spec, files, policy.limits);

  const std::string& entry = package.entry_override.empty() ? manifest.entry : package.entry_override;
  if (!entry.empty()) {  // empty for kaictl run --manifest: the caller puts its PROGRAM here
    for (std::string& word : command(manifest, policy, std::string(kPackageDir) + "/" + entry)) {
      spec.add_argv(std::move(word));
    }
    for (const std::string& word : manifest.runtime.args) spec.add_argv(word);
  }
  set_environment(spec, manifest);
  spec.set_cwd(package.directory.empty() ? "/tmp" : std::string(kPackageDir));

  decide_files(files, policy, compiled);
  decide_memory(compiled);
  decide_permissions(manifest, policy, compiled);
  decide_network(manifest.security.network, compiled);
  return compiled;
}

spec::SandboxSpec compile_run(const std::string& id, const Policy& policy, const std::vector<std::string>& argv,
                              const std::vector<std::string>& env) {
  spec::SandboxSpec spec = common_spec(id, policy);
  // Should the filter be missing, the spec stays without one and sandbox/apply refuses it: no filter, no start.
  (void)set_filter(spec, "base");
  add_tmp(spec, policy.limits, true);
  for (const std::string& word : argv) spec.add_argv(word);
  for (const std::string& variable : env) set_variable(spec, variable);
  spec.set_cwd("/tmp");
  spec.set_ephemeral(true);
  return spec;
}

}  // namespace kai
