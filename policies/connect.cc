// Whether a connection would pass: manifest ∩ policy for one name and port (policy_check.h).
#include <algorithm>
#include <optional>

#include "base/text.h"
#include "policies/addresses.h"
#include "policies/decide.h"
#include "policies/domains.h"
#include "policies/policy_check.h"

namespace kai {
namespace {

using Kind = Verdict::Kind;

constexpr const char* kBase = "/security/networkAccess/";

class Connection {
 public:
  Connection(const Manifest& manifest, const Policy& policy, std::string_view name, std::uint16_t port)
      : network_(manifest.security.network), policy_(policy), name_(name), port_(port) {
    verdict_.pointer = std::string(kBase) + "allowOutbound";
    verdict_.asked = escape_for_terminal(name) + ":" + std::to_string(port);
    verdict_.rule = policy.rule("network.allowedDomains");
    verdict_.kind = Kind::kRefused;
    host_network_ = network_.allow_outbound && policy.grants_power("hostNetwork");
  }

  Verdict decide() {
    if (host_network_) return decide_host_network();
    if (!network_.allow_outbound) return refuse("the manifest does not ask for outbound connections (allowOutbound)");
    if (policy_.network_limit.max_connections == 0) {
      verdict_.rule = policy_.rule("networkLimit.maxConnections");
      return refuse("networkLimit of policy " + policy_.name + " allows no connection");
    }
    if (const auto address = read_address(name_)) return decide_address(*address);
    const auto host = canonical_host(name_);
    if (!host) return refuse("this is no DNS name and no address in its one strict spelling");
    return decide_name(*host);
  }

 private:
  Verdict refuse(std::string reason) {
    verdict_.reason = std::move(reason);
    return verdict_;
  }
  Verdict grant(std::string reason) {
    verdict_.kind = Kind::kGranted;
    verdict_.reason = std::move(reason) + "; egress is not in this version, so no connection is made yet";
    return verdict_;
  }
  [[nodiscard]] bool port_listed() const {
    return std::find(policy_.network.ports.begin(), policy_.network.ports.end(), port_) != policy_.network.ports.end();
  }
  Verdict refuse_port() {
    verdict_.rule = policy_.rule("network.ports");
    return refuse("network.ports of policy " + policy_.name + " does not have port " + std::to_string(port_));
  }

  Verdict decide_host_network() {
    if (!port_listed()) return refuse_port();
    verdict_.kind = Kind::kGranted;
    verdict_.rule = policy_.rule("grants");
    verdict_.reason = "by the grant hostNetwork: the host's network, every address on network.ports";
    return verdict_;
  }

  Verdict decide_address(const Address& address) {
    for (std::size_t at = 0; at < policy_.network.allowed_cidrs.size(); ++at) {
      const auto cidr = read_cidr(policy_.network.allowed_cidrs[at]);
      if (!cidr || !contains(*cidr, address)) continue;
      verdict_.rule = policy_.rule("network.allowedCidrs." + std::to_string(at));
      if (!port_listed()) return refuse_port();
      return grant("allowedCidrs of policy " + policy_.name + " has " + policy_.network.allowed_cidrs[at]);
    }
    verdict_.rule = policy_.rule("network.allowedCidrs");
    return refuse("allowedCidrs of policy " + policy_.name + " does not have this address, and names do not open it");
  }

  /// The entry of `texts` that matches; its number, or none.
  [[nodiscard]] std::optional<std::size_t> matching(const std::vector<std::string>& texts, const std::string& host,
                                                    bool ports_of_policy) const {
    for (std::size_t at = 0; at < texts.size(); ++at) {
      const auto pattern = read_domain_pattern(texts[at]);
      if (!pattern || !matches(*pattern, host, port_)) continue;
      if (ports_of_policy && pattern->port == 0 && !port_listed()) continue;
      return at;
    }
    return std::nullopt;
  }

  Verdict decide_name(const std::string& host) {
    if (const auto at = matching(network_.blocked_domains, host, false)) {
      verdict_.pointer = std::string(kBase) + "blockedDomains/" + std::to_string(*at);
      return refuse("the manifest blocks it itself");
    }
    const auto asked = matching(network_.allowed_domains, host, false);
    verdict_.pointer = std::string(kBase) + "allowedDomains";
    if (!asked) return refuse("the manifest does not ask for it (allowedDomains)");
    verdict_.pointer += "/" + std::to_string(*asked);
    const NetworkRules& rules = policy_.network;
    if (const auto at = matching(rules.blocked_domains, host, false)) {
      verdict_.rule = policy_.rule("network.blockedDomains." + std::to_string(*at));
      return refuse("blockedDomains of policy " + policy_.name + " has " + rules.blocked_domains[*at] +
                    ", and blocked wins");
    }
    if (const auto at = matching(rules.allowed_domains, host, true)) {
      verdict_.rule = policy_.rule("network.allowedDomains." + std::to_string(*at));
      return grant("allowedDomains of policy " + policy_.name + " has " + rules.allowed_domains[*at]);
    }
    if (matching(rules.allowed_domains, host, false)) return refuse_port();
    return refuse("policy " + policy_.name + " does not list it: the operator can add it to network.allowedDomains");
  }

  const NetworkPolicy& network_;
  const Policy& policy_;
  std::string_view name_;
  std::uint16_t port_;
  bool host_network_ = false;
  Verdict verdict_;
};

}  // namespace

Verdict connect_verdict(const Manifest& manifest, const Policy& policy, std::string_view name, std::uint16_t port) {
  const bool unsandboxed = !manifest.security.sandbox && !policy.sandbox && policy.grants_power("unsandboxed");
  if (unsandboxed) {
    return {"/security/sandbox", escape_for_terminal(name) + ":" + std::to_string(port),
            "the agent runs unsandboxed, in the host's network: nothing is checked", policy.rule("sandbox"),
            Kind::kGranted};
  }
  return Connection(manifest, policy, name, port).decide();
}

}  // namespace kai
