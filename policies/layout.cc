#include "policies/layout.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "policies/manifest_formats.h"

namespace kai {
namespace {

// Of all the memory that stands for private data in an ephemeral sandbox: what the keeper lets a tmpfs have.
constexpr std::uint64_t kMaxMemoryDiskBytes = 16ULL << 30;

bool is_alphanumeric(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

spec::Mount& add(spec::SandboxSpec& spec, spec::Mount::Kind kind, std::string_view source, std::string_view target) {
  spec::Mount& mount = *spec.add_mounts();
  mount.set_kind(kind);
  mount.set_source(std::string(source));
  mount.set_target(std::string(target));
  mount.set_read_only(kind != spec::Mount::TMPFS && kind != spec::Mount::PRIVATE);
  return mount;
}

void add_content(spec::SandboxSpec& spec, std::string_view target, std::string content) {
  add(spec, spec::Mount::CONTENT, {}, target).set_content(std::move(content));
}

bool is_inside(std::string_view path, std::string_view directory) {
  return path.size() > directory.size() && path.starts_with(directory) && path[directory.size()] == '/';
}

bool lists(const FileAccessPolicy& files, std::string_view path) {
  return std::find(files.allowed_paths.begin(), files.allowed_paths.end(), path) != files.allowed_paths.end();
}

}  // namespace

std::string hostname_of(std::string_view id) {
  std::string name(id.substr(0, 63));
  for (char& c : name) {
    if (!is_alphanumeric(c)) c = '-';
  }
  while (name.ends_with('-')) name.pop_back();
  return name.empty() ? "agent" : name;
}

void add_system_mounts(spec::SandboxSpec& spec, const std::map<std::string, std::string>& hosts) {
  add(spec, spec::Mount::SYSTEM, "/usr", "/usr");
  // Merged /usr, as every supported distribution has it.
  for (const std::string_view name : {"bin", "sbin", "lib", "lib64"}) {
    add(spec, spec::Mount::SYMLINK, "usr/" + std::string(name), "/" + std::string(name));
  }
  // The linker's cache, TLS roots, what /usr/bin links to through /etc, the time zone. Nothing else of the host's /etc.
  for (const std::string_view path : {"/etc/ld.so.cache", "/etc/ssl/certs", "/etc/alternatives", "/etc/localtime"}) {
    add(spec, spec::Mount::SYSTEM, path, path).set_optional(true);
  }
  // 1000 is sandbox::kAgentUid, which this folder may not include.
  add_content(spec, "/etc/passwd",
              "root:x:0:0:root:/:/usr/sbin/nologin\n"
              "agent:x:1000:1000:agent:/tmp:/bin/sh\n"
              "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n");
  add_content(spec, "/etc/group", "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n");
  std::string names = "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 " + spec.hostname() + "\n";
  for (const auto& [name, address] : hosts) names += address + " " + name + "\n";
  add_content(spec, "/etc/hosts", std::move(names));
  add_content(spec, "/etc/hostname", spec.hostname() + "\n");
  // Egress answers there where the agent has a network: at once where it refuses, and else within the 8 s that name
  // servers outside have. Where the agent has none, nobody is there, and a lookup is refused at once.
  add_content(spec, "/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:10 attempts:1\n");
  add_content(spec, "/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n");
}

void add_tmp(spec::SandboxSpec& spec, const Limits& limits, bool full) {
  full = full && limits.tmp_mb > 0;
  spec::Mount& mount = add(spec, spec::Mount::TMPFS, {}, "/tmp");
  mount.set_size_bytes(full ? std::uint64_t{limits.tmp_mb} << 20 : kBareTmpBytes);
  mount.set_inodes(full ? limits.inodes : kBareTmpInodes);
  mount.set_mode(01777);
}

void add_runner_mounts(spec::SandboxSpec& spec, RuntimeKind kind) {
  switch (kind) {
    case RuntimeKind::kNode:
      add(spec, spec::Mount::PROGRAM, "sdk/node", kNodeSdkDir);
      return;
    case RuntimeKind::kPython:
      add(spec, spec::Mount::PROGRAM, "sdk/python", kPythonSdkDir);
      return;
    case RuntimeKind::kNative:
      add(spec, spec::Mount::PROGRAM, "kai-native-runner", kNativeRunner);
      return;
    case RuntimeKind::kExec:
      return;
  }
}

std::vector<PathPlan> plan_paths(const FileAccessPolicy& files, const Policy& policy) {
  std::vector<PathPlan> plans;
  for (const std::string& path : files.allowed_paths) {
    PathPlan plan{.path = path, .read_only = files.read_only};
    const auto mapped = policy.files.find(path);
    const bool is_mapped = mapped != policy.files.end();
    // /tmp is fresh memory in which the agent has not been yet: what stands inside it can be mounted safely.
    const auto outer = std::find_if(files.allowed_paths.begin(), files.allowed_paths.end(), [&](const auto& other) {
      return is_inside(path, other) && (other != "/tmp" || policy.files.contains(other));
    });
    if (manifest::allowed_path_fault(path) != nullptr) {
      plan.kind = PathPlan::Kind::kReserved;
    } else if (outer != files.allowed_paths.end()) {
      plan.kind = is_mapped ? PathPlan::Kind::kHidden : PathPlan::Kind::kInside;
      plan.inside = *outer;
    } else if (is_mapped) {
      plan.kind = PathPlan::Kind::kHost;
      plan.host = &mapped->second;
      plan.read_only = files.read_only || !mapped->second.write || !policy.grants_power("hostWrite");
    } else if (path == "/tmp" || (is_inside(path, "/tmp") && lists(files, "/tmp"))) {
      plan.kind = PathPlan::Kind::kTmp;
    } else if (policy.limits.disk_mb == 0) {
      plan.kind = PathPlan::Kind::kNoDisk;
    }
    plans.push_back(std::move(plan));
  }
  return plans;
}

void add_path_mounts(spec::SandboxSpec& spec, const std::vector<PathPlan>& plans, const Limits& limits,
                     bool ephemeral) {
  const auto count = static_cast<std::uint64_t>(std::count_if(
      plans.begin(), plans.end(), [](const PathPlan& plan) { return plan.kind == PathPlan::Kind::kPrivate; }));
  const std::uint64_t bytes = std::uint64_t{limits.disk_mb} << 20;
  for (const PathPlan& plan : plans) {
    if (plan.kind == PathPlan::Kind::kHost) {
      add(spec, spec::Mount::HOST, plan.host->host, plan.path).set_read_only(plan.read_only);
    } else if (plan.kind == PathPlan::Kind::kPrivate && ephemeral) {
      spec::Mount& mount = add(spec, spec::Mount::TMPFS, {}, plan.path);
      mount.set_read_only(plan.read_only);
      mount.set_size_bytes(std::min(bytes, kMaxMemoryDiskBytes) / count);
      mount.set_inodes(std::max<std::uint64_t>(limits.inodes / count, 1));
    } else if (plan.kind == PathPlan::Kind::kPrivate) {
      add(spec, spec::Mount::PRIVATE, private_directory_name(plan.path), plan.path).set_read_only(plan.read_only);
      spec.mutable_disk()->set_size_bytes(bytes);
      spec.mutable_disk()->set_inodes(limits.inodes);
    }
  }
}

std::string private_directory_name(std::string_view path) {
  constexpr std::size_t kLongest = 200;  // well below NAME_MAX
  std::string name;
  for (const char c : path.substr(path.find_first_not_of('/'))) {
    if (c == '/') {
      name += "__";
    } else if (is_alphanumeric(c) || (!name.empty() && (c == '.' || c == '-'))) {
      name += c;
    } else {
      std::array<char, 4> escaped;
      (void)std::snprintf(escaped.data(), escaped.size(), "_%02x",
                          static_cast<unsigned>(static_cast<unsigned char>(c)));
      name += escaped.data();
    }
  }
  if (name.size() <= kLongest) return name;
  // FNV-1a: a collision would only join two directories of the same agent.
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char c : path) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  std::array<char, 20> suffix;
  (void)std::snprintf(suffix.data(), suffix.size(), "-%016llx", static_cast<unsigned long long>(hash));
  return name.substr(0, kLongest - 17) + suffix.data();
}

}  // namespace kai
