// What becomes of the manifest's networkAccess: a verdict for each entry, as far as it can be told of a whole pattern
// or block. Single connections are decided in network_decisions.cc, by the same rules.
#include <algorithm>

#include "policies/addresses.h"
#include "policies/decide.h"
#include "policies/domains.h"
#include "policies/network_rules.h"

namespace kai {
namespace {

using Kind = Verdict::Kind;

constexpr const char* kBase = "/security/networkAccess/";

bool covers(const Cidr& outer, const Cidr& inner) {
  return outer.prefix <= inner.prefix && contains(outer, inner.network);
}

/// What of an entry is blocked all the same, the first few by name: a list of blocks has up to thousands.
class Exceptions {
 public:
  void add(const std::string& block) {
    constexpr std::size_t kNamed = 5;
    if (count_++ < kNamed) named_ += (named_.empty() ? ", but for " : ", ") + block;
    if (count_ > kNamed) more_ = " and " + std::to_string(count_ - kNamed) + " more";
  }
  [[nodiscard]] std::string text() const { return named_ + more_; }

 private:
  std::size_t count_ = 0;
  std::string named_, more_;
};

/// One policy's verdicts on the entries of allowedDomains.
class Entries {
 public:
  explicit Entries(const egress::Rules& rules) : rules_(rules), policy_("policy " + rules.policy()) {
    for (const egress::Pattern& each : rules.declined()) blocks_.push_back({pattern_of(each), &each.rule(), true});
    for (const egress::Pattern& each : rules.blocked()) blocks_.push_back({pattern_of(each), &each.rule(), false});
    for (const egress::Pattern& each : rules.allowed()) allowed_.push_back({pattern_of(each), &each.rule()});
  }

  /// Of a name or a pattern.
  [[nodiscard]] Verdict decide(const egress::Pattern& entry) const {
    const DomainPattern asked = pattern_of(entry);
    Verdict verdict = trimmed(entry.rule(), rules_.allowed_rule());
    if (refused_at(asked.port, verdict)) return verdict;
    Exceptions except;
    for (const Block& block : blocks_) {
      const bool whole = covers(block.pattern, asked);
      if (whole && (block.pattern.port == 0 || block.pattern.port == asked.port)) {
        verdict.reason = block.by_manifest
                             ? "the manifest blocks it itself"
                             : "blockedDomains has " + block.pattern.text() + ", and blocked wins over allowed";
        verdict.rule = *block.rule;
        return verdict;
      }
      if (whole || covers(asked, block.pattern)) except.add(block.pattern.text());
    }
    allow(asked, except.text(), verdict);
    return verdict;
  }

  /// Of an address or a block of addresses.
  [[nodiscard]] Verdict decide(const egress::Cidr& entry) const {
    const Cidr asked = *block_of(entry);  // network_rules() makes no others
    const auto port = static_cast<std::uint16_t>(entry.port());
    Verdict verdict = trimmed(entry.rule(), rules_.cidrs_rule());
    if (refused_at(port, verdict)) return verdict;
    // The loopback is one block of each family: where its first address leads nowhere, all of it does.
    if (address_text(asked.network).starts_with("127.") || address_text(asked.network) == "::1") {
      verdict.reason = "this is the sandbox's own loopback";
      verdict.rule = "builtin";
      return verdict;
    }
    Exceptions except;
    for (const egress::Cidr& block : rules_.declined_addresses()) {
      const bool whole = covers(*block_of(block), asked);
      if (whole && (block.port() == 0 || block.port() == port)) {
        verdict.reason = is_of_manifest(block)
                             ? "the manifest blocks it itself"
                             : "blockedDomains has " + listed_text(block) + ", and blocked wins over allowed";
        verdict.rule = block.rule();
        return verdict;
      }
      const bool same_port = block.port() == 0 || port == 0 || block.port() == port;
      if (same_port && (whole || covers(asked, *block_of(block)))) except.add(listed_text(block));
    }
    allow(asked, port, except.text(), verdict);
    return verdict;
  }

 private:
  static Verdict trimmed(const std::string& pointer, const std::string& rule) {
    return {pointer, {}, {}, rule, Kind::kTrimmed};
  }

  bool refused_at(std::uint16_t port, Verdict& verdict) const {
    constexpr std::uint16_t kAnyPort = 443;  // what refuses every port refuses this one
    const NetworkDecision decision = decide_port(rules_, port == 0 ? kAnyPort : port);
    if (decision.allowed) return false;
    verdict.reason = decision.reason;
    verdict.rule = decision.rule;
    return true;
  }

  [[nodiscard]] bool is_listed(std::uint16_t port) const {
    return std::find(rules_.ports().begin(), rules_.ports().end(), port) != rules_.ports().end();
  }

  /// The best that the policy has for what was asked: whole, on fewer ports or for fewer names, or nothing.
  struct Match {
    enum class Fit { kNone, kFewerNames, kFewerPorts, kOtherPort, kWhole } fit = Fit::kNone;
    DomainPattern pattern;
    std::string rule;
  };

  [[nodiscard]] Match best_match(const DomainPattern& asked) const {
    Match best;
    for (const auto& [pattern, rule] : allowed_) {
      Match::Fit fit = Match::Fit::kNone;
      if (covers(pattern, asked)) {
        const bool listed = asked.port == 0 ? !rules_.ports().empty() : is_listed(asked.port);
        const bool whole = pattern.port == 0 ? listed : pattern.port == asked.port;
        fit = whole                                  ? Match::Fit::kWhole
              : pattern.port != 0 && asked.port == 0 ? Match::Fit::kFewerPorts
                                                     : Match::Fit::kOtherPort;
      } else if (covers(asked, pattern)) {
        fit = Match::Fit::kFewerNames;
      }
      if (fit > best.fit) best = {fit, pattern, *rule};
    }
    return best;
  }

  void allow(const DomainPattern& asked, const std::string& except, Verdict& verdict) const {
    const Match match = best_match(asked);
    if (match.fit != Match::Fit::kNone) verdict.rule = match.rule;
    switch (match.fit) {
      case Match::Fit::kWhole:
        verdict.kind = Kind::kGranted;
        verdict.reason = "allowed by " + match.pattern.text() + except;
        return;
      case Match::Fit::kOtherPort:
        if (match.pattern.port == 0) verdict.rule = rules_.ports_rule();
        verdict.reason = policy_ + " allows " + match.pattern.text() +
                         (match.pattern.port != 0 ? " and no other port"
                          : asked.port == 0       ? ", but on no port: list some under network.ports"
                                                  : ", but not this port: add it to network.ports, or " + asked.text() +
                                                  " to allowedDomains");
        return;
      case Match::Fit::kFewerPorts:
      case Match::Fit::kFewerNames:
        verdict.reason = policy_ + " allows of it only " + match.pattern.text() + except;
        return;
      case Match::Fit::kNone:
        verdict.reason = rules_.allowed().empty()
                             ? policy_ + " allows no names: the operator can list it in network.allowedDomains"
                             : policy_ + " does not list it: the operator can add it to network.allowedDomains";
        return;
    }
  }

  void allow(const Cidr& asked, std::uint16_t port, const std::string& except, Verdict& verdict) const {
    std::string parts;
    for (const egress::Cidr& allowed : rules_.cidrs()) {
      const Cidr block = *block_of(allowed);
      if (covers(asked, block) && !covers(block, asked)) parts += (parts.empty() ? "" : ", ") + text_of(allowed);
      if (!covers(block, asked)) continue;
      if (port == 0 ? rules_.ports().empty() : !is_listed(port)) {
        verdict.rule = rules_.ports_rule();
        verdict.reason =
            policy_ + " has it in allowedCidrs, but " +
            (port == 0 ? "no port: list some under network.ports" : "not this port: add it to network.ports");
        return;
      }
      verdict.kind = Kind::kGranted;
      verdict.rule = allowed.rule();
      verdict.reason = "allowed by " + text_of(allowed) + " of allowedCidrs" + except;
      return;
    }
    verdict.reason = parts.empty() ? policy_ + " does not list it: the operator can add it to network.allowedCidrs"
                                   : policy_ + " allows of it only " + parts + except;
  }

  struct Block {
    DomainPattern pattern;
    const std::string* rule;
    bool by_manifest;
  };

  const egress::Rules& rules_;
  std::string policy_;
  std::vector<Block> blocks_;
  std::vector<std::pair<DomainPattern, const std::string*>> allowed_;
};

/// What egress gives as a whole, where it gives anything.
void decide_outbound(const NetworkPolicy& asked, const Policy& policy, const egress::Rules& rules, Verdict& verdict) {
  const std::string name = "policy " + policy.name + " (" + policy.rule("network.allowedDomains") + ")";
  constexpr std::uint16_t kAnyPort = 443;  // what refuses every port refuses this one
  if (asked.allowed_domains.empty()) {
    verdict.reason = "the manifest lists no allowedDomains: no list, no network";
    verdict.rule = std::string(kBase) + "allowedDomains";
  } else if (rules.limits().connections() == 0) {
    const NetworkDecision none = decide_port(rules, kAnyPort);
    verdict.reason = none.reason;
    verdict.rule = none.rule;
  } else if (rules.allowed().empty() && rules.cidrs().empty()) {
    verdict.reason = name + " allows no network: the operator can list names in network.allowedDomains";
  } else if (reachable_names(rules).empty() && !reaches_addresses(rules)) {
    verdict.reason = "nothing of it is left: each entry says why";
  } else {
    verdict.kind = Kind::kGranted;
    verdict.reason = "TCP by name through egress, at most " + std::to_string(rules.limits().connections()) +
                     " connections at once and " + std::to_string(policy.network_limit.bandwidth_kb) +
                     " KB/s each way; UDP only for DNS";
  }
}

void decide_connections(const NetworkPolicy& network, const Policy& policy, Decisions& decisions) {
  if (!network.max_connections) return;
  Verdict verdict{std::string(kBase) + "maxConnections", std::to_string(*network.max_connections),
                  "within networkLimit.maxConnections", policy.rule("networkLimit.maxConnections"), Kind::kGranted};
  if (*network.max_connections > policy.network_limit.max_connections) {
    verdict.kind = Kind::kTrimmed;
    verdict.reason = "networkLimit of policy " + policy.name + " (" + verdict.rule + ") gives " +
                     std::to_string(policy.network_limit.max_connections);
  } else if (*network.max_connections == 0) {
    verdict.rule = verdict.pointer;
  }
  decisions.verdicts.push_back(std::move(verdict));
}

/// In the host's network, where nobody checks names.
void decide_unchecked(const NetworkPolicy& network, const Policy& policy, Verdict outbound, Decisions& decisions) {
  const std::string why = decisions.unsandboxed ? "unsandboxed" : "by the grant hostNetwork";
  outbound.kind = Kind::kGranted;
  outbound.rule = policy.rule(decisions.unsandboxed ? "sandbox" : "grants");
  Verdict entry = outbound;
  outbound.reason = why + ": the host's network" +
                    (decisions.unsandboxed ? ", whole" : ", TCP to every address on network.ports, and UDP anywhere");
  decisions.verdicts.push_back(std::move(outbound));
  entry.reason = why + ": names are not checked";
  for (std::size_t at = 0; at < network.allowed_domains.size(); ++at) {
    entry.pointer = std::string(kBase) + "allowedDomains/" + std::to_string(at);
    entry.asked = network.allowed_domains[at];
    decisions.verdicts.push_back(entry);
  }
}

}  // namespace

void decide_network(const Manifest& manifest, const Policy& policy, Decisions& decisions) {
  const NetworkPolicy& network = manifest.security.network;
  if (!network.allow_outbound) return;
  decisions.host_network = !decisions.unsandboxed && policy.grants_power("hostNetwork");
  const std::string asked =
      network.allowed_domains.empty() ? "outbound connections" : "connections to " + joined(network.allowed_domains);
  Verdict outbound{
      std::string(kBase) + "allowOutbound", asked, {}, policy.rule("network.allowedDomains"), Kind::kTrimmed};
  if (decisions.host_network || decisions.unsandboxed) {
    decide_unchecked(network, policy, std::move(outbound), decisions);
    return decide_connections(network, policy, decisions);
  }
  const egress::Rules rules = network_rules(manifest, policy, policy.global_blocks);
  decide_outbound(network, policy, rules, outbound);
  decisions.verdicts.push_back(std::move(outbound));
  const Entries entries(rules);
  std::vector<Verdict> each(network.allowed_domains.size());
  const auto put = [&](Verdict verdict) {
    const std::size_t at = std::stoul(verdict.pointer.substr(verdict.pointer.rfind('/') + 1));
    verdict.asked = network.allowed_domains[at];
    each[at] = std::move(verdict);
  };
  for (const egress::Pattern& entry : rules.asked()) put(entries.decide(entry));
  for (const egress::Cidr& entry : rules.asked_addresses()) put(entries.decide(entry));
  for (Verdict& verdict : each) decisions.verdicts.push_back(std::move(verdict));
  decide_connections(network, policy, decisions);
}

}  // namespace kai
