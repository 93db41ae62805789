// What kai-egress gives up before it reads its first byte: it is a relay of hostile bytes, and needs sockets, pipes and
// clocks alone.
#pragma once

#include "base/result.h"

namespace kai::egress {

/// From here on no file can be opened (Landlock, where the kernel has it, and the filter), no program run, no socket
/// made but of TCP and UDP, no other process seen or signalled. What is refused fails with EPERM.
Result<> confine();

}  // namespace kai::egress
