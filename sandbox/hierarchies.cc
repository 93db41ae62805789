#include "sandbox/hierarchies.h"

#include <algorithm>

#include "base/unix.h"

namespace kai::sandbox {
namespace {

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

// mountinfo: … root mount-point … - fstype source super-options (proc_pid_mountinfo(5)).
void read_mounts(std::string_view table, Hierarchies& found) {
  for_each_line(table, [&](std::string_view line) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string_view::npos) return;
    const auto left = split(line.substr(0, dash), ' ');
    const auto right = split(line.substr(dash + 3), ' ');
    if (left.size() < 5 || right.size() < 3) return;
    if (right[0] == "cgroup2" && !found.v2) found.v2 = Hierarchy{std::string(left[4]), "/", {}};
    if (right[0] != "cgroup") return;
    Hierarchy hierarchy{std::string(left[4]), "/", {}};
    for (const auto option : split(right[2], ',')) hierarchy.controllers.emplace_back(option);
    found.v1.push_back(std::move(hierarchy));
  });
}

// /proc/self/cgroup: id:controllers:path; v2 is "0::path" (cgroups(7)).
void read_own_groups(std::string_view table, Hierarchies& found) {
  for_each_line(table, [&](std::string_view line) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string_view::npos) return;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const std::string path(line.substr(second + 1));
    if (controllers.empty()) {
      if (found.v2) found.v2->own = path;
      return;
    }
    for (auto& hierarchy : found.v1) {
      const auto& names = hierarchy.controllers;
      const bool same = std::any_of(names.begin(), names.end(),
                                    [&](const std::string& name) { return lists(controllers, name, ','); });
      if (same) hierarchy.own = path;
    }
  });
}

}  // namespace

bool lists(std::string_view list, std::string_view word, char separator) {
  const auto parts = split(list, separator);
  return std::find(parts.begin(), parts.end(), word) != parts.end();
}

Result<Hierarchies> find_hierarchies() {
  auto mounts = read_file("/proc/self/mountinfo");
  if (!mounts) return tl::unexpected(mounts.error());
  auto own = read_file("/proc/self/cgroup");
  if (!own) return tl::unexpected(own.error());
  Hierarchies found;
  read_mounts(*mounts, found);
  read_own_groups(*own, found);
  return found;
}

std::string join(const std::string& directory, const std::string& name) {
  return directory.ends_with('/') ? directory + name : directory + "/" + name;
}

std::string place(const Hierarchy& hierarchy) {
  return hierarchy.own == "/" ? hierarchy.mount : hierarchy.mount + hierarchy.own;
}

}  // namespace kai::sandbox
