// Whether a connection would pass (policy_check.h): what kai-egress would decide, by the same rules and functions, as
// far as that can be told before the name is resolved and anything is spoken.
#include <algorithm>

#include "base/text.h"
#include "policies/addresses.h"
#include "policies/domains.h"
#include "policies/network_rules.h"
#include "policies/policy_check.h"
#include "policies/written_domains.h"

namespace kai {
namespace {

using Kind = Verdict::Kind;

constexpr const char* kBase = "/security/networkAccess/";

/// The last part of the answer: what has to be spoken. An address has no server_name to be held to.
std::string spoken(const egress::Rules& rules, std::uint16_t port, bool by_name) {
  const auto protocols = expected_protocols(rules, port);
  const auto has = [&](egress::Protocol protocol) {
    return std::find(protocols.begin(), protocols.end(), protocol) != protocols.end();
  };
  if (has(egress::TCP)) return "; whatever is spoken passes unchecked (tcp)";
  const std::string tls = by_name ? "TLS for this very name" : "TLS";
  const std::string http = "HTTP for this very host";
  if (has(egress::TLS) && has(egress::HTTP)) return "; checked: " + tls + ", or " + http;
  return "; checked: " + (has(egress::TLS) ? tls : http);
}

Verdict of_decision(const NetworkDecision& decision, Verdict verdict) {
  verdict.kind = decision.allowed ? Kind::kGranted : Kind::kRefused;
  verdict.reason = decision.reason;
  verdict.rule = decision.rule;
  if (decision.rule.starts_with('/')) verdict.pointer = decision.rule;
  return verdict;
}

Verdict decide_address(const egress::Rules& rules, const Address& address, std::uint16_t port, Verdict verdict) {
  NetworkDecision decision = decide_literal(rules, address, port);
  if (decision.allowed) decision.reason += spoken(rules, port, false);
  return of_decision(decision, std::move(verdict));
}

Verdict decide_name(const egress::Rules& rules, const std::string& host, std::uint16_t port, Verdict verdict) {
  for (const egress::Pattern& pattern : rules.asked()) {
    if (!names_host(pattern.name(), pattern.subdomains(), host)) continue;
    verdict.pointer = pattern.rule();
    if (pattern.port() == 0 || pattern.port() == port) break;
  }
  NetworkDecision decision = decide_connection(rules, host, port);
  if (!decision.allowed) return of_decision(decision, std::move(verdict));
  decision.reason += spoken(rules, port, true);
  const auto mapped = std::find_if(rules.hosts().begin(), rules.hosts().end(),
                                   [&](const egress::StaticHost& each) { return each.name() == host; });
  if (mapped == rules.hosts().end()) {
    decision.reason += rules.cidrs().empty() ? ", wherever public it leads"
                                             : ", wherever public it leads, or where allowedCidrs has it";
    return of_decision(decision, std::move(verdict));
  }
  const auto address = address_of(mapped->address());
  const NetworkDecision dialled = decide_dialled(rules, *address, port);
  if (!dialled.allowed) return of_decision(dialled, std::move(verdict));
  decision.reason += ", at " + address_text(*address) + " by network.hosts";
  return of_decision(decision, std::move(verdict));
}

Verdict decide_host_network(const Policy& policy, std::uint16_t port, Verdict verdict) {
  const auto& ports = policy.network.ports;
  if (std::find(ports.begin(), ports.end(), port) == ports.end()) {
    verdict.rule = policy.rule("network.ports");
    verdict.reason = "network.ports of policy " + policy.name + " does not have port " + std::to_string(port);
    return verdict;
  }
  verdict.kind = Kind::kGranted;
  verdict.rule = policy.rule("grants");
  verdict.reason = "by the grant hostNetwork: the host's network, every address on network.ports";
  return verdict;
}

}  // namespace

Verdict connect_verdict(const Manifest& manifest, const Policy& policy, std::string_view name, std::uint16_t port) {
  Verdict verdict{std::string(kBase) + "allowOutbound",
                  escape_for_terminal(name) + ":" + std::to_string(port),
                  {},
                  policy.rule("network.allowedDomains"),
                  Kind::kRefused};
  if (!manifest.security.sandbox && !policy.sandbox && policy.grants_power("unsandboxed")) {
    verdict.pointer = "/security/sandbox";
    verdict.kind = Kind::kGranted;
    verdict.reason = "the agent runs unsandboxed, in the host's network: nothing is checked";
    verdict.rule = policy.rule("sandbox");
    return verdict;
  }
  if (!manifest.security.network.allow_outbound) {
    verdict.reason = "the manifest does not ask for outbound connections (allowOutbound)";
    verdict.rule = verdict.pointer;
    return verdict;
  }
  if (policy.grants_power("hostNetwork")) return decide_host_network(policy, port, std::move(verdict));
  const egress::Rules rules = network_rules(manifest, policy, policy.global_blocks);
  if (const auto address = read_address(name)) return decide_address(rules, *address, port, std::move(verdict));
  verdict.pointer = std::string(kBase) + "allowedDomains";
  // As egress takes it; only what a person writes, in Unicode, becomes another.
  auto host = canonical_host(name);
  if (!host) host = written_host(name);
  if (host) {
    verdict.asked = *host + ":" + std::to_string(port);
    return decide_name(rules, *host, port, std::move(verdict));
  }
  verdict.rule = "builtin";
  verdict.reason = "this is no DNS name and no address in its one strict spelling";
  return verdict;
}

}  // namespace kai
