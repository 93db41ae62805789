// Landlock: a second opinion of the kernel about files, behind the mounts and independent of them (landlock(7)).
#pragma once

#include "base/result.h"
#include "sandbox/setup.h"

namespace kai::sandbox {

/// Step: enters a domain that follows from the spec's mounts. Read and execute where programs are, read where data is,
/// write where a mount is writable, never execute there. With the host's network: TCP connections to the spec's ports
/// alone, and no bind. Everything that this kernel's ABI knows is handled; what it does not know is left to the other
/// layers. A kernel without Landlock is an error, unless the spec's degrade has `landlock`.
Result<> enter_landlock(Setup& setup);

/// For verify: a file that mode and mount let be written, and Landlock alone does not. Fails where that can be opened.
Result<> verify_landlock();

}  // namespace kai::sandbox
