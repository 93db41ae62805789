// The postconditions of a sandbox, read back from the kernel in production, before the agent's first instruction.
#pragma once

#include "base/result.h"
#include "sandbox/setup.h"

namespace kai::sandbox {

/// Fails with the first postcondition that does not hold: ids, groups, capabilities, no_new_privs, filter mode,
/// pid 1, own namespaces (the host's network only where it is granted), session, dumpable, death signal, securebits,
/// host name, limits, descriptors, mounts (nothing setuid, no devices but /dev, what is writable is noexec), Landlock.
/// Makes no call that the filter refuses: nobody answers notifications yet.
Result<> verify(const Setup& setup);

}  // namespace kai::sandbox
