// A unit of systemd's whose control group (v2) is there for groups of this program's, beside the unit that it runs in.
#pragma once

#include <string>

namespace kai::sandbox {

/// Whether `group` is one that systemd has handed over to root's programs, and now holds no process of its own: what
/// keeps the unit there is moved to a leaf.
bool take_delegated_unit(const std::string& group);

}  // namespace kai::sandbox
