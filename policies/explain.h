// What `kaictl policy explain` says: what holds one agent, layer by layer, each with the rule that decides it. Pure.
#pragma once

#include <string>
#include <vector>

#include "policies/compile.h"

namespace kai {

/// What an agent that runs may reach: it follows the policy of now at once, where all else waits for the next start.
struct NetworkNow {
  const Policy& policy;
  const Compiled* compiled;  ///< of the same manifest by `policy`; nullptr: that refuses it, and its network is cut
};

/// The effective policy of an agent: docs/schema/policy-explain.schema.json. `policy`: it was started under, or would
/// be. `degraded`: layers that are missing where it runs; empty where it does not run. `now`: only of an agent that
/// runs; nullptr: nothing has changed since.
std::string explain_json(const Compiled& compiled, const Policy& policy, const std::vector<std::string>& degraded,
                         const NetworkNow* now = nullptr);

/// The same for a terminal: a line a layer, and one for each thing that the policy or the manifest brings in. What
/// every sandbox has (system directories) is a number.
std::string explain_text(const Compiled& compiled, const Policy& policy, const std::vector<std::string>& degraded,
                         const NetworkNow* now = nullptr);

/// A verdict alone (connect_verdict's), as policy check has it among its items.
std::string connect_json(const Verdict& verdict);

}  // namespace kai
