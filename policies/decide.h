// What becomes of each thing that a manifest asks for, in the manifest's own order: the verdicts of compile.h, before
// anything is built of them. Internal to policies/.
#pragma once

#include <string>
#include <vector>

#include "policies/compile.h"
#include "policies/layout.h"

namespace kai {

struct Decisions {
  std::vector<Verdict> verdicts;        ///< in document order
  std::vector<Permission> permissions;  ///< as Compiled has them
  std::vector<PathPlan> paths;
  bool unsandboxed = false;
  bool host_network = false;
};

Decisions decide(const Manifest& manifest, const Policy& policy, bool ephemeral);

/// What networkAccess asks for; decisions.unsandboxed is known by then.
void decide_network(const Manifest& manifest, const Policy& policy, Decisions& decisions);

/// "a, b, c".
std::string joined(const std::vector<std::string>& words);

}  // namespace kai
