// Starts kai-control without privilege: as root, an own uid and gid, no capabilities, and a mount namespace that holds
// the system read-only, and of kaid only the state and the runtime directory, at the same paths as on the host.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "supervisor/keeper/config.h"
#include "supervisor/keeper/directories.h"

namespace kai::keeper {

inline constexpr int kControlChannelFd = 3;

struct ControlProcess {
  pid_t pid = 0;
  Fd pidfd;
  Fd channel;  ///< SOCK_SEQPACKET; proto/keeper.proto
};

struct Programs {
  std::string directory;  ///< kai-control, kai-agent-host, kai-native-runner
  std::string sdk;        ///< node and python
};

/// Where this build or installation has its parts: beside kaid with ../sdk, else ../lib/kai and ../share/kai/sdk.
Result<Programs> find_programs();

Result<ControlProcess> start_control(const Config& config, const Identity& identity, const Programs& programs);

}  // namespace kai::keeper
