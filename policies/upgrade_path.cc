#include "policies/upgrade_path.h"

#include <algorithm>
#include <array>
#include <compare>
#include <utility>

#include "policies/upgrade_asks.h"
#include "policies/versions/npm_range.h"
#include "policies/wording.h"

namespace kai {
namespace {

using Kind = UpgradeFinding::Kind;
using Weight = UpgradeFinding::Weight;
using Findings = std::vector<UpgradeFinding>;

constexpr const char* kSignerChange = "signerChange";

/// "a, b and 3 more": an operator may have hundreds of agents.
std::string some_of(const std::vector<std::string>& names) {
  constexpr std::size_t kNamed = 5;
  std::string text;
  for (std::size_t at = 0; at < names.size() && at < kNamed; ++at) text += (at == 0 ? "" : ", ") + names[at];
  if (names.size() > kNamed) text += " and " + std::to_string(names.size() - kNamed) + " more";
  return text;
}

void find_version(const UpgradePath& path, Findings& findings) {
  const std::string& from = path.from.manifest->version;
  const std::string& to = path.to.manifest->version;
  const auto add = [&](Weight weight, std::string message) {
    findings.push_back({Kind::kVersion, weight, "/version", std::move(message), {}});
  };
  if (path.to.package == path.from.package) return add(Weight::kRefused, to + " is active already, with these bytes");
  if (from == to) {
    return add(Weight::kNeedsForce, to + " is the active version too, and this package has other bytes: "
                                         "give it a version of its own");
  }
  if (path.rollback) return;  // to an older one: that is what was asked for
  const auto older = NpmVersion::parse(from);
  const auto newer = NpmVersion::parse(to);
  // The manifest takes numbers of any length; what cannot be compared may be a downgrade.
  if (!older || !newer) return add(Weight::kNeedsForce, "whether " + to + " is newer than " + from + " cannot be told");
  const auto order = compare(*newer, *older);
  if (std::is_lt(order)) {
    add(Weight::kNeedsForce, to + " is older than " + from + ", which is active: the way back is kaictl rollback " +
                                 path.from.manifest->id + " " + to);
  } else if (std::is_eq(order)) {
    add(Weight::kNote, to + " and " + from + " differ in build metadata only, which makes neither the newer one");
  }
}

void find_identity(const UpgradePath& path, Findings& findings) {
  const std::string& from = path.from.manifest->id;
  const std::string& to = path.to.manifest->id;
  if (from == to) return;
  findings.push_back({Kind::kIdentity,
                      Weight::kRefused,
                      "/id",
                      "the package is of agent " + to + ", not of " + from + ": register it as an agent of its own",
                      {}});
}

/// The grant's own line, where the policy has it.
std::string rule_of_grant(const Policy& policy) {
  const auto found = std::find(policy.grants.begin(), policy.grants.end(), kSignerChange);
  if (found == policy.grants.end()) return policy.rule("grants");
  return policy.rule("grants." + std::to_string(found - policy.grants.begin()));
}

/// Whether the operator's policy takes the package as it is today: it may have been stored under another one.
void find_untrusted(const UpgradePath& path, Findings& findings) {
  const Policy& policy = path.policy;
  const std::string& signer = path.to.signer;
  // The way back leads to what served before; it is told, and stays open.
  const Weight weight = path.rollback ? Weight::kNote : Weight::kRefused;
  const bool trusted =
      std::find(policy.trusted_keys.begin(), policy.trusted_keys.end(), signer) != policy.trusted_keys.end();
  if (!signer.empty() && !trusted) {
    findings.push_back(
        {Kind::kSigner,
         weight,
         {},
         "it is signed by " + signer + ", which policy " + policy.name + " does not have among its trustedKeys",
         policy.rule("trustedKeys")});
  } else if (signer.empty() && policy.allow_unsigned == Unsigned::kNever) {
    findings.push_back({Kind::kSigner,
                        weight,
                        {},
                        "it is not signed, and policy " + policy.name + " says allowUnsigned: never",
                        policy.rule("allowUnsigned")});
  }
}

void find_signer(const UpgradePath& path, Findings& findings) {
  find_untrusted(path, findings);
  const std::string& from = path.from.signer;
  const std::string& to = path.to.signer;
  if (from == to) return;
  if (from.empty()) {
    findings.push_back({Kind::kSigner,
                        Weight::kNote,
                        {},
                        "it is signed by " + to + "; " + path.from.manifest->version + " was not signed",
                        {}});
    return;
  }
  const bool granted = path.policy.grants_power(kSignerChange);
  const std::string change = (to.empty() ? "it is not signed, and " : "it is signed by " + to + ", and ") +
                             path.from.manifest->version + " was signed by " + from;
  UpgradeFinding finding{Kind::kSigner, Weight::kNote, {}, change, rule_of_grant(path.policy)};
  if (granted) {
    finding.message += ", which the grant signerChange allows";
  } else if (!path.rollback) {
    finding.weight = Weight::kRefused;
    finding.message += ": where that is meant, the operator can add signerChange to grants of policy " +
                       path.policy.name + " for this upgrade";
  }
  findings.push_back(std::move(finding));
}

void find_bad(const UpgradePath& path, Findings& findings) {
  if (path.bad.empty()) return;
  // The way back is the operator's choice: the version of now may be the worse one.
  findings.push_back({Kind::kBad,
                      path.rollback ? Weight::kNote : Weight::kNeedsForce,
                      {},
                      path.to.manifest->version + " was taken back before (" + path.bad +
                          (path.rollback ? ")"
                                         : ") and is not tried again with the same bytes: mend it, and "
                                           "upgrade with the new package"),
                      {}});
}

std::vector<std::string> names_of(const std::vector<UpgradeDependent>& dependents) {
  std::vector<std::string> names;
  names.reserve(dependents.size());
  for (const UpgradeDependent& dependent : dependents) names.push_back(dependent.id);
  return names;
}

void find_capabilities(const UpgradePath& path, Findings& findings) {
  const Manifest& from = *path.from.manifest;
  const Manifest& to = *path.to.manifest;
  const Weight weight = path.dependents.empty() ? Weight::kNote : Weight::kNeedsForce;
  const std::string who =
      path.dependents.empty() ? "" : ", and other agents depend on this one: " + some_of(names_of(path.dependents));
  if (from.runtime.protocol == Protocol::kRunner && to.runtime.protocol == Protocol::kNone) {
    findings.push_back({Kind::kCapability,
                        weight,
                        "/runtime/protocol",
                        "it speaks no runner protocol any more, so that nothing can be sent to it" + who,
                        {}});
    return;
  }
  for (const std::string& capability : from.capabilities) {
    if (std::find(to.capabilities.begin(), to.capabilities.end(), capability) != to.capabilities.end()) continue;
    UpgradeFinding finding{Kind::kCapability, weight, "/capabilities", "it has no capability ", {}};
    finding.message.append(capability).append(" any more").append(who);
    findings.push_back(std::move(finding));
  }
}

enum class Fit { kIn, kOut, kUnreadable };
Fit fit_of(const std::string& version, const std::string& range) {
  if (range.empty() || range == "*") return Fit::kIn;  // pre-releases too: the dependent does not mind
  const auto parsed_range = NpmRange::parse(range);
  const auto parsed = NpmVersion::parse(version);
  if (!parsed_range || !parsed) return Fit::kUnreadable;
  return parsed_range->has(*parsed) ? Fit::kIn : Fit::kOut;
}

void find_dependents(const UpgradePath& path, Findings& findings) {
  const std::string& to = path.to.manifest->version;
  for (const UpgradeDependent& dependent : path.dependents) {
    const Fit fit = fit_of(to, dependent.range);
    if (fit == Fit::kIn) continue;
    UpgradeFinding finding{Kind::kDependency, Weight::kNote, "/version", {}, {}};
    if (fit == Fit::kUnreadable) {
      finding.message = "whether " + to + " is what " + dependent.id +
                        " depends on cannot be told: its manifest says " + shown(dependent.range);
    } else {
      const bool was_in = fit_of(path.from.manifest->version, dependent.range) == Fit::kIn;
      if (was_in) finding.weight = Weight::kNeedsForce;
      finding.message = "agent " + dependent.id + " depends on " + shown(dependent.range) + " of it, which " + to +
                        (was_in ? " is not" : " is not, and neither is " + path.from.manifest->version);
    }
    findings.push_back(std::move(finding));
  }
}

}  // namespace

std::string_view to_string(UpgradeFinding::Kind kind) {
  constexpr std::array<std::string_view, 8> kNames = {"version",    "identity",   "signer",  "bad",
                                                      "capability", "dependency", "widened", "memory"};
  return kNames.at(static_cast<std::size_t>(kind));
}

std::string_view to_string(UpgradeFinding::Weight weight) {
  constexpr std::array<std::string_view, 3> kNames = {"note", "needs_force", "refused"};
  return kNames.at(static_cast<std::size_t>(weight));
}

std::vector<UpgradeFinding> check_upgrade_path(const UpgradePath& path) {
  Findings findings;
  find_version(path, findings);
  find_identity(path, findings);
  find_signer(path, findings);
  find_bad(path, findings);
  find_capabilities(path, findings);
  find_dependents(path, findings);
  find_widened(path, findings);
  find_memory(path, findings);
  // Going back, the operator was asked once already, when the version came: it is told, and not asked again.
  for (UpgradeFinding& finding : findings) {
    if (path.rollback && finding.weight == Weight::kNeedsForce) finding.weight = Weight::kNote;
  }
  return findings;
}

}  // namespace kai
