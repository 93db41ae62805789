// The ends of processes. As PID 1 agent-host inherits every orphan of the sandbox, and collects them all.
#pragma once

#include <sys/types.h>

#include <optional>

namespace kai {

/// How a process ended.
struct ProcessEnd {
  bool signaled = false;
  int code = 0;  ///< exit status, or the signal's number

  /// As a shell says it: the code, or 128 + the signal.
  [[nodiscard]] int status() const { return signaled ? 128 + code : code; }
};

/// Collects all children that have ended. The runner's end, if it was among them.
std::optional<ProcessEnd> reap(pid_t runner);

/// SIGKILL to all of the sandbox, and waits until all have ended; then nothing is left but this process. The runner's
/// end, if it was among them. (Where this process is not PID 1 of its own pid namespace, -1 would be the whole machine:
/// only the runner's group is killed.)
std::optional<ProcessEnd> kill_everything(pid_t runner);

}  // namespace kai
