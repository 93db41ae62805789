// kai-egress as a process: of the host it sees the libraries that it needs to be run, and its network.
#pragma once

#include "base/result.h"
#include "supervisor/keeper/control_process.h"
#include "supervisor/keeper/directories.h"
#include "supervisor/keeper/unprivileged_process.h"

namespace kai::keeper {

/// The channel takes egress.Command, and says nothing.
Result<UnprivilegedProcess> start_egress(const Identity& identity, const Programs& programs);

}  // namespace kai::keeper
