#include "supervisor/keeper/check.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <set>
#include <string_view>

#include "base/text.h"
#include "base/unix.h"
#include "supervisor/keeper/check_network.h"

namespace kai::keeper {
namespace {

constexpr int kMaxMounts = 64;
constexpr int kMaxArguments = 4096;
constexpr std::size_t kMaxContentBytes = 64 << 10;
constexpr std::uint64_t kMaxTmpfsBytes = 16ULL << 30;
constexpr std::uint64_t kMaxMemoryBytes = 1ULL << 40;
constexpr std::uint32_t kMaxCpuPercent = 100 * 1024;
constexpr std::uint32_t kMaxPids = 1 << 16;
constexpr std::uint64_t kMinDiskBytes = 64 << 10;
constexpr std::uint64_t kMaxDiskBytes = 1ULL << 40;
constexpr std::uint64_t kMaxInodes = 1 << 24;
constexpr int kMaxTcpPorts = 1024;
constexpr std::size_t kMaxFilterBytes = 4096 * 8;  // BPF_MAXINSNS instructions of 8 bytes

// Host directories and files that a sandbox may see, read-only: the system's programs and what libc needs. Each stands
// for itself and everything below it. None holds secrets on a system that is set up as Debian is.
constexpr std::array<std::string_view, 16> kSystemSources = {"/usr",
                                                             "/bin",
                                                             "/sbin",
                                                             "/lib",
                                                             "/lib32",
                                                             "/lib64",
                                                             "/libx32",
                                                             "/etc/ssl/certs",
                                                             "/etc/ca-certificates",
                                                             "/etc/ld.so.cache",
                                                             "/etc/ld.so.conf",
                                                             "/etc/ld.so.conf.d",
                                                             "/etc/alternatives",
                                                             "/etc/localtime",
                                                             "/etc/timezone",
                                                             "/etc/mime.types"};
constexpr std::array<std::string_view, 3> kProgramSources = {"kai-native-runner", "sdk/node", "sdk/python"};
// What every spec has to limit, and how far. Left out, an agent would have the keeper's own limit.
struct RlimitBounds {
  __rlimit_resource resource;
  const char* name;
  std::uint64_t least, most;
};
constexpr std::array<RlimitBounds, 8> kRlimits = {{{RLIMIT_CORE, "RLIMIT_CORE", 0, 0},
                                                   {RLIMIT_NOFILE, "RLIMIT_NOFILE", 8, 1 << 20},
                                                   {RLIMIT_NPROC, "RLIMIT_NPROC", 1, kMaxPids},
                                                   {RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE", 0, 1 << 20},
                                                   {RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK", 0, 64 << 20},
                                                   {RLIMIT_NICE, "RLIMIT_NICE", 0, 0},
                                                   {RLIMIT_RTPRIO, "RLIMIT_RTPRIO", 0, 0},
                                                   {RLIMIT_SIGPENDING, "RLIMIT_SIGPENDING", 0, 1 << 16}}};
// Where nothing may be mounted: sandbox/apply makes these itself.
constexpr std::array<std::string_view, 2> kReservedTargets = {"/proc", "/dev"};

bool is_or_below(std::string_view path, std::string_view directory) {
  return path == directory || (path.starts_with(directory) && path[directory.size()] == '/');
}

bool is_normalized_absolute(std::string_view path) {
  if (path.size() < 2 || path.size() > 1024 || path[0] != '/' || path.back() == '/') return false;
  if (path.find('\0') != std::string_view::npos) return false;
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t end = std::min(path.find('/', at + 1), path.size());
    const std::string_view part = path.substr(at + 1, end - at - 1);
    if (part.empty() || part == "." || part == "..") return false;
    at = end;
  }
  return true;
}

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

/// ID/HASH, or ID: all versions.
bool is_own_package(std::string_view source, std::string_view agent_id) {
  if (!is_name(agent_id) || !source.starts_with(agent_id)) return false;
  source.remove_prefix(agent_id.size());
  return source.empty() || (source.front() == '/' && is_name(source.substr(1)));
}

/// A name that sandbox/mounts may make in an agent's private data, as policies/layout makes them.
bool is_private_name(std::string_view name) {
  constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
  return is_name(name) && name.find_first_not_of(kLetters) == std::string_view::npos;
}

bool any_policy(const PolicySet& policies, const std::function<bool(const Policy&)>& holds) {
  return std::any_of(policies.policies.begin(), policies.policies.end(), holds);
}

/// Exact text: how the path looks on the host now is sandbox/mounts's question (no links).
Result<> check_host_mount(const spec::Mount& mount, const PolicySet& policies) {
  const std::string& source = mount.source();
  if (!is_normalized_absolute(source)) return failure("host path is not an absolute, plain path");
  const auto maps = [&](const Policy& policy, bool write) {
    return std::any_of(policy.files.begin(), policy.files.end(), [&](const auto& entry) {
      return entry.second.host == source && (entry.second.write || !write);
    });
  };
  if (!any_policy(policies, [&](const Policy& policy) { return maps(policy, false); })) {
    return failure("no operator policy maps this host path (files):", escape_for_terminal(source));
  }
  const auto writes = [&](const Policy& policy) { return maps(policy, true) && policy.grants_power("hostWrite"); };
  if (!mount.read_only() && !any_policy(policies, writes)) {
    return failure("no operator policy lets this host path be written (files with write, and the grant hostWrite):",
                   escape_for_terminal(source));
  }
  return {};
}

/// kaictl run --mount DIR:TARGET:rw. Whose directory it is, kaictl's user has shown by opening it.
Result<> check_writable(const spec::Mount& mount, const PolicySet& policies) {
  const auto writes = [](const Policy& policy) {
    return policy.grants_power("hostMounts") && policy.grants_power("hostWrite");
  };
  if (mount.read_only() || any_policy(policies, writes)) return {};
  return failure("no operator policy has the grants hostMounts and hostWrite for a writable mount:", mount.target());
}

Result<> check_tmpfs(const spec::Mount& mount) {
  if (mount.size_bytes() == 0 || mount.size_bytes() > kMaxTmpfsBytes || mount.inodes() == 0 ||
      mount.inodes() > kMaxInodes) {
    return failure("a tmpfs needs a size and a number of inodes:", mount.target());
  }
  return (mount.mode() & ~01777U) == 0 ? Result<>{} : failure("mode of a tmpfs:", mount.target());
}

Result<> check_source(const spec::Mount& mount, const spec::SandboxSpec& spec, const Allowed& allowed) {
  const std::string& source = mount.source();
  const auto refused = [&](const char* why) { return failure(why, escape_for_terminal(source.substr(0, 200))); };
  switch (mount.kind()) {
    case spec::Mount::SYSTEM: {
      const bool listed = std::any_of(kSystemSources.begin(), kSystemSources.end(),
                                      [&](std::string_view directory) { return is_or_below(source, directory); });
      if (!is_normalized_absolute(source) || !listed) return refused("mount source is not a listed system directory:");
      return {};
    }
    case spec::Mount::PACKAGE:
      return is_own_package(source, spec.agent_id()) ? Result<>{} : refused("not a package of the agent's own:");
    case spec::Mount::PROGRAM:
      if (std::find(kProgramSources.begin(), kProgramSources.end(), source) == kProgramSources.end()) {
        return refused("not a program of kAI's:");
      }
      return {};
    case spec::Mount::TMPFS:
      return check_tmpfs(mount);
    case spec::Mount::PRIVATE:
      if (!is_private_name(source)) return refused("private data is not a plain name:");
      if (!spec.has_disk()) return refused("private data without a limit (disk):");
      return spec.ephemeral() ? refused("a run that leaves nothing behind has no private data:") : Result<>{};
    case spec::Mount::HOST:
      return check_host_mount(mount, allowed.policies);
    case spec::Mount::CONTENT:
      if (mount.content().size() > kMaxContentBytes) return failure("content too long:", mount.target());
      return (mount.mode() & ~0555U) == 0 ? Result<>{} : failure("mode of a content file:", mount.target());
    case spec::Mount::SYMLINK:
      if (source.empty() || source.size() > 1024) return refused("link text of an impossible length:");
      return {};
    case spec::Mount::DESCRIPTOR:
      if (mount.descriptor() >= allowed.descriptors) return failure("its descriptor did not come:", mount.target());
      return check_writable(mount, allowed.policies);
    default:
      return failure("mount of an unknown kind:", std::to_string(mount.kind()));
  }
}

// Targets are made in order inside the fresh root: each once, and never through a link that an earlier entry made.
Result<> check_mounts(const spec::SandboxSpec& spec, const Allowed& allowed) {
  if (spec.mounts_size() > kMaxMounts) return failure("too many mounts:", std::to_string(spec.mounts_size()));
  std::set<std::string_view> seen;
  std::set<std::string_view> links;
  for (const auto& mount : spec.mounts()) {
    const std::string_view target = mount.target();
    if (!is_normalized_absolute(target)) return failure("mount target is not an absolute, plain path");
    const auto covers = [&](std::string_view other) { return is_or_below(target, other); };
    if (std::any_of(kReservedTargets.begin(), kReservedTargets.end(), covers)) {
      return failure("mount target belongs to the sandbox:", mount.target());
    }
    if (std::any_of(links.begin(), links.end(), covers) || !seen.insert(target).second) {
      return failure("mount target is taken, or goes through a link:", mount.target());
    }
    // What is in there may be links of anybody, in private data the agent's own: only in fresh memory something is
    // made.
    if (mount.kind() != spec::Mount::TMPFS) links.insert(target);
    if (auto done = check_source(mount, spec, allowed); !done) return done;
  }
  return {};
}

Result<> check_rlimits(const spec::SandboxSpec& spec) {
  std::map<std::uint32_t, const spec::Rlimit*> limits;
  for (const auto& limit : spec.rlimits()) {
    const std::string number = std::to_string(limit.resource());
    if (limit.resource() >= RLIM_NLIMITS) return failure("unknown rlimit:", number);
    if (limit.soft() > limit.hard()) return failure("rlimit over its own maximum:", number);
    if (!limits.emplace(limit.resource(), &limit).second) return failure("rlimit given twice:", number);
  }
  for (const RlimitBounds& bounds : kRlimits) {
    const auto found = limits.find(static_cast<std::uint32_t>(bounds.resource));
    if (found == limits.end()) return failure("rlimit missing:", bounds.name);
    if (found->second->hard() < bounds.least || found->second->hard() > bounds.most) {
      return failure("rlimit out of bounds:", bounds.name);
    }
  }
  return {};
}

Result<> check_disk(const spec::SandboxSpec& spec) {
  if (!spec.has_disk()) return {};
  if (spec.disk().size_bytes() < kMinDiskBytes || spec.disk().size_bytes() > kMaxDiskBytes) {
    return failure("disk limit out of bounds:", std::to_string(spec.disk().size_bytes()));
  }
  if (spec.disk().inodes() == 0 || spec.disk().inodes() > kMaxInodes) {
    return failure("inode limit out of bounds:", std::to_string(spec.disk().inodes()));
  }
  return {};
}

Result<> check_limits(const spec::SandboxSpec& spec) {
  const auto& cgroup = spec.cgroup();
  if (cgroup.memory_bytes() < (1U << 20) || cgroup.memory_bytes() > kMaxMemoryBytes) {
    return failure("memory limit out of bounds:", std::to_string(cgroup.memory_bytes()));
  }
  if (cgroup.cpu_percent() == 0 || cgroup.cpu_percent() > kMaxCpuPercent) {
    return failure("cpu limit out of bounds:", std::to_string(cgroup.cpu_percent()));
  }
  // Two: agent-host itself and its runner.
  if (cgroup.pids() < 2 || cgroup.pids() > kMaxPids)
    return failure("pids limit out of bounds:", std::to_string(cgroup.pids()));
  if (auto done = check_disk(spec); !done) return done;
  return check_rlimits(spec);
}

/// Two programs of one filter: with notifications, and for where there can be none.
Result<> check_filters(const spec::SandboxSpec& spec) {
  const auto fits = [](const std::string& program) {
    return !program.empty() && program.size() % 8 == 0 && program.size() <= kMaxFilterBytes;
  };
  if (spec.unsandboxed() && spec.seccomp().empty() && spec.seccomp_silent().empty()) return {};
  if (!fits(spec.seccomp())) return failure("no seccomp program, or one of an impossible size");
  if (!fits(spec.seccomp_silent())) return failure("no silent seccomp program, or one of an impossible size");
  return {};
}

/// Each hole needs a policy of the operator's that opens it. Which agent may have it is control's part.
Result<> check_grants(const spec::SandboxSpec& spec, const PolicySet& policies) {
  const auto unsandboxes = [](const Policy& policy) { return !policy.sandbox && policy.grants_power("unsandboxed"); };
  if (spec.unsandboxed() && !any_policy(policies, unsandboxes)) {
    return failure("no operator policy has sandbox: false and the grant unsandboxed");
  }
  const auto opens = [](const Policy& policy) { return policy.grants_power("hostNetwork"); };
  if (spec.host_network() && !spec.unsandboxed() && !any_policy(policies, opens)) {
    return failure("no operator policy has the grant hostNetwork");
  }
  if (spec.tcp_ports_size() > kMaxTcpPorts) return failure("too many ports:", std::to_string(spec.tcp_ports_size()));
  for (const std::uint32_t port : spec.tcp_ports()) {
    if (port == 0 || port > 65535) return failure("no TCP port:", std::to_string(port));
  }
  for (const std::string& layer : spec.degrade()) {
    const auto lists = [&](const Policy& policy) {
      return std::find(policy.degrade.begin(), policy.degrade.end(), layer) != policy.degrade.end();
    };
    if (!any_policy(policies, lists)) {
      return failure("no operator policy lets this layer be missing (degrade):", escape_for_terminal(layer));
    }
  }
  return {};
}

/// Routes and listeners are made in the agent's own network namespace, or not at all.
Result<> check_network(const spec::SandboxSpec& spec, const PolicySet& policies) {
  if (!spec.has_network()) return {};
  if (spec.host_network() || spec.unsandboxed()) return failure("network rules for an agent in the host's network");
  return check_rules(spec.network(), spec.agent_id(), policies);
}

}  // namespace

Result<> check_spec(const spec::SandboxSpec& spec, const Allowed& allowed) {
  if (!is_agent_id(spec.agent_id())) return failure("not an agent id");
  if (spec.hostname().empty() || spec.hostname().size() > 64) return failure("hostname of an impossible length");
  if (spec.argv_size() == 0 || spec.argv_size() > kMaxArguments || spec.argv(0).empty()) return failure("no program");
  if (spec.env_size() > kMaxArguments) return failure("too many environment variables");
  if (!is_normalized_absolute(spec.cwd()) && spec.cwd() != "/") return failure("working directory is not a plain path");
  if (auto done = check_filters(spec); !done) return done;
  if (auto done = check_grants(spec, allowed.policies); !done) return done;
  if (auto done = check_limits(spec); !done) return done;
  if (auto done = check_network(spec, allowed.policies); !done) return done;
  return check_mounts(spec, allowed);
}

Result<std::string> check_service(const std::string& address, const PolicySet& policies) {
  constexpr std::string_view kUnix = "unix:";
  const auto has = [&](const Policy& policy) {
    return std::any_of(policy.services.begin(), policy.services.end(),
                       [&](const auto& service) { return service.second == address; });
  };
  if (!address.starts_with(kUnix) || !any_policy(policies, has)) {
    return failure("no operator policy has a service at this Unix socket (services):",
                   escape_for_terminal(address.substr(0, 200)));
  }
  return address.substr(kUnix.size());
}

Result<std::string> read_sealed(const Fd& memfd, const std::string& what, std::size_t most) {
  constexpr int kNeeded = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  const int seals = fcntl(memfd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kNeeded) != kNeeded) return failure("the " + what + " is not a sealed memfd");
  struct stat status {};
  if (fstat(memfd.get(), &status) < 0) return errno_failure("fstat", what);
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size == 0 || size > most) return failure(what + " of an impossible size:", std::to_string(size));
  std::string bytes(size, '\0');
  if (pread(memfd.get(), bytes.data(), size, 0) != static_cast<ssize_t>(size)) return errno_failure("pread", what);
  return bytes;
}

Result<spec::SandboxSpec> read_spec(const Fd& memfd, const Allowed& allowed) {
  const auto bytes = read_sealed(memfd, "spec", kMaxSpecBytes);
  if (!bytes) return tl::unexpected(bytes.error());
  spec::SandboxSpec spec;
  if (!spec.ParseFromString(*bytes)) return failure("the spec is not a SandboxSpec");
  if (auto done = check_spec(spec, allowed); !done) return tl::unexpected(done.error());
  return spec;
}

}  // namespace kai::keeper
