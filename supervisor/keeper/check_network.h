// What the keeper believes of the rules by which an agent may reach others: as much as of a spec (check.h), nothing.
#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "policies/policy.h"
#include "proto/egress.pb.h"

namespace kai::keeper {

/// Room for as many and as long names as kaid.yaml may block, which every agent's rules have, and for its own.
inline constexpr std::size_t kMaxRulesBytes = 512 << 10;

/// Whether `rules` are `agent_id`'s and allow no more than the policy that they name: each name, block of addresses,
/// host, port and protocol is one of its to the letter, everything that it or kaid.yaml blocks is blocked, and no limit
/// is above its own. What the manifest asked for only narrows that further.
Result<> check_rules(const egress::Rules& rules, const std::string& agent_id, const PolicySet& policies);

/// Reads rules from a memfd that has to be sealed against every change, and checks them.
Result<egress::Rules> read_rules(const Fd& memfd, const std::string& agent_id, const PolicySet& policies);

}  // namespace kai::keeper
