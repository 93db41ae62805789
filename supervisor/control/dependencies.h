// Dependencies of type agent: in which order agents start, so that each finds what it needs. Pure.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/result.h"

namespace kai {

/// Agent id → the ids that it depends on. One that is no key itself counts as one without dependencies.
using DependencyGraph = std::map<std::string, std::vector<std::string>>;

/// `wanted` and everything that they need, each behind what it depends on; agents are stopped in the reverse order. An
/// error names a cycle: "a → b → a".
Result<std::vector<std::string>> start_order(const DependencyGraph& graph, const std::vector<std::string>& wanted);

}  // namespace kai
