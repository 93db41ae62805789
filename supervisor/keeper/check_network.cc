#include "supervisor/keeper/check_network.h"

#include <algorithm>
#include <array>
#include <set>
#include <tuple>

#include "base/text.h"
#include "policies/manifest.h"
#include "policies/network_rules.h"
#include "supervisor/keeper/check.h"

namespace kai::keeper {
namespace {

// What tells two entries apart; where they stand (`rule`) is for messages.
auto key(const egress::Pattern& pattern) {
  return std::tuple(pattern.name(), pattern.subdomains(), pattern.port());
}
auto key(const egress::Cidr& cidr) {
  return std::tuple(cidr.network(), cidr.prefix(), cidr.port());
}
auto key(const egress::StaticHost& host) {
  return std::tuple(host.name(), host.address());
}
auto key(int protocol) {
  return protocol;
}
auto key(std::uint32_t port) {
  return port;
}

template <typename List>
bool all_in(const List& inner, const List& outer) {
  std::set<decltype(key(*outer.begin()))> known;
  for (const auto& entry : outer) known.insert(key(entry));
  return std::all_of(inner.begin(), inner.end(), [&](const auto& entry) { return known.contains(key(entry)); });
}

/// 0 is nothing at all for connections, and might be no limit for the others.
bool within(const egress::Limits& limits, const egress::Limits& most) {
  struct Pair {
    std::uint64_t value, most;
  };
  const std::array<Pair, 7> pairs = {{{limits.bytes_per_second(), most.bytes_per_second()},
                                      {limits.dial_ms(), most.dial_ms()},
                                      {limits.head_ms(), most.head_ms()},
                                      {limits.idle_ms(), most.idle_ms()},
                                      {limits.total_ms(), most.total_ms()},
                                      {limits.lookups(), most.lookups()},
                                      {limits.name_bits(), most.name_bits()}}};
  return limits.connections() <= most.connections() && std::all_of(pairs.begin(), pairs.end(), [](const Pair& pair) {
           return pair.value <= pair.most && (pair.value > 0 || pair.most == 0);
         });
}

}  // namespace

Result<> check_rules(const egress::Rules& rules, const std::string& agent_id, const PolicySet& policies) {
  if (rules.agent_id() != agent_id) return failure("network rules of another agent");
  if (rules.ByteSizeLong() > kMaxRulesBytes) {
    return failure("more network rules than an agent may have; shorten the policy's or the manifest's lists of names");
  }
  const std::string shown = escape_for_terminal(rules.policy().substr(0, 200));
  const Policy* const policy = policies.named(rules.policy());
  if (policy == nullptr) return failure("no operator policy of the name that the network rules give:", shown);
  const egress::Rules most = network_rules(Manifest{}, *policy, policy->global_blocks);
  const auto beyond = [&](const char* key) {
    return failure(std::string("the network rules go beyond the policy's ") + key + ":", shown);
  };
  if (!all_in(rules.allowed(), most.allowed())) return beyond("allowedDomains");
  if (!all_in(most.blocked(), rules.blocked())) return beyond("blockedDomains, or kaid.yaml's");
  if (!all_in(most.declined_addresses(), rules.declined_addresses())) return beyond("blockedDomains, or kaid.yaml's");
  if (!all_in(rules.cidrs(), most.cidrs())) return beyond("allowedCidrs");
  if (!all_in(rules.hosts(), most.hosts())) return beyond("hosts");
  if (!all_in(rules.ports(), most.ports())) return beyond("ports");
  if (!all_in(rules.protocols(), most.protocols())) return beyond("allowedProtocols");
  return within(rules.limits(), most.limits()) ? Result<>{} : beyond("limits");
}

Result<egress::Rules> read_rules(const Fd& memfd, const std::string& agent_id, const PolicySet& policies) {
  const auto bytes = read_sealed(memfd, "network rules", kMaxRulesBytes);
  if (!bytes) return tl::unexpected(bytes.error());
  egress::Rules rules;
  if (!rules.ParseFromString(*bytes)) return failure("the network rules are no Rules");
  if (auto done = check_rules(rules, agent_id, policies); !done) return tl::unexpected(done.error());
  return rules;
}

}  // namespace kai::keeper
