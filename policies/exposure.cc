#include "policies/exposure.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "policies/network_rules.h"

namespace kai {
namespace {

// The most that all items together can have stays below 10, and what a sandbox can lose beside the layers that an
// unsandboxed agent keeps stays below kUnsandboxed: opening anything never lowers the score.
constexpr double kUnsandboxed = 8.0;
constexpr double kNoFilter = 2.0;
constexpr double kMostExtraCalls = 1.0;
constexpr double kMostReadableMounts = 0.6;
constexpr double kMostWritableMounts = 1.2;
constexpr double kHostNetwork = 1.5;
constexpr double kNamedNetwork = 0.5;
constexpr double kMostNames = 0.2;
constexpr double kAnyNetwork = 0.3;
constexpr double kHostMounts = 0.05;
constexpr double kPrivateData = 0.1;
constexpr double kMostPerLimit = 0.1;

struct Layer {
  std::string_view name;
  double points;
  bool with_unsandboxed;  ///< an unsandboxed agent has this layer too
  const char* reason;
};
constexpr std::array<Layer, 6> kLayers = {{
    {"cgroup", 0.8, true, "no cgroup: memory is held by a watchdog that can come late, cpu by nothing"},
    {"landlock", 0.6, false, "no Landlock: files are held by mounts and permissions alone"},
    {"seccompNotify", 0.3, false, "no notifications: refused system calls are not seen by the operator"},
    {"disk", 0.3, false, "no quota: private data is measured, and held only after it has grown"},
    {"groups", 0.3, true, "the supplementary groups of kaid's user are not dropped"},
    {"io", 0.1, true, "no io limits: the agent can take the disk's whole bandwidth"},
}};

/// 0, most/2, 2/3 most …: each one more counts, all together less than `most`.
double share(std::size_t count, double most) {
  const auto n = static_cast<double>(count);
  return most * n / (n + 1);
}

double rounded(double points) {
  return std::round(points * 1000) / 1000;
}

class Items {
 public:
  void add(std::string name, double points, std::string reason) {
    points = rounded(points);
    if (points > 0) exposure_.items.push_back({std::move(name), points, std::move(reason)});
  }
  /// A limit beyond the built-in one; below it, nothing.
  void add_limit(const char* name, double value, double standard) {
    if (value <= standard) return;
    add(std::string("limits.") + name, kMostPerLimit * (1 - standard / value), "raised above the built-in default");
  }
  Exposure take() {
    double sum = 0;
    for (const Exposure::Item& item : exposure_.items) sum += item.points;
    exposure_.score = rounded(sum);
    return std::move(exposure_);
  }

 private:
  Exposure exposure_;
};

/// What a profile allows, by the number of things that its runtime needs beyond libc.
double surface_of(const std::string& profile) {
  if (profile == "node") return 0.3;
  if (profile == "python") return 0.25;
  return 0.2;
}

void add_mounts(const spec::SandboxSpec& spec, Items& items) {
  std::size_t readable = 0;
  std::size_t writable = 0;
  bool own = false;
  for (const spec::Mount& mount : spec.mounts()) {
    const bool of_host = mount.kind() == spec::Mount::HOST || mount.kind() == spec::Mount::DESCRIPTOR;
    if (of_host) ++(mount.read_only() ? readable : writable);
    own = own || (mount.kind() == spec::Mount::PRIVATE && !mount.read_only());
  }
  if (own) items.add("private data", kPrivateData, "keeps files over restarts");
  items.add("host files", share(readable, kMostReadableMounts),
            std::to_string(readable) + " of the host's paths can be read");
  items.add("host files, writable", share(writable, kMostWritableMounts),
            std::to_string(writable) + " of the host's paths can be written");
}

void add_network(const spec::SandboxSpec& spec, Items& items) {
  if (spec.host_network()) {
    items.add("hostNetwork", kHostNetwork,
              "the host's network: its loopback services, TCP on network.ports, UDP anywhere");
  }
  const egress::Rules& rules = spec.network();
  const std::size_t names = reachable_names(rules).size();
  const auto blocks = reaches_addresses(rules) ? static_cast<std::size_t>(rules.cidrs_size()) : 0;
  if (names + blocks == 0) return;
  items.add("network", kNamedNetwork + share(names + blocks, kMostNames),
            "reaches the hosts that it is allowed by name");
  const auto is_anything = [](const egress::Pattern& pattern) { return pattern.name().empty(); };
  if (names > 0 && std::any_of(rules.allowed().begin(), rules.allowed().end(), is_anything)) {
    items.add("network: any name", kAnyNetwork, "allowedDomains has *: the manifest alone says where it goes");
  }
}

void add_limits(const spec::SandboxSpec& spec, const Policy& policy, Items& items) {
  const Policy standard = builtin_policy(false);
  items.add_limit("memory", static_cast<double>(spec.cgroup().memory_bytes() >> 20), standard.memory_limit_mb);
  items.add_limit("cpu", spec.cgroup().cpu_percent(), standard.cpu_limit_percent);
  items.add_limit("processes", spec.cgroup().pids(), standard.limits.processes);
  items.add_limit("openFiles", policy.limits.open_files, standard.limits.open_files);
  items.add_limit("disk", policy.limits.disk_mb, standard.limits.disk_mb);
}

void add_seccomp(const spec::SandboxSpec& spec, const Policy& policy, Items& items) {
  if (spec.seccomp().empty()) {
    items.add("seccomp", kNoFilter, "no filter: every system call of the kernel can be reached");
    return;
  }
  items.add("system calls", surface_of(spec.profile()), "what profile " + spec.profile() + " allows of the kernel");
  const auto calls =
      static_cast<std::size_t>(std::count_if(policy.grants.begin(), policy.grants.end(),
                                             [](const std::string& grant) { return grant.starts_with("syscalls:"); }));
  items.add("syscalls", share(calls, kMostExtraCalls), std::to_string(calls) + " system calls beyond the profile");
}

}  // namespace

Exposure exposure_of(const spec::SandboxSpec& spec, const Policy& policy, const std::vector<std::string>& degraded) {
  Items items;
  if (spec.unsandboxed()) {
    items.add("unsandboxed", kUnsandboxed, "the host's files and network as an unprivileged user, and no filter");
  } else {
    add_seccomp(spec, policy, items);
    add_mounts(spec, items);
    add_network(spec, items);
  }
  for (const Layer& layer : kLayers) {
    const bool missing = std::find(degraded.begin(), degraded.end(), layer.name) != degraded.end();
    if (missing && (layer.with_unsandboxed || !spec.unsandboxed())) {
      items.add(std::string(layer.name), layer.points, layer.reason);
    }
  }
  add_limits(spec, policy, items);
  if (policy.grants_power("hostMounts")) {
    items.add("hostMounts", kHostMounts, "an operator may mount host directories in runs under this policy");
  }
  return items.take();
}

}  // namespace kai
