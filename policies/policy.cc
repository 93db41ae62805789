#include "policies/policy.h"

namespace kai {

Policy builtin_policy(bool ordinary_user) {
  Policy policy;
  policy.name = "builtin";
  // Without root there may be no delegated cgroup, no quota and no way to drop supplementary groups (design.md,
  // "Starting an agent"). What is in fact missing is found out by the keeper and shown in status.
  if (ordinary_user) policy.degrade = {"cgroup", "disk", "groups"};
  return policy;
}

}  // namespace kai
