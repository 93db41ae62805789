// How much an agent could do to its host if it were hostile, as one number like `systemd-analyze security`, and what it
// is made of. Pure. The numbers are a judgement; what is promised is their direction: each layer that is missing and
// each power that is added makes the score strictly greater.
#pragma once

#include <string>
#include <vector>

#include "policies/policy.h"
#include "proto/sandbox_spec.pb.h"

namespace kai {

struct Exposure {
  struct Item {
    std::string name;    ///< "landlock", "hostWrite", "limits.memory" …
    double points = 0;   ///< three decimals
    std::string reason;  ///< for the operator
  };
  double score = 0;  ///< 0 (nothing) to 10 (unsandboxed, without limits); the sum of the items
  std::vector<Item> items;
};

/// `degraded`: the layers that are in fact missing.
Exposure exposure_of(const spec::SandboxSpec& spec, const Policy& policy, const std::vector<std::string>& degraded);

}  // namespace kai
