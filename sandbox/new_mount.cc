#include "sandbox/new_mount.h"

#include <linux/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace kai::sandbox {

Result<Fd> new_mount(const char* type, std::span<const MountOption> options, std::uint64_t attributes) {
  const Fd context(static_cast<int>(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC)));
  if (!context) return errno_failure("fsopen", type);
  for (const auto& [key, value] : options) {
    if (syscall(SYS_fsconfig, context.get(), FSCONFIG_SET_STRING, key, value.c_str(), 0) < 0) {
      return errno_failure("fsconfig", std::string(type) + " " + key);
    }
  }
  if (syscall(SYS_fsconfig, context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) < 0) {
    return errno_failure("fsconfig create", type);
  }
  Fd mount(static_cast<int>(syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, attributes)));
  if (!mount) return errno_failure("fsmount", type);
  return mount;
}

}  // namespace kai::sandbox
