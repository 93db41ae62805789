#include "policies/policy_yaml.h"

#include <algorithm>
#include <set>

#include "base/text.h"
#include "policies/domains.h"
#include "policies/network_rules.h"
#include "policies/policy_keys.h"
#include "policies/policy_tree.h"
#include "policies/policy_value.h"
#include "policies/policy_warnings.h"
#include "policies/wording.h"

namespace kai {
namespace {

using policy_file::Fault;
using policy_file::Node;
using policy_file::Place;
using policy_file::Reading;
using policy_file::Value;

tl::unexpected<Error> fault_in(const std::string& file, const Fault& fault) {
  return failure(file + ":" + std::to_string(fault.place.line) + ":" + std::to_string(fault.place.column) + ": " +
                 escape_for_terminal(fault.message));
}

/// Values that are good each by itself and cannot be meant together. Who says only a small backoff.max means the base
/// as well.
void settle_backoff(const Node& node, Policy& policy, Reading& reading) {
  Backoff& backoff = policy.backoff;
  if (!policy.places.contains("backoff.base")) backoff.base = std::min(backoff.base, backoff.max);
  const auto check = [&](const char* name, std::chrono::milliseconds value) {
    if (value <= backoff.max) return;
    const auto group = std::find_if(node.children.begin(), node.children.end(),
                                    [](const Node& child) { return child.key == "backoff"; });
    const auto key = std::find_if(group->children.begin(), group->children.end(),
                                  [&](const Node& child) { return child.key == name; });
    reading.fail(key->place, "backoff." + std::string(name) + " (" + policy_file::duration_text(value) +
                                 ") must not be more than backoff.max (" + policy_file::duration_text(backoff.max) +
                                 ")");
  };
  check("initial", backoff.initial);
  check("base", backoff.base);
}

/// Each port is a listener of its own for every agent: network.ports and those of allowedDomains together.
void check_ports(const Policy& policy, const Node& node, Reading& reading) {
  std::set<std::uint16_t> ports(policy.network.ports.begin(), policy.network.ports.end());
  for (const std::string& text : policy.network.allowed_domains) {
    const auto pattern = read_domain_pattern(text);
    if (pattern && pattern->port != 0) ports.insert(pattern->port);
  }
  if (ports.size() <= kMaxNetworkPorts) return;
  const auto group = std::find_if(node.children.begin(), node.children.end(),
                                  [](const Node& child) { return child.key == "network"; });
  reading.fail(group->key_place, "network names " + std::to_string(ports.size()) +
                                     " ports, in ports and in allowedDomains: an agent can have " +
                                     std::to_string(kMaxNetworkPorts));
}

std::optional<Fault> read_policy(const std::string& file, const Node& node, Policy& policy) {
  Reading reading(file, policy);
  const Value value(node, "", reading);
  policy.name.clear();
  policy_file::read_keys(value, policy);
  // Nobody has to name a policy that is not asked for by name; status shows then where it stands.
  if (policy.name.empty()) policy.name = reading.rule(node.place);
  if (!reading.fault()) settle_backoff(node, policy, reading);
  if (!reading.fault()) check_ports(policy, node, reading);
  return reading.fault();
}

/// The list under `policies:`; nullptr where the file has no document, or the list nothing in it.
const Node* list_of(const Node& root, std::optional<Fault>& fault) {
  if (root.kind == Node::Kind::kNothing) return nullptr;
  constexpr const char* kForm = "the file must be a list of policies under the one key policies:";
  if (root.kind != Node::Kind::kMapping) {
    fault = Fault{root.place, kForm};
    return nullptr;
  }
  for (const Node& child : root.children) {
    if (child.key == "policies") continue;
    constexpr std::string_view kOnly[] = {"policies"};
    const bool meant = suggestion(child.key, kOnly).has_value();
    fault = Fault{child.key_place, "unknown key " + shown(child.key) +
                                       (meant ? ": did you mean \"policies\"?" : std::string("; ") + kForm)};
    return nullptr;
  }
  if (root.children.empty()) return nullptr;
  const Node& list = root.children.front();
  if (list.kind == Node::Kind::kNothing) return nullptr;
  if (list.kind == Node::Kind::kList) return &list;
  fault = Fault{list.place, "policies must be a list: each policy begins with a dash"};
  return nullptr;
}

std::optional<Fault> add_policy(const std::string& file, const Node& node, bool ordinary_user, PolicySet& set) {
  if (set.policies.size() == kMaxPolicies) {
    return Fault{node.place, "is one policy more than the " + std::to_string(kMaxPolicies) + " that are taken"};
  }
  Policy policy = builtin_policy(ordinary_user);
  if (auto fault = read_policy(file, node, policy)) return fault;
  if (const Policy* other = set.named(policy.name)) {
    const auto named =
        std::find_if(node.children.begin(), node.children.end(), [](const Node& child) { return child.key == "name"; });
    return Fault{named->place, "there is a policy " + policy.name + " already, at " + other->rule("name")};
  }
  set.policies.push_back(std::move(policy));
  return std::nullopt;
}

}  // namespace

Result<PolicySet> parse_policies(const std::vector<PolicyFile>& files, bool ordinary_user) {
  if (files.size() > kMaxPolicyFiles) {
    return failure(files[kMaxPolicyFiles].name + ":1:1: is one file more than the " + std::to_string(kMaxPolicyFiles) +
                   " that are taken");
  }
  PolicySet set;
  for (const PolicyFile& file : files) {
    const std::string name = escape_for_terminal(file.name);
    const policy_file::Tree tree = policy_file::read_tree(file.text);
    std::optional<Fault> fault = tree.fault;
    const Node* list = fault ? nullptr : list_of(tree.root, fault);
    if (fault) return fault_in(name, *fault);
    if (list == nullptr) continue;
    for (const Node& node : list->children) {
      if (auto found = add_policy(name, node, ordinary_user, set)) return fault_in(name, *found);
    }
  }
  set.warnings = policy_file::warnings_of(set.policies);
  set.policies.push_back(builtin_policy(ordinary_user));
  return set;
}

std::vector<std::string_view> policy_keys() {
  std::vector<std::string_view> names;
  for (const policy_file::Key& key : policy_file::all_keys()) names.push_back(key.name);
  return names;
}

}  // namespace kai
