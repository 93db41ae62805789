// Starts the agent's program: the only fork and exec of agent-host.
#pragma once

#include <sys/types.h>

#include <string>

#include <tl/expected.hpp>

#include "base/fd.h"
#include "proto/sandbox_spec.pb.h"

namespace kai {

struct Runner {
  pid_t pid = 0;  ///< also its session and process group
  Fd channel;     ///< with the runner protocol: our end of the runner's descriptor 3
};

/// Why there is no runner.
struct RunnerFailure {
  int error_number = 0;
  std::string message;     ///< what was tried, and what to look at; the errno's own text is the reader's to add
  bool not_found = false;  ///< the program is not there: exit status 127 instead of 126
};

/// Forks and execs spec.argv in spec.cwd with spec.env (plus KAI_RUNNER_FD=3), in a session of its own, with default
/// signal dispositions, no signal blocked, and no descriptor but 0, 1, 2 and, with the runner protocol, 3. Returns when
/// the program has been exec'd or could not be.
tl::expected<Runner, RunnerFailure> start_runner(const spec::SandboxSpec& spec);

}  // namespace kai
