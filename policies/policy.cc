#include "policies/policy.h"

#include <fnmatch.h>

#include <algorithm>

namespace kai {

Policy builtin_policy(bool ordinary_user) {
  Policy policy;
  policy.name = "builtin";
  // Without root there may be no delegated cgroup, no quota and no way to drop supplementary groups (design.md,
  // "Starting an agent"). What is in fact missing is found out by the keeper and shown in status.
  if (ordinary_user) policy.degrade = {"cgroup", "disk", "groups"};
  return policy;
}

bool Policy::grants_power(std::string_view grant) const {
  return std::find(grants.begin(), grants.end(), grant) != grants.end();
}

std::string Policy::rule(std::string_view key) const {
  for (const std::string_view path : {key, std::string_view()}) {
    if (const auto found = places.find(path); found != places.end()) return found->second;
  }
  return "builtin";
}

const Policy& PolicySet::for_agent(std::string_view id) const {
  const std::string name(id);
  for (const Policy& policy : policies) {
    if (fnmatch(policy.agent_id.c_str(), name.c_str(), FNM_NOESCAPE) == 0) return policy;
  }
  return policies.back();
}

void PolicySet::block_everywhere(const std::vector<GlobalBlock>& blocks) {
  for (Policy& policy : policies) policy.global_blocks = blocks;
}

const Policy* PolicySet::named(std::string_view name) const {
  const auto found =
      std::find_if(policies.begin(), policies.end(), [&](const Policy& each) { return each.name == name; });
  return found != policies.end() ? &*found : nullptr;
}

}  // namespace kai
