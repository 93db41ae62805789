#include "policies/policy_warnings.h"

#include <algorithm>

#include "base/text.h"
#include "policies/domains.h"
#include "policies/listed_address.h"
#include "policies/manifest_formats.h"
#include "policies/network_rules.h"
#include "policies/policy_formats.h"

namespace kai::policy_file {
namespace {

class Warnings {
 public:
  explicit Warnings(const Policy& policy, std::vector<std::string>& all) : policy_(policy), all_(all) {}

  void add(std::string_view key, const std::string& message) {
    all_.push_back(policy_.rule(key) + ": " + escape_for_terminal(message));
  }

 private:
  const Policy& policy_;
  std::vector<std::string>& all_;
};

void look_at_match(const Policy& policy, const std::vector<Policy>& all, Warnings& warnings) {
  if (!can_match_an_id(policy.agent_id)) {
    warnings.add("agentId",
                 "no agent's id can match agentId " + policy.agent_id + ": the policy only serves run --policy");
    return;
  }
  for (const Policy& earlier : all) {
    if (&earlier == &policy) return;
    if (!glob_covers(earlier.agent_id, policy.agent_id)) continue;
    warnings.add("agentId", "never matches: policy " + earlier.name + " (" + earlier.rule("agentId") +
                                ") has every id of " + policy.agent_id + " already; move this one before it");
    return;
  }
}

std::vector<DomainPattern> patterns_of(const std::vector<std::string>& texts) {
  std::vector<DomainPattern> patterns;
  for (const std::string& text : texts) {
    if (auto pattern = read_domain_pattern(text)) patterns.push_back(std::move(*pattern));
  }
  return patterns;
}

void look_at_addresses(const Policy& policy, Warnings& warnings) {
  std::vector<Cidr> open;
  const auto blocked_at = [&](const Address& address) {
    const auto& all = policy.network.blocked_domains;
    return std::any_of(all.begin(), all.end(), [&](const std::string& text) {
      const auto listed = read_listed_address(text);
      return listed && listed->port == 0 && contains(listed->block, address);
    });
  };
  for (std::size_t at = 0; at < policy.network.allowed_cidrs.size(); ++at) {
    const std::string& text = policy.network.allowed_cidrs[at];
    const auto cidr = read_cidr(text);
    if (!cidr) continue;
    open.push_back(*cidr);
    // Wider than any block of addresses that are not public: whoever writes it may mean the Internet alone.
    const bool whole = cidr->prefix < (cidr->network.bits == 32 ? 8U : 3U);
    const char* loopback = cidr->network.bits == 32 ? "127.0.0.1" : "::1";
    if (whole && contains(*cidr, *read_address(loopback))) {
      warnings.add("network.allowedCidrs." + std::to_string(at),
                   text + " has more in it than the Internet: a name may then lead to this machine (" + loopback +
                       "), its networks and a cloud's metadata; list the blocks that are meant");
    }
  }
  for (const auto& [name, text] : policy.network.hosts) {
    const auto address = read_address(text);
    const char* special = address ? special_address(*address) : nullptr;
    const auto has_it = [&](const Cidr& cidr) { return contains(cidr, *address); };
    if (address && blocked_at(*address)) {
      warnings.add("network.hosts." + name,
                   name + " leads nowhere: blockedDomains has " + address_text(*address) + ", and blocked wins");
      continue;
    }
    if (special == nullptr || std::any_of(open.begin(), open.end(), has_it)) continue;
    warnings.add("network.hosts." + name, name + " leads nowhere: " + address_text(*address) + " " + special +
                                              ", which network.allowedCidrs does not have; add it there");
  }
}

void look_at_network(const Policy& policy, Warnings& warnings) {
  const NetworkRules& network = policy.network;
  const std::vector<DomainPattern> blocked = patterns_of(network.blocked_domains);
  const std::vector<DomainPattern> allowed = patterns_of(network.allowed_domains);
  for (std::size_t at = 0; at < allowed.size(); ++at) {
    const DomainPattern& each = allowed[at];
    const std::string key = "network.allowedDomains." + std::to_string(at);
    const auto by = std::find_if(blocked.begin(), blocked.end(), [&](const DomainPattern& pattern) {
      return (pattern.port == 0 || pattern.port == each.port) && covers(pattern, each);
    });
    if (by != blocked.end()) {
      warnings.add(key, each.text() + " is allowed and, by " + by->text() + ", blocked: blocked wins");
    }
    if (network.ports.empty() && each.port == 0) {
      warnings.add(key, each.text() + " is allowed on no port: list some under network.ports");
    }
  }
  look_at_addresses(policy, warnings);
  const bool allows = !network.allowed_domains.empty() || !network.allowed_cidrs.empty();
  if (allows && policy.network_limit.max_connections == 0) {
    warnings.add("networkLimit.maxConnections", "allows no connection, so that network allows nothing");
  }
  if (allows && policy.network_limit.allowed_protocols.empty()) {
    warnings.add("networkLimit.allowedProtocols", "allows no protocol, so that network allows nothing");
  }
}

void look_at_files(const Policy& policy, Warnings& warnings) {
  for (const auto& [path, file] : policy.files) {
    const std::string key = "files." + path;
    if (const char* fault = manifest::allowed_path_fault(path)) {
      warnings.add(key, "no manifest can ask for " + path + ": a path there " + fault);
    }
    if (file.write && !policy.grants_power("hostWrite")) {
      warnings.add(key, path + " stays read-only: write: true needs the grant hostWrite");
    }
  }
}

void look_at_grants(const Policy& policy, Warnings& warnings) {
  const auto key_of = [&](std::string_view grant) {
    const auto found = std::find(policy.grants.begin(), policy.grants.end(), grant);
    return "grants." + std::to_string(found - policy.grants.begin());
  };
  if (policy.grants_power("unsandboxed") && policy.sandbox) {
    warnings.add(key_of("unsandboxed"), "the grant unsandboxed has no effect without sandbox: false");
  }
  if (!policy.sandbox && !policy.grants_power("unsandboxed")) {
    warnings.add("sandbox", "sandbox: false has no effect without the grant unsandboxed");
  }
  const bool writes =
      std::any_of(policy.files.begin(), policy.files.end(), [](const auto& each) { return each.second.write; });
  if (policy.grants_power("hostWrite") && !writes && !policy.grants_power("hostMounts")) {
    warnings.add(key_of("hostWrite"), "nothing can use the grant hostWrite: no entry of files has write: true");
  }
  if (policy.grants_power("hostNetwork") && policy.network.ports.empty()) {
    warnings.add(key_of("hostNetwork"), "the grant hostNetwork reaches nothing: network.ports is empty");
  }
  if (policy.grants_power("hostNetwork") && !policy.network.ports.empty()) {
    warnings.add(key_of("hostNetwork"),
                 "with the grant hostNetwork an agent that asks for outbound reaches every address, by TCP on "
                 "network.ports and by UDP on any: "
                 "allowedDomains and blockedDomains do not hold it");
  }
}

}  // namespace

std::vector<std::string> warnings_of(const std::vector<Policy>& policies) {
  std::vector<std::string> all;
  for (const Policy& policy : policies) {
    Warnings warnings(policy, all);
    look_at_match(policy, policies, warnings);
    look_at_network(policy, warnings);
    look_at_files(policy, warnings);
    look_at_grants(policy, warnings);
  }
  return all;
}

}  // namespace kai::policy_file
