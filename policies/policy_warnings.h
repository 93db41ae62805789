// What a policy says that is well-formed and has no effect, or not the one that it looks like. Internal to
// policies/policy*.cc.
#pragma once

#include <string>
#include <vector>

#include "policies/policy.h"

namespace kai::policy_file {

/// "10-calendar.yaml:3: …" each, in the order of the policies (without the built-in one).
std::vector<std::string> warnings_of(const std::vector<Policy>& policies);

}  // namespace kai::policy_file
