// Runs one program in a real sandbox, as the keeper and control would, and tells how it went.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "policies/refusal.h"
#include "proto/sandbox_spec.pb.h"
#include "proto/starter.pb.h"
#include "sandbox/cgroup.h"

namespace kai::test {

struct Outcome {
  std::string failed_step;  ///< set-up step that failed; empty: the program ran
  std::string detail;
  std::string output;  ///< standard output and error together
  bool signaled = false;
  int code = 0;  ///< exit code or signal of the program
  sandbox::CgroupUsage usage;
  bool pids_event = false;  ///< pids_event_fd() was ready at the end
  std::vector<std::string> degraded;  ///< layers that the starter told as missing
  std::vector<Refusal> refusals;      ///< the notifications, in order; each was answered
};

struct LaunchOptions {
  std::string without;        ///< name of a step of the apply table that is left out
  bool host_network = false;  ///< as the keeper launches a starter for host_network or unsandboxed
  starter::PrivateData private_data = starter::NONE;
  int data_fd = -1;  ///< of private_data
  std::uint32_t uid_base = 0x7F000000;
};

/// A spec of the built-in policy for `arguments`; a first argument "probe" is the probe program of this folder.
spec::SandboxSpec probe_spec(const std::vector<std::string>& arguments);

/// Starts it. The keeper's own check of the spec is left out, so that the steps' own checks can be tested.
Outcome run_confined(const spec::SandboxSpec& spec, const LaunchOptions& options = {});

/// The same program without any sandbox.
Outcome run_free(const std::vector<std::string>& arguments);

}  // namespace kai::test
