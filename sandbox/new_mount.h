// A file system of its own, mounted nowhere yet (fsopen(2), fsconfig(2), fsmount(2)).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "base/fd.h"
#include "base/result.h"

namespace kai::sandbox {

using MountOption = std::pair<const char*, std::string>;

/// A detached mount of a new file system of `type`; `attributes` are MOUNT_ATTR_*.
Result<Fd> new_mount(const char* type, std::span<const MountOption> options, std::uint64_t attributes);

}  // namespace kai::sandbox
