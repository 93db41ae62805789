// Control groups: which backend there is, and whether this process may make groups below its own. The one group that
// is made is removed again; groups of others are not touched.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "base/unix.h"
#include "supervisor/doctor/check.h"
#include "supervisor/doctor/probe.h"

namespace kai::doctor {
namespace {

constexpr std::array<std::string_view, 3> kControllers = {"memory", "cpu", "pids"};

std::vector<std::string_view> split(std::string_view text, std::string_view separators) {
  std::vector<std::string_view> parts;
  for (std::size_t at = 0; (at = text.find_first_not_of(separators, at)) != std::string_view::npos;) {
    const std::size_t end = std::min(text.find_first_of(separators, at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end;
  }
  return parts;
}

bool holds(const std::vector<std::string_view>& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

/// Where the hierarchy with `controller` is mounted; "" for v2. From /proc/self/mountinfo (proc_pid_mountinfo(5)).
std::optional<std::string> mount_of(std::string_view mountinfo, std::string_view controller) {
  for (const std::string_view line : split(mountinfo, "\n")) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string_view::npos) continue;
    const auto left = split(line.substr(0, dash), " ");
    const auto right = split(line.substr(dash + 3), " ");
    if (left.size() < 5 || right.size() < 3) continue;
    const bool found =
        controller.empty() ? right[0] == "cgroup2" : right[0] == "cgroup" && holds(split(right[2], ","), controller);
    if (found) return std::string(left[4]);
  }
  return std::nullopt;
}

/// Our own group below that mount. /proc/self/cgroup: id:controllers:path, v2 is "0::path" (cgroups(7)).
std::string own_group(std::string_view groups, std::string_view controller) {
  for (const std::string_view line : split(groups, "\n")) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view names = line.substr(first + 1, second - first - 1);
    const bool found = controller.empty() ? names.empty() : holds(split(names, ","), controller);
    if (found) return std::string(line.substr(second + 1));
  }
  return "/";
}

/// Makes and removes one group; the error says where and why it could not. `kill`: it must have cgroup.kill.
Result<> try_group(const std::string& parent, bool kill) {
  const std::string group = parent + (parent.ends_with('/') ? "" : "/") + "kai-doctor-" + std::to_string(getpid());
  if (mkdir(group.c_str(), 0755) < 0) return errno_failure("make a group in", parent);
  const bool can_kill = access((group + "/cgroup.kill").c_str(), F_OK) == 0;
  if (rmdir(group.c_str()) < 0) return errno_failure("remove the group", group);
  if (kill && !can_kill) return failure("the kernel has no cgroup.kill (Linux 5.14)");
  return {};
}

struct Finding {
  std::string backend = "none";
  std::string fault;  // empty: usable
};

Finding look_at_v2(const std::string& mount, const std::string& own) {
  Finding finding{"v2", ""};
  const std::string group = own == "/" ? mount : mount + own;
  // Root makes its groups at the top of the tree, an ordinary user only where they were delegated.
  const auto list = read_file((geteuid() == 0 ? mount : group) + "/cgroup.controllers");
  std::string absent;
  for (const auto controller : kControllers) {
    if (!list || !holds(split(*list, " \n"), controller)) absent += " " + std::string(controller);
  }
  if (!absent.empty()) finding.fault = "controllers not delegated:" + absent;
  if (auto tried = try_group(group, true); !tried) finding.fault = tried.error().message();
  return finding;
}

Finding look_at_hybrid(std::string_view mountinfo, std::string_view groups, const std::string& unified) {
  Finding finding{"hybrid", ""};
  const auto place = [&](const std::string& mount, std::string_view controller) {
    const std::string own = own_group(groups, controller);
    return own == "/" ? mount : mount + own;
  };
  for (const auto controller : kControllers) {
    const auto mount = mount_of(mountinfo, controller);
    if (!mount) return {"none", "no hierarchy has the controller " + std::string(controller)};
    if (auto tried = try_group(place(*mount, controller), false); !tried) finding.fault = tried.error().message();
  }
  if (auto tried = try_group(place(unified, ""), true); !tried) finding.fault = tried.error().message();
  return finding;
}

Finding look() {
  const auto mountinfo = read_file("/proc/self/mountinfo");
  const auto groups = read_file("/proc/self/cgroup");
  if (!mountinfo || !groups) return {"none", "cannot read /proc/self/mountinfo and /proc/self/cgroup"};
  const auto unified = mount_of(*mountinfo, "");
  if (!unified) return {"none", "no cgroup2 is mounted"};
  const auto top = read_file(*unified + "/cgroup.controllers");
  if (top && holds(split(*top, " \n"), "memory")) return look_at_v2(*unified, own_group(*groups, ""));
  return look_at_hybrid(*mountinfo, *groups, *unified);
}

}  // namespace

void check_cgroups(Checks& checks) {
  const Finding finding = look();
  Check check{"cgroups", Status::kOk, finding.backend + ", groups can be made", ""};
  if (!finding.fault.empty()) {
    // An ordinary user's default policy has degrade: cgroup; root's has not.
    const bool root = geteuid() == 0;
    check.status = root ? Status::kMissing : Status::kDegraded;
    check.detail = finding.backend + ", but " + finding.fault +
                   (root ? "" : "; memory is then watched, and processes are held by an rlimit");
    check.remedy = root ? "mount cgroup2 writable at /sys/fs/cgroup (in a container: give it its own, writable tree)"
                        : "start kaid in a delegated scope: systemd-run --user --scope -p Delegate=yes kaid; "
                          "or run it as root";
  }
  checks.push_back(std::move(check));
}

}  // namespace kai::doctor
