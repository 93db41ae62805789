// Whether a new version can run in the process of the one before it: a sandbox, its environment and its command line
// are made once.
#include <algorithm>
#include <string>
#include <vector>

#include <google/protobuf/repeated_ptr_field.h>

#include "policies/decide.h"
#include "policies/layout.h"
#include "policies/manifest_names.h"
#include "policies/upgrade_path.h"
#include "policies/wording.h"

namespace kai {
namespace {

template <typename Message>
bool same_messages(const google::protobuf::RepeatedPtrField<Message>& a,
                   const google::protobuf::RepeatedPtrField<Message>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Message& x, const Message& y) { return x.SerializeAsString() == y.SerializeAsString(); });
}

template <typename Value>
bool same(const Value& a, const Value& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

/// The interpreter with its options and the runner: argv but for the entry and the manifest's own arguments.
std::vector<std::string> runner_command(const Manifest& manifest, const spec::SandboxSpec& spec) {
  std::vector<std::string> words(spec.argv().begin(), spec.argv().end());
  const std::size_t own = std::min(words.size(), manifest.runtime.args.size() + 1);
  words.resize(words.size() - own);
  return words;
}

/// /agent is another package for each version, and the way of a soft upgrade goes round it.
std::string mount_text(const spec::Mount& mount) {
  spec::Mount text = mount;
  if (text.kind() == spec::Mount::PACKAGE && text.target() == kPackageDir) text.clear_source();
  return text.SerializeAsString();
}

/// Where the first mounted file or directory differs; empty: none does.
std::string other_mount(const spec::SandboxSpec& from, const spec::SandboxSpec& to) {
  const int count = std::max(from.mounts_size(), to.mounts_size());
  for (int at = 0; at < count; ++at) {
    if (at >= from.mounts_size()) return to.mounts(at).target();
    if (at >= to.mounts_size()) return from.mounts(at).target();
    if (mount_text(from.mounts(at)) != mount_text(to.mounts(at))) return to.mounts(at).target();
  }
  return {};
}

bool same_limits(const spec::SandboxSpec& a, const spec::SandboxSpec& b) {
  return same_messages(a.rlimits(), b.rlimits()) && same(a.degrade(), b.degrade()) &&
         a.cgroup().SerializeAsString() == b.cgroup().SerializeAsString() &&
         a.disk().SerializeAsString() == b.disk().SerializeAsString();
}

bool same_network(const spec::SandboxSpec& a, const spec::SandboxSpec& b) {
  return a.has_network() == b.has_network() && a.host_network() == b.host_network() &&
         same(a.tcp_ports(), b.tcp_ports()) && a.network().SerializeAsString() == b.network().SerializeAsString();
}

bool same_filter(const spec::SandboxSpec& a, const spec::SandboxSpec& b) {
  return a.profile() == b.profile() && a.seccomp() == b.seccomp() && a.seccomp_silent() == b.seccomp_silent();
}

/// What of the spec is looked at above, or belongs to the version and is told to it anew.
void clear_known(spec::SandboxSpec& spec) {
  spec.clear_agent_version();
  spec.clear_capabilities();
  spec.clear_manifest_json();
  spec.clear_argv();
  spec.clear_env();
  spec.clear_mounts();
  spec.clear_rlimits();
  spec.clear_degrade();
  spec.clear_cgroup();
  spec.clear_disk();
  spec.clear_network();
  spec.clear_host_network();
  spec.clear_tcp_ports();
  spec.clear_profile();
  spec.clear_seccomp();
  spec.clear_seccomp_silent();
  spec.clear_crypto();
}

/// So that a field that comes to the spec later is not overlooked here.
bool same_rest(spec::SandboxSpec a, spec::SandboxSpec b) {
  clear_known(a);
  clear_known(b);
  return a.SerializeAsString() == b.SerializeAsString();
}

bool loads_versions(const Manifest& manifest) {
  return manifest.runtime.protocol == Protocol::kRunner && manifest.runtime.kind != RuntimeKind::kExec;
}

std::string kind_of(const Manifest& manifest) {
  return std::string(manifest::name_of<RuntimeKind>(manifest::kRuntimeKinds, manifest.runtime.kind));
}

std::vector<std::string> differences(const Manifest& from, const Compiled& from_compiled, const Manifest& to,
                                     const Compiled& to_compiled) {
  const spec::SandboxSpec& a = from_compiled.spec;
  const spec::SandboxSpec& b = to_compiled.spec;
  std::vector<std::string> found;
  const auto add = [&found](bool same, const std::string& what) {
    if (!same) found.push_back(what);
  };
  add(runner_command(from, a) == runner_command(to, b), "the options of its runner");
  add(from.runtime.args == to.runtime.args, "its arguments (runtime.args)");
  add(same(a.env(), b.env()), "its environment (runtime.env)");
  const std::string mount = other_mount(a, b);
  add(mount.empty(), "its files (" + shown(mount) + ")");
  add(same_network(a, b), "its network rules (security.networkAccess)");
  add(same_limits(a, b), "its limits");
  add(same_filter(a, b), "its filter of system calls");
  add(from.memory.type == to.memory.type && from.memory.backend == to.memory.backend,
      "its memory (memory.type, memory.backend)");
  add(a.crypto() == b.crypto(), "the key of its channel (security.crypto)");
  add(same_rest(a, b), "its sandbox");
  return found;
}

}  // namespace

std::string needs_new_process(const Manifest& from, const Compiled& from_compiled, const Manifest& to,
                              const Compiled& to_compiled) {
  if (from.runtime.kind != to.runtime.kind) {
    return "it has another runtime: " + kind_of(to) + " instead of " + kind_of(from);
  }
  if (!loads_versions(from) || !loads_versions(to)) {
    return from.runtime.kind == RuntimeKind::kExec
               ? "it is a program of its own (runtime.kind exec), which cannot load another version beside itself"
               : "without the runner protocol (runtime.protocol none) nobody can ask it to load another version";
  }
  const std::vector<std::string> found = differences(from, from_compiled, to, to_compiled);
  if (found.empty()) return {};
  return "what a process gets once, when it is made, differs: " + joined(found);
}

}  // namespace kai
