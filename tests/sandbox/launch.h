// Runs one program in a real sandbox, as the keeper and control would, and tells how it went.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "proto/sandbox_spec.pb.h"
#include "sandbox/cgroup.h"

namespace kai::test {

struct Outcome {
  std::string failed_step;  ///< set-up step that failed; empty: the program ran
  std::string detail;
  std::string output;  ///< standard output and error together
  bool signaled = false;
  int code = 0;  ///< exit code or signal of the program
  sandbox::CgroupUsage usage;
};

/// A spec of the built-in policy for `arguments`; a first argument "probe" is the probe program of this folder.
spec::SandboxSpec probe_spec(const std::vector<std::string>& arguments);

/// Starts it. The keeper's own check of the spec is left out, so that the steps' own checks can be tested.
Outcome run_confined(const spec::SandboxSpec& spec);

/// The same program without any sandbox.
Outcome run_free(const std::vector<std::string>& arguments);

}  // namespace kai::test
