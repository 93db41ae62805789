// Policies for the tests, as an operator writes them.
#pragma once

#include <string>

#include <doctest/doctest.h>

#include "policies/policy_yaml.h"

namespace kai::testing {

inline PolicySet policies(const std::string& text, bool ordinary_user = false) {
  auto set = parse_policies({{"10-test.yaml", text}}, ordinary_user);
  REQUIRE_MESSAGE(set, set.error().message());
  return std::move(*set);
}

/// The first policy of a file that has only `keys` (YAML lines, indented by two) beside its name. The first of them is
/// line 3.
inline Policy policy(const std::string& keys) {
  return policies("policies:\n- name: test\n" + keys).policies.front();
}

/// What is wrong, or "".
inline std::string fault(const std::string& text) {
  const auto set = parse_policies({{"10-test.yaml", text}}, false);
  return set ? "" : set.error().message();
}

}  // namespace kai::testing
