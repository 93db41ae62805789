// Every key that a policy may say: its dotted name and how it is read. Internal to policies/policy*.cc.
#pragma once

#include <span>
#include <string_view>

#include "policies/policy_value.h"

namespace kai::policy_file {

struct Key {
  std::string_view name;  ///< dotted: "backoff.base"; what is before a dot is a mapping of its own
  void (*read)(const Value& value, Policy& policy);
};

std::span<const Key> all_keys();

/// Reads the mapping `value` (its key is "" or the part before a dot) into `policy`.
void read_keys(const Value& value, Policy& policy);

}  // namespace kai::policy_file
