#include "policies/network_rules.h"

#include <algorithm>
#include <optional>
#include <set>

#include "policies/domains.h"
#include "policies/listed_address.h"

namespace kai {
namespace {

// What the operator cannot set: bounds of what one agent can hold of kai-egress, far from what honest clients need.
constexpr std::uint32_t kDialMs = 10'000;        // a client of the agent's has given up long before
constexpr std::uint32_t kHeadMs = 10'000;        // a ClientHello or head comes at once; a slow one holds a connection
constexpr std::uint32_t kIdleMs = 900'000;       // beyond the keep-alives of servers and of database clients
constexpr std::uint32_t kTotalMs = 86'400'000;   // a day: whoever streams for longer can connect anew
constexpr std::uint32_t kLookupsPerSecond = 50;  // a browser opening a page asks for some 30
constexpr std::uint32_t kNameBitsPerMinute = 8192;  // some 80 names of CDN hashes; a tunnel gets 17 bytes a second

constexpr std::string_view kAllowedPointer = "/security/networkAccess/allowedDomains";
constexpr std::string_view kBlockedPointer = "/security/networkAccess/blockedDomains";
constexpr const char* kConnectionsPointer = "/security/networkAccess/maxConnections";

std::string entry(std::string_view list, std::size_t at) {
  return std::string(list) + (list.front() == '/' ? "/" : ".") + std::to_string(at);
}

void set_bytes(std::string& target, const Address& address) {
  const auto end = address.bytes.begin() + static_cast<std::ptrdiff_t>(address.bits / 8);
  target.assign(address.bytes.begin(), end);
}

using Patterns = google::protobuf::RepeatedPtrField<egress::Pattern>;
using Cidrs = google::protobuf::RepeatedPtrField<egress::Cidr>;

void add_pattern(const std::string& text, std::string rule, Patterns& patterns) {
  const auto read = read_domain_pattern(text);
  if (!read) return;  // no reader of manifests, policies or kaid.yaml lets one through
  egress::Pattern& pattern = *patterns.Add();
  pattern.set_name(read->name);
  pattern.set_subdomains(read->subdomains);
  pattern.set_port(read->port);
  pattern.set_rule(std::move(rule));
}

void add_cidr(const Cidr& block, std::uint16_t port, std::string rule, Cidrs& cidrs) {
  egress::Cidr& cidr = *cidrs.Add();
  set_bytes(*cidr.mutable_network(), block.network);
  cidr.set_prefix(block.prefix);
  cidr.set_port(port);
  cidr.set_rule(std::move(rule));
}

/// Names and addresses are told apart by their form.
void add_entry(const std::string& text, std::string rule, Patterns& patterns, Cidrs& cidrs) {
  if (const auto listed = read_listed_address(text)) {
    add_cidr(listed->block, listed->port, std::move(rule), cidrs);
  } else {
    add_pattern(text, std::move(rule), patterns);
  }
}

/// A list of the manifest's.
void add_listed(const std::vector<std::string>& texts, std::string_view pointer, Patterns& patterns, Cidrs& cidrs) {
  for (std::size_t at = 0; at < texts.size(); ++at) add_entry(texts[at], entry(pointer, at), patterns, cidrs);
}

void set_limits(const Manifest& manifest, const Policy& policy, egress::Limits& limits) {
  const auto asked = manifest.security.network.max_connections;
  const std::uint32_t most = policy.network_limit.max_connections;
  const bool by_manifest = asked && *asked < most;
  limits.set_connections(by_manifest ? *asked : most);
  limits.set_connections_rule(by_manifest ? kConnectionsPointer : policy.rule("networkLimit.maxConnections"));
  limits.set_bytes_per_second(policy.network_limit.bandwidth_kb * std::uint64_t{1024});
  limits.set_dial_ms(kDialMs);
  limits.set_head_ms(kHeadMs);
  limits.set_idle_ms(kIdleMs);
  limits.set_total_ms(kTotalMs);
  limits.set_lookups(kLookupsPerSecond);
  limits.set_name_bits(kNameBitsPerMinute);
}

void set_protocols(const Policy& policy, egress::Rules& rules) {
  for (const std::string& word : policy.network_limit.allowed_protocols) {
    if (word == "tcp") rules.add_protocols(egress::TCP);
    if (word == "tls") rules.add_protocols(egress::TLS);
    if (word == "http") rules.add_protocols(egress::HTTP);
  }
  rules.set_protocols_rule(policy.rule("networkLimit.allowedProtocols"));
}

void set_policy_network(const Policy& policy, egress::Rules& rules) {
  const NetworkRules& network = policy.network;
  constexpr std::string_view kAllowed = "network.allowedDomains";
  constexpr std::string_view kBlocked = "network.blockedDomains";
  constexpr std::string_view kCidrs = "network.allowedCidrs";
  for (std::size_t at = 0; at < network.allowed_domains.size(); ++at) {
    add_pattern(network.allowed_domains[at], policy.rule(entry(kAllowed, at)), *rules.mutable_allowed());
  }
  for (std::size_t at = 0; at < network.blocked_domains.size(); ++at) {
    add_entry(network.blocked_domains[at], policy.rule(entry(kBlocked, at)), *rules.mutable_blocked(),
              *rules.mutable_declined_addresses());
  }
  for (std::size_t at = 0; at < network.allowed_cidrs.size(); ++at) {
    const auto cidr = read_cidr(network.allowed_cidrs[at]);
    if (cidr) add_cidr(*cidr, 0, policy.rule(entry(kCidrs, at)), *rules.mutable_cidrs());
  }
  for (const std::uint16_t port : network.ports) rules.add_ports(port);
  for (const auto& [name, text] : network.hosts) {
    const auto address = read_address(text);
    if (!address) continue;
    egress::StaticHost& host = *rules.add_hosts();
    host.set_name(name);
    set_bytes(*host.mutable_address(), *address);
    host.set_rule(policy.rule("network.hosts." + name));
  }
  rules.set_allowed_rule(policy.rule(kAllowed));
  rules.set_cidrs_rule(policy.rule(kCidrs));
  rules.set_ports_rule(policy.rule("network.ports"));
}

/// An entry with what blocks it whole. Found once for each entry, not for each pair of entries: a manifest could make
/// those hundreds of thousands.
struct Entry {
  const egress::Pattern* said;
  DomainPattern pattern;
  std::vector<std::uint16_t> blocked;  ///< at these ports; 0: at all

  [[nodiscard]] bool is_blocked(std::uint32_t port) const {
    return std::any_of(blocked.begin(), blocked.end(), [&](std::uint16_t each) { return each == 0 || each == port; });
  }
};

std::vector<Entry> entries_of(const Patterns& patterns, const std::vector<DomainPattern>& blocks) {
  std::vector<Entry> entries;
  for (const egress::Pattern& said : patterns) {
    Entry entry{.said = &said, .pattern = pattern_of(said)};
    for (const DomainPattern& block : blocks) {
      if (covers(block, entry.pattern)) entry.blocked.push_back(block.port);
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

/// What both entries have; nullopt: nothing, at no port.
std::optional<egress::Pattern> both(const Entry& asked, const Entry& allowed, const std::set<std::uint32_t>& ports) {
  const std::uint32_t port = allowed.pattern.port != 0 ? allowed.pattern.port : asked.pattern.port;
  const bool same_port = allowed.pattern.port == 0 || asked.pattern.port == 0 || asked.pattern.port == port;
  const bool listed = allowed.pattern.port != 0 || (port == 0 ? !ports.empty() : ports.contains(port));
  if (!same_port || !listed || port == kDnsPort) return std::nullopt;
  const bool asked_is_narrower = covers(allowed.pattern, asked.pattern);
  if (!asked_is_narrower && !covers(asked.pattern, allowed.pattern)) return std::nullopt;
  const Entry& narrower = asked_is_narrower ? asked : allowed;
  if (narrower.is_blocked(port)) return std::nullopt;
  egress::Pattern result = *narrower.said;
  result.set_port(port);
  result.set_rule(allowed.said->rule());
  return result;
}

}  // namespace

egress::Rules network_rules(const Manifest& manifest, const Policy& policy, const std::vector<GlobalBlock>& blocked) {
  egress::Rules rules;
  rules.set_agent_id(manifest.id);
  rules.set_policy(policy.name);
  const NetworkPolicy& network = manifest.security.network;
  add_listed(network.allowed_domains, kAllowedPointer, *rules.mutable_asked(), *rules.mutable_asked_addresses());
  add_listed(network.blocked_domains, kBlockedPointer, *rules.mutable_declined(), *rules.mutable_declined_addresses());
  set_policy_network(policy, rules);
  for (const GlobalBlock& block : blocked) {
    add_entry(block.pattern, block.rule, *rules.mutable_blocked(), *rules.mutable_declined_addresses());
  }
  set_limits(manifest, policy, *rules.mutable_limits());
  set_protocols(policy, rules);
  return rules;
}

std::vector<egress::Pattern> reachable_names(const egress::Rules& rules) {
  std::vector<egress::Pattern> reachable;
  if (rules.limits().connections() == 0 || rules.protocols().empty()) return reachable;
  std::vector<DomainPattern> blocks;
  for (const egress::Pattern& block : rules.declined()) blocks.push_back(pattern_of(block));
  for (const egress::Pattern& block : rules.blocked()) blocks.push_back(pattern_of(block));
  const std::set<std::uint32_t> ports(rules.ports().begin(), rules.ports().end());
  const std::vector<Entry> asked = entries_of(rules.asked(), blocks);
  for (const Entry& allowed : entries_of(rules.allowed(), blocks)) {
    for (const Entry& each : asked) {
      if (auto pattern = both(each, allowed, ports)) reachable.push_back(std::move(*pattern));
    }
  }
  return reachable;
}

bool reaches_addresses(const egress::Rules& rules) {
  const bool asks = !rules.asked().empty() || !rules.asked_addresses().empty();
  return asks && !rules.cidrs().empty() && !rules.ports().empty() && !rules.protocols().empty() &&
         rules.limits().connections() != 0;
}

std::vector<std::uint16_t> network_ports(const egress::Rules& rules) {
  std::set<std::uint32_t> ports;
  const auto add_listed_ports = [&] { ports.insert(rules.ports().begin(), rules.ports().end()); };
  if (reaches_addresses(rules)) add_listed_ports();
  for (const egress::Pattern& pattern : reachable_names(rules)) {
    if (pattern.port() == 0) {
      add_listed_ports();
    } else {
      ports.insert(pattern.port());
    }
  }
  ports.erase(kDnsPort);  // egress's own
  std::vector<std::uint16_t> result;
  for (const std::uint32_t port : ports) {
    if (result.size() < kMaxNetworkPorts && port >= 1 && port <= 65535)
      result.push_back(static_cast<std::uint16_t>(port));
  }
  return result;
}

}  // namespace kai
