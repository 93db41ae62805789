// The first life of kai-agent-host: a starter. It stands ready in its own namespaces, takes one job from the keeper,
// makes the agent's process and exits; that process goes through sandbox/apply and comes back here as the agent's
// PID 1.
#pragma once

#include "base/fd.h"
#include "proto/sandbox_spec.pb.h"
#include "sandbox/apply.h"

namespace kai {

/// What a verified sandbox starts with. Standard input, output and error are the agent's.
struct Confined {
  spec::SandboxSpec spec;
  Fd klp;
  /// SOCK_SEQPACKET, from here on one way: the keeper says Reconnect (proto/starter.proto) and reads nothing. End of
  /// file: the keeper has ended.
  Fd keeper;
  bool outlives_keeper = false;  ///< starter.Job: then it waits for the next keeper instead of ending with this one
};

/// How the keeper launched this starter.
struct StarterOptions {
  bool root = false;
  bool host_network = false;  ///< no network namespace of its own: for specs with host_network or unsandboxed
};

/// What turns the new process into a confined one: sandbox::apply, but for tests that leave out a step.
using Apply = tl::expected<void, sandbox::StepFailure> (*)(sandbox::Setup&);

/// Returns only in the agent's process, confined and verified. The starter itself, and whatever fails, exits.
Confined start_agent(int channel, const StarterOptions& options, Apply apply = sandbox::apply);

}  // namespace kai
