// The operator's policy files as they are on disk: read whole or not at all, and only from where nobody else can write.
#pragma once

#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "policies/policy_yaml.h"
#include "supervisor/keeper/config.h"

namespace kai::keeper {

/// One reading of the policy directory.
struct LoadedPolicies {
  std::vector<PolicyFile> files;  ///< in name order, which is the order in which they count
  PolicySet parsed;               ///< for the keeper's own checks of specs
};

/// Reads every *.yaml of config.policies_dir and parses them. As root it refuses what anybody but root could have
/// written: the directory, each file, and the directories above. An error begins with the path (and line and column).
Result<LoadedPolicies> load_policies(const Config& config, bool root);

/// The texts for control, and what kaid.yaml blocks under all of them: a sealed memfd with kai.keeper.Policies.
Result<Fd> policies_memfd(const std::vector<PolicyFile>& files, const std::vector<GlobalBlock>& blocked);

}  // namespace kai::keeper
