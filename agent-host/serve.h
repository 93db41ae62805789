// What kai-agent-host does once it is confined and verified: it runs the agent's program (the runner) as PID 1 of the
// agent's sandbox, and translates between KLP (control's side) and the runner protocol (the agent's side).
//
// The folder, file by file: serve (the loop) → bridge* (the state machine) between klp_link (frames) and
// rpc_channel/json_rpc (lines); reconnect (the keeper); runner and reap (processes); signing (the agent's key);
// klp_message, health, json_view, json_text (the data).
// One thread, no libuv: an idle agent-host is measured in kilobytes, and there is one per agent.
#pragma once

#include "base/fd.h"
#include "proto/sandbox_spec.pb.h"

namespace kai {

/// To the supervisor.
struct SupervisorLinks {
  Fd klp;     ///< connected stream socket to control
  Fd keeper;  ///< SOCK_SEQPACKET, where the keeper brings a new one when control has died (starter.Reconnect)
  bool outlives_keeper = false;  ///< starter.Job: else the agent ends when the keeper does
};

/// Runs the agent as PID 1 of a finished sandbox until it ends. Descriptors 0, 1 and 2 are the agent's standard
/// streams, and are this process's no more when the runner has been started. Returns the exit status for this process:
/// the runner's own (128+N when signal N ended it), 126 or 127 when the program could not be run, 1 when the agent
/// could not be started or lost its supervisor.
int serve(const spec::SandboxSpec& spec, SupervisorLinks links);

}  // namespace kai
