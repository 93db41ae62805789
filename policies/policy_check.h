// What `kaictl policy check` and `policy explain --connect` say: a manifest, or one connection, against the operator's
// policies, each answer with its reason and rule. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "policies/compile.h"

namespace kai {

struct PolicyCheck {
  bool valid = false;
  std::string result;  ///< ok, trimmed, refused or invalid
  std::string policy;  ///< its name; empty where the manifest is invalid
  std::vector<ManifestError> errors;
  std::vector<Verdict> items;  ///< in the manifest's order
};

PolicyCheck check_policy(std::string_view manifest_text, const PolicySet& policies);
/// contracts.md, "policy check"; docs/schema/policy-check.schema.json.
std::string policy_check_json(const PolicyCheck& check);
/// Whether a connection of the agent to name:port would pass, and why; kRefused where not. `name` may be an address.
Verdict connect_verdict(const Manifest& manifest, const Policy& policy, std::string_view name, std::uint16_t port);
/// granted, trimmed, refused.
std::string_view name_of(Verdict::Kind kind);

}  // namespace kai
