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

/// One entry of the manifest's allowedDomains against policy.network: "" as pointer.
Verdict decide_domain(const std::string& asked, const Policy& policy);

/// "a, b, c".
std::string joined(const std::vector<std::string>& words);

}  // namespace kai
