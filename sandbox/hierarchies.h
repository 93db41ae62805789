// Which cgroup hierarchies there are, and where this process stands in each (cgroups(7)).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace kai::sandbox {

struct Hierarchy {
  std::string mount;                     // where it is mounted
  std::string own;                       // the group of this process in it, "/" or "/a/b"
  std::vector<std::string> controllers;  // v1 only
};

struct Hierarchies {
  std::optional<Hierarchy> v2;
  std::vector<Hierarchy> v1;

  [[nodiscard]] const Hierarchy* with(std::string_view controller) const {
    for (const auto& hierarchy : v1) {
      for (const auto& name : hierarchy.controllers) {
        if (name == controller) return &hierarchy;
      }
    }
    return nullptr;
  }
};

/// Reads /proc/self/mountinfo and /proc/self/cgroup.
Result<Hierarchies> find_hierarchies();

/// The directory of the group in which this process stands.
std::string place(const Hierarchy& hierarchy);

std::string join(const std::string& directory, const std::string& name);

/// Whether a list as cgroupfs writes them has `word`.
bool lists(std::string_view list, std::string_view word, char separator);

template <typename Visit>
void for_each_line(std::string_view text, Visit visit) {
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    visit(text.substr(0, end));
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
  }
}

}  // namespace kai::sandbox
