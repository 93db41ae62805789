// The first life of kai-agent-host: a starter. It stands ready in its own namespaces, takes one job from the keeper,
// makes the agent's process and exits; that process goes through sandbox/apply and comes back here as the agent's
// PID 1.
#pragma once

#include "base/fd.h"
#include "proto/sandbox_spec.pb.h"

namespace kai {

/// What a verified sandbox starts with. Standard input, output and error are the agent's.
struct Confined {
  spec::SandboxSpec spec;
  Fd klp;
};

/// Returns only in the agent's process, confined and verified. The starter itself, and whatever fails, exits.
Confined start_agent(int channel, bool root);

}  // namespace kai
