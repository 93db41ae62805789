#include "policies/policy_check.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "policies/decide.h"
#include "policies/explain.h"

namespace kai {
namespace {

using Json = nlohmann::ordered_json;

Json json_of(const Verdict& verdict) {
  return {{"pointer", verdict.pointer},
          {"asked", verdict.asked},
          {"verdict", name_of(verdict.kind)},
          {"reason", verdict.reason},
          {"rule", verdict.rule}};
}

/// ASCII only: nothing that could drive a terminal, whatever the manifest's paths hold.
std::string dump(const Json& json) {
  return json.dump(-1, ' ', true, Json::error_handler_t::replace);
}

bool any(const std::vector<Verdict>& items, Verdict::Kind kind) {
  return std::any_of(items.begin(), items.end(), [&](const Verdict& item) { return item.kind == kind; });
}

}  // namespace

std::string_view name_of(Verdict::Kind kind) {
  switch (kind) {
    case Verdict::Kind::kGranted:
      return "granted";
    case Verdict::Kind::kTrimmed:
      return "trimmed";
    case Verdict::Kind::kRefused:
      return "refused";
  }
  return "refused";
}

PolicyCheck check_policy(std::string_view manifest_text, const PolicySet& policies) {
  ManifestResult parsed = parse_manifest(manifest_text);
  PolicyCheck check{.valid = parsed.manifest.has_value(), .errors = std::move(parsed.errors)};
  if (!parsed.manifest) {
    check.result = "invalid";
    return check;
  }
  const Policy& policy = policies.for_agent(parsed.manifest->id);
  check.policy = policy.name;
  check.items = decide(*parsed.manifest, policy, false).verdicts;
  // What the verdicts do not know: a filter that cannot be made.
  const auto compiled = compile(*parsed.manifest, policy, {"unnamed", {}});
  if (!compiled && !any(check.items, Verdict::Kind::kRefused)) {
    check.items.push_back(
        {"", parsed.manifest->id, compiled.error().message(), policy.rule("grants"), Verdict::Kind::kRefused});
  }
  check.result = any(check.items, Verdict::Kind::kRefused)   ? "refused"
                 : any(check.items, Verdict::Kind::kTrimmed) ? "trimmed"
                                                             : "ok";
  return check;
}

std::string policy_check_json(const PolicyCheck& check) {
  Json json = {{"valid", check.valid}, {"result", check.result}};
  if (!check.policy.empty()) json["policy"] = check.policy;
  json["errors"] = Json::array();
  for (const ManifestError& error : check.errors) {
    json["errors"].push_back({{"pointer", error.pointer}, {"message", error.message}});
  }
  json["items"] = Json::array();
  for (const Verdict& item : check.items) json["items"].push_back(json_of(item));
  return dump(json);
}

std::string connect_json(const Verdict& verdict) {
  return dump(json_of(verdict));
}

}  // namespace kai
