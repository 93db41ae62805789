#include "supervisor/keeper/check.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

#include "base/text.h"
#include "base/unix.h"

namespace kai::keeper {
namespace {

constexpr int kMaxMounts = 64;
constexpr int kMaxArguments = 4096;
constexpr std::size_t kMaxContentBytes = 64 << 10;
constexpr std::uint64_t kMaxTmpfsBytes = 16ULL << 30;
constexpr std::uint64_t kMaxMemoryBytes = 1ULL << 40;
constexpr std::uint32_t kMaxCpuPercent = 100 * 1024;
constexpr std::uint32_t kMaxPids = 1 << 16;
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

Result<> check_source(const spec::Mount& mount) {
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
      return is_name(source) ? Result<>{} : refused("package is not a plain name:");
    case spec::Mount::PROGRAM:
      if (std::find(kProgramSources.begin(), kProgramSources.end(), source) == kProgramSources.end()) {
        return refused("not a program of kAI's:");
      }
      return {};
    case spec::Mount::TMPFS:
    case spec::Mount::PRIVATE:
      if (mount.size_bytes() == 0 || mount.size_bytes() > kMaxTmpfsBytes || mount.inodes() == 0) {
        return failure("a tmpfs needs a size and a number of inodes:", mount.target());
      }
      return (mount.mode() & ~01777U) == 0 ? Result<>{} : failure("mode of a tmpfs:", mount.target());
    case spec::Mount::CONTENT:
      if (mount.content().size() > kMaxContentBytes) return failure("content too long:", mount.target());
      return (mount.mode() & ~0555U) == 0 ? Result<>{} : failure("mode of a content file:", mount.target());
    case spec::Mount::SYMLINK:
      if (source.empty() || source.size() > 1024) return refused("link text of an impossible length:");
      return {};
    case spec::Mount::DESCRIPTOR:
      return {};
    default:
      return failure("mount of an unknown kind:", std::to_string(mount.kind()));
  }
}

// Targets are made in order inside the fresh root: each once, and never through a link that an earlier entry made.
Result<> check_mounts(const spec::SandboxSpec& spec) {
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
    // What is in there may be links of anybody: nothing is made below it.
    const bool made_here = mount.kind() == spec::Mount::TMPFS || mount.kind() == spec::Mount::PRIVATE;
    if (!made_here) links.insert(target);
    if (auto done = check_source(mount); !done) return done;
  }
  return {};
}

Result<> check_rlimits(const spec::SandboxSpec& spec) {
  for (const auto& limit : spec.rlimits()) {
    if (limit.resource() >= RLIM_NLIMITS) return failure("unknown rlimit:", std::to_string(limit.resource()));
    if (limit.soft() > limit.hard()) return failure("rlimit over its own maximum:", std::to_string(limit.resource()));
    const bool privileged = limit.resource() == RLIMIT_NICE || limit.resource() == RLIMIT_RTPRIO;
    if (privileged && limit.hard() != 0) return failure("priority rlimits must be 0");
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
  return check_rlimits(spec);
}

}  // namespace

Result<> check_spec(const spec::SandboxSpec& spec) {
  if (!is_agent_id(spec.agent_id())) return failure("not an agent id");
  if (spec.hostname().empty() || spec.hostname().size() > 64) return failure("hostname of an impossible length");
  if (spec.argv_size() == 0 || spec.argv_size() > kMaxArguments || spec.argv(0).empty()) return failure("no program");
  if (spec.env_size() > kMaxArguments) return failure("too many environment variables");
  if (!is_normalized_absolute(spec.cwd()) && spec.cwd() != "/") return failure("working directory is not a plain path");
  if (spec.seccomp().empty() || spec.seccomp().size() % 8 != 0 || spec.seccomp().size() > kMaxFilterBytes) {
    return failure("no seccomp program, or one of an impossible size");
  }
  if (auto done = check_limits(spec); !done) return done;
  return check_mounts(spec);
}

Result<spec::SandboxSpec> read_spec(const Fd& memfd) {
  constexpr int kNeeded = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  const int seals = fcntl(memfd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kNeeded) != kNeeded) return failure("the spec is not a sealed memfd");
  struct stat status {};
  if (fstat(memfd.get(), &status) < 0) return errno_failure("fstat", "spec");
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size == 0 || size > kMaxSpecBytes) return failure("spec of an impossible size:", std::to_string(size));
  std::string bytes(size, '\0');
  if (pread(memfd.get(), bytes.data(), size, 0) != static_cast<ssize_t>(size)) return errno_failure("pread", "spec");
  spec::SandboxSpec spec;
  if (!spec.ParseFromString(bytes)) return failure("the spec is not a SandboxSpec");
  if (auto done = check_spec(spec); !done) return tl::unexpected(done.error());
  return spec;
}

}  // namespace kai::keeper
