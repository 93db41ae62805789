// Operator policies from YAML (contracts.md, "Operator policy"): strict, all or nothing. An unknown key, a wrong unit,
// a bad pattern or a contradiction is an error that begins with file:line:column. Pure: the keeper reads the files.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "policies/policy.h"

namespace kai {

struct PolicyFile {
  std::string name;  ///< of the file in its directory, for messages and rules: "10-calendar.yaml"
  std::string text;
};

inline constexpr std::size_t kMaxPolicyFileBytes = 256 << 10;
inline constexpr std::size_t kMaxPolicyFiles = 256;
inline constexpr std::size_t kMaxPolicies = 1024;

/// `files` in the order in which they count. Keys that are left out have the built-in default.
Result<PolicySet> parse_policies(const std::vector<PolicyFile>& files, bool ordinary_user);

/// Every key that a policy may say, dotted: "backoff.base". docs/policy.md has each.
std::vector<std::string_view> policy_keys();

}  // namespace kai
