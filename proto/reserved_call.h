// One system call that every filter refuses and that means something to control alone. A notification that a control
// had received is never seen again when that control dies (seccomp_unotify(2)), and its process would wait for ever. So
// agent-host, told of a new control, makes this call; the new control takes its notification, whose number tells it
// those of every one before (the kernel counts them up by one in each filter), and answers them all.
#pragma once

#include <cstdint>

namespace kai {

/// seccomp(kReservedOperation, 0, nullptr): EPERM from control; EINVAL where there is no filter, as no kernel knows it.
/// Who else makes it learns and gets nothing.
inline constexpr std::uint32_t kReservedOperation = 0x6b6149;

}  // namespace kai
