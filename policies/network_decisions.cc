// Each decision by the rules (network_rules.h). What an agent or a server said is in no reason: only what manifest,
// policy and kaid.yaml say.
#include <algorithm>

#include "policies/domains.h"
#include "policies/network_rules.h"

namespace kai {
namespace {

constexpr const char* kBuiltin = "builtin";
constexpr const char* kAllowedPointer = "/security/networkAccess/allowedDomains";

using Found = std::vector<const egress::Pattern*>;

NetworkDecision refuse(std::string reason, std::string rule) {
  return {.reason = std::move(reason), .rule = std::move(rule)};
}

Address unmapped(const Address& address) {
  constexpr std::array<std::uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
  if (address.bits != 128 || !std::equal(kMapped.begin(), kMapped.end(), address.bytes.begin())) return address;
  Address ipv4{.bits = 32};
  std::copy_n(address.bytes.begin() + kMapped.size(), 4, ipv4.bytes.begin());
  return ipv4;
}

bool is_loopback(const Address& address) {
  if (address.bits == 32) return address.bytes[0] == 127;
  const auto last = address.bytes.end() - 1;
  return *last == 1 && std::all_of(address.bytes.begin(), last, [](std::uint8_t byte) { return byte == 0; });
}

/// What is no block has nothing in it: fails closed.
bool has(const egress::Cidr& cidr, const Address& address) {
  const auto block = block_of(cidr);
  return block && contains(*block, address);
}

const egress::Cidr* allowed_cidr(const egress::Rules& rules, const Address& address) {
  const auto found = std::find_if(rules.cidrs().begin(), rules.cidrs().end(),
                                  [&](const egress::Cidr& cidr) { return has(cidr, address); });
  return found == rules.cidrs().end() ? nullptr : &*found;
}

/// The block that has the address, the manifest's first, then the policy's and kaid.yaml's; `port` 0: of whatever port.
const egress::Cidr* declined_cidr(const egress::Rules& rules, const Address& address, std::uint16_t port) {
  const auto& all = rules.declined_addresses();
  const auto carried = carried_address(address);
  const auto found = std::find_if(all.begin(), all.end(), [&](const egress::Cidr& cidr) {
    const bool at_port = cidr.port() == 0 || port == 0 || cidr.port() == port;
    return at_port && (has(cidr, address) || (carried && has(cidr, *carried)));
  });
  return found == all.end() ? nullptr : &*found;
}

/// `what`: whom the manifest blocks, for the sentence.
NetworkDecision refuse_declined(const egress::Cidr& block, const std::string& what) {
  if (is_of_manifest(block)) return refuse("the manifest blocks " + what + " itself", block.rule());
  return refuse("blockedDomains has " + listed_text(block) + ", and blocked wins over allowed", block.rule());
}

bool is_listed(const egress::Rules& rules, std::uint32_t port) {
  return std::find(rules.ports().begin(), rules.ports().end(), port) != rules.ports().end();
}

std::string of_policy(const egress::Rules& rules) {
  return " of policy " + rules.policy();
}

NetworkDecision refuse_port(const egress::Rules& rules, std::uint16_t port) {
  return refuse("network.ports" + of_policy(rules) + " does not have port " + std::to_string(port) +
                    ": the operator can add it there",
                rules.ports_rule());
}

/// The entries of each list that have one name, of which a decision at any port is quick.
class NameRules {
 public:
  NameRules(const egress::Rules& rules, std::string_view host)
      : rules_(rules),
        is_name_(canonical_host(host) == host),
        declined_(naming(rules.declined(), host)),
        asked_(naming(rules.asked(), host)),
        blocked_(naming(rules.blocked(), host)),
        allowed_(naming(rules.allowed(), host)) {}

  [[nodiscard]] NetworkDecision decide(std::uint16_t port) const {
    if (!is_name_) return refuse("this is no DNS name", kBuiltin);
    if (const auto any = decide_port(rules_, port); !any.allowed) return any;
    if (const auto* pattern = at_port(declined_, port)) return refuse("the manifest blocks it itself", pattern->rule());
    if (asked_.empty()) {
      return refuse("the manifest does not ask for it: its author can list it in allowedDomains", kAllowedPointer);
    }
    if (at_port(asked_, port) == nullptr) {
      return refuse("the manifest asks for " + text_of(*asked_.front()) + " and no other port", asked_.front()->rule());
    }
    if (const auto* pattern = at_port(blocked_, port)) {
      return refuse("blockedDomains has " + text_of(*pattern) + ", and blocked wins over allowed", pattern->rule());
    }
    return decide_allowed(port);
  }

  /// Those at which a connection may be, the most telling first.
  [[nodiscard]] std::vector<std::uint16_t> ports() const {
    std::vector<std::uint16_t> all;
    const auto add = [&](std::uint32_t port) {
      if (port != 0) all.push_back(static_cast<std::uint16_t>(port));
    };
    for (const auto* pattern : asked_) add(pattern->port());
    for (const auto* pattern : allowed_) add(pattern->port());
    for (const std::uint32_t port : rules_.ports()) add(port);
    if (all.empty()) all.push_back(443);  // refused there, with the reason that holds at every port
    return all;
  }

 private:
  static Found naming(const google::protobuf::RepeatedPtrField<egress::Pattern>& patterns, std::string_view host) {
    Found found;
    for (const egress::Pattern& pattern : patterns) {
      if (names_host(pattern.name(), pattern.subdomains(), host)) found.push_back(&pattern);
    }
    return found;
  }

  static const egress::Pattern* at_port(const Found& patterns, std::uint16_t port) {
    const auto found = std::find_if(patterns.begin(), patterns.end(),
                                    [&](const auto* each) { return each->port() == 0 || each->port() == port; });
    return found == patterns.end() ? nullptr : *found;
  }

  [[nodiscard]] NetworkDecision decide_allowed(std::uint16_t port) const {
    if (allowed_.empty()) {
      return refuse(
          "policy " + rules_.policy() + " does not list it: the operator can add it to network.allowedDomains",
          rules_.allowed_rule());
    }
    for (const auto* pattern : allowed_) {
      if (pattern->port() != port && (pattern->port() != 0 || !is_listed(rules_, port))) continue;
      return {.allowed = true,
              .reason = "allowedDomains" + of_policy(rules_) + " has " + text_of(*pattern),
              .rule = pattern->rule()};
    }
    const bool by_ports =
        std::any_of(allowed_.begin(), allowed_.end(), [](const auto* each) { return each->port() == 0; });
    if (by_ports) return refuse_port(rules_, port);
    return refuse("policy " + rules_.policy() + " allows " + text_of(*allowed_.front()) + " and no other port",
                  allowed_.front()->rule());
  }

  const egress::Rules& rules_;
  bool is_name_;
  Found declined_, asked_, blocked_, allowed_;
};

}  // namespace

DomainPattern pattern_of(const egress::Pattern& pattern) {
  return {pattern.name(), pattern.subdomains(), static_cast<std::uint16_t>(pattern.port())};
}

std::string text_of(const egress::Pattern& pattern) {
  return pattern_of(pattern).text();
}

std::optional<Address> address_of(std::string_view bytes) {
  if (bytes.size() != 4 && bytes.size() != 16) return std::nullopt;
  Address address{.bits = static_cast<unsigned>(bytes.size() * 8)};
  std::transform(bytes.begin(), bytes.end(), address.bytes.begin(),
                 [](char c) { return static_cast<std::uint8_t>(c); });
  return address;
}

std::optional<Cidr> block_of(const egress::Cidr& cidr) {
  const auto network = address_of(cidr.network());
  if (!network || cidr.prefix() > network->bits) return std::nullopt;
  return Cidr{.network = *network, .prefix = cidr.prefix()};
}

std::string text_of(const egress::Cidr& cidr) {
  const auto block = block_of(cidr);
  return block ? address_text(block->network) + "/" + std::to_string(block->prefix) : "no block of addresses";
}

std::string listed_text(const egress::Cidr& cidr) {
  const auto block = block_of(cidr);
  if (!block || block->prefix != block->network.bits) return text_of(cidr);
  const std::string address = address_text(block->network);
  if (cidr.port() == 0) return address;
  return (block->network.bits == 32 ? address : "[" + address + "]") + ":" + std::to_string(cidr.port());
}

bool is_of_manifest(const egress::Cidr& block) {
  return block.rule().starts_with('/');
}

NetworkDecision decide_port(const egress::Rules& rules, std::uint16_t port) {
  const egress::Limits& limits = rules.limits();
  if (!rules.has_limits()) return refuse("its network is cut: the agent is quarantined, or was terminated", kBuiltin);
  if (limits.connections() == 0) {
    return limits.connections_rule().starts_with('/')
               ? refuse("the manifest's maxConnections is 0: it allows itself no connection", limits.connections_rule())
               : refuse(
                     "networkLimit" + of_policy(rules) + " allows no connection: the operator can raise maxConnections",
                     limits.connections_rule());
  }
  if (port == kDnsPort) return refuse("port 53 is the DNS of the sandbox's own, and leads to nobody else", kBuiltin);
  if (expected_protocols(rules, port).empty()) {
    return refuse("networkLimit.allowedProtocols" + of_policy(rules) +
                      " is empty, so that nothing may be spoken: the operator can list tls, http or tcp there",
                  rules.protocols_rule());
  }
  return {.allowed = true};
}

NetworkDecision decide_connection(const egress::Rules& rules, std::string_view host, std::uint16_t port) {
  return NameRules(rules, host).decide(port);
}

NetworkDecision decide_lookup(const egress::Rules& rules, std::string_view host) {
  const NameRules name(rules, host);
  NetworkDecision first;
  for (const std::uint16_t port : name.ports()) {
    NetworkDecision decision = name.decide(port);
    if (decision.allowed) return decision;
    if (first.reason.empty()) first = std::move(decision);
  }
  return first;
}

NetworkDecision decide_literal(const egress::Rules& rules, const Address& given, std::uint16_t port) {
  const Address address = unmapped(given);
  if (const auto any = decide_port(rules, port); !any.allowed) return any;
  if (rules.asked().empty() && rules.asked_addresses().empty()) {
    return refuse("the manifest lists nobody in allowedDomains: no list, no network", kAllowedPointer);
  }
  if (is_loopback(address)) {
    return refuse("this is the loopback of the sandbox's own, which leads to nobody outside", kBuiltin);
  }
  if (const auto* cidr = declined_cidr(rules, address, port)) {
    return refuse_declined(*cidr, "it");
  }
  const egress::Cidr* cidr = allowed_cidr(rules, address);
  if (cidr == nullptr) {
    return refuse("allowedCidrs" + of_policy(rules) +
                      " does not have this address, and names do not open it: connect by name, or let the operator add "
                      "it there",
                  rules.cidrs_rule());
  }
  if (!is_listed(rules, port)) return refuse_port(rules, port);
  return {
      .allowed = true, .reason = "allowedCidrs" + of_policy(rules) + " has " + text_of(*cidr), .rule = cidr->rule()};
}

NetworkDecision decide_dialled(const egress::Rules& rules, const Address& given, std::uint16_t port) {
  const Address address = unmapped(given);
  if (const auto* cidr = declined_cidr(rules, address, port)) {
    return refuse_declined(*cidr, address_text(address));
  }
  const char* special = special_address(address);
  if (special == nullptr) return {.allowed = true, .reason = "a public address", .rule = kBuiltin};
  if (const egress::Cidr* cidr = allowed_cidr(rules, address)) {
    return {
        .allowed = true, .reason = "allowedCidrs" + of_policy(rules) + " has " + text_of(*cidr), .rule = cidr->rule()};
  }
  return refuse(address_text(address) + " " + special +
                    ": a name may lead there only if the operator lists it in network.allowedCidrs" + of_policy(rules),
                rules.cidrs_rule());
}

NetworkDecision decide_own_address(const egress::Rules& rules, const Address& given) {
  const Address address = unmapped(given);
  if (const egress::Cidr* cidr = allowed_cidr(rules, address)) {
    return {
        .allowed = true, .reason = "allowedCidrs" + of_policy(rules) + " has " + text_of(*cidr), .rule = cidr->rule()};
  }
  return refuse(address_text(address) +
                    " is an address of this machine: a name may lead there only if the operator lists it in "
                    "network.allowedCidrs" +
                    of_policy(rules),
                rules.cidrs_rule());
}

std::vector<egress::Protocol> expected_protocols(const egress::Rules& rules, std::uint16_t port) {
  constexpr std::uint16_t kHttps = 443;
  constexpr std::uint16_t kHttp = 80;
  const auto allows = [&](egress::Protocol protocol) {
    const auto& all = rules.protocols();
    return std::find(all.begin(), all.end(), protocol) != all.end();
  };
  if (allows(egress::TCP)) return {egress::TCP};
  const bool tls = allows(egress::TLS);
  const bool http = allows(egress::HTTP);
  if (tls && http && port != kHttps && port != kHttp) return {egress::TLS, egress::HTTP};
  if (tls && (!http || port == kHttps)) return {egress::TLS};
  if (http) return {egress::HTTP};
  return {};
}

}  // namespace kai
