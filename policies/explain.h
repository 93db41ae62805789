// What `kaictl policy explain` says: what holds one agent, layer by layer, each with the rule that decides it. Pure.
#pragma once

#include <string>
#include <vector>

#include "policies/compile.h"

namespace kai {

/// The effective policy of an agent: docs/schema/policy-explain.schema.json. `degraded`: layers that are missing where
/// it runs; empty where it does not run.
std::string explain_json(const Compiled& compiled, const Policy& policy, const std::vector<std::string>& degraded);

/// The same for a terminal: a line a layer, and one for each thing that the policy or the manifest brings in. What
/// every sandbox has (system directories) is a number.
std::string explain_text(const Compiled& compiled, const Policy& policy, const std::vector<std::string>& degraded);

/// A verdict alone (connect_verdict's), as policy check has it among its items.
std::string connect_json(const Verdict& verdict);

}  // namespace kai
