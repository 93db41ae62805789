// kai-control as a process: it sees the system read-only, and of kaid only the state and the runtime directory, at the
// same paths as on the host.
#pragma once

#include <string>

#include "base/result.h"
#include "supervisor/keeper/config.h"
#include "supervisor/keeper/directories.h"
#include "supervisor/keeper/unprivileged_process.h"

namespace kai::keeper {

struct Programs {
  std::string directory;  ///< kai-control, kai-egress, kai-agent-host, kai-native-runner
  std::string sdk;        ///< node and python
};

/// Where this build or installation has its parts: beside kaid with ../sdk, else ../lib/kai and ../share/kai/sdk.
Result<Programs> find_programs();

/// The channel is of proto/keeper.proto.
Result<UnprivilegedProcess> start_control(const Config& config, const Identity& identity, const Programs& programs);

}  // namespace kai::keeper
