// Random manifests, policies and connections: what explain says is what egress would decide, and both are what the
// rules mean, worked out here a second time in the plainest way.
#include <algorithm>
#include <random>

#include <doctest/doctest.h>

#include "policies/compile.h"
#include "policies/domains.h"
#include "policies/network_rules.h"
#include "policies/policy_check.h"
#include "tests/unit/policies/manifests.h"

namespace kai {
namespace {

using Words = std::vector<std::string>;

constexpr std::uint16_t kPorts[] = {22, 53, 80, 443, 8080};

class Chance {
 public:
  explicit Chance(unsigned seed) : engine_(seed) {}
  std::size_t below(std::size_t count) { return std::uniform_int_distribution<std::size_t>(0, count - 1)(engine_); }
  bool one_in(std::size_t count) { return below(count) == 0; }

  std::string host() {
    std::string name = "x";
    for (std::size_t left = below(3); left > 0; --left) name = std::string(1, "abc"[below(3)]) + "." + name;
    return name;
  }
  std::string pattern(bool anything) {
    if (anything && one_in(6)) return "*";
    return (one_in(3) ? "*." : "") + host() + (one_in(3) ? ":" + std::to_string(kPorts[below(5)]) : "");
  }
  Words patterns(bool anything) {
    Words list;
    for (std::size_t left = below(4); left > 0; --left) list.push_back(pattern(anything));
    return list;
  }
  /// Of four addresses, two of them special, and blocks around them.
  std::string address() { return one_of({"10.0.0.1", "10.1.0.1", "1.1.1.1", "fd00::1", "2606::1", "127.0.0.1"}); }
  std::string cidr() { return one_of({"10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "fd00::/8", "::/0", "1.1.1.1/32"}); }
  std::string one_of(const Words& words) { return words[below(words.size())]; }

  Manifest manifest() {
    static const Manifest example = *parse_manifest(testing::kExample).manifest;
    Manifest manifest = example;
    NetworkPolicy& network = manifest.security.network;
    network.allow_outbound = !one_in(10);
    network.allowed_domains = patterns(false);
    network.blocked_domains = one_in(3) ? patterns(false) : Words{};
    if (one_in(3)) network.allowed_domains.push_back(cidr());
    if (one_in(4)) network.blocked_domains.push_back(one_in(2) ? cidr() : "10.1.0.1:443");
    if (one_in(4)) network.max_connections = static_cast<std::uint32_t>(below(3));
    return manifest;
  }
  Policy policy() {
    Policy policy = builtin_policy(false);
    policy.network.allowed_domains = patterns(true);
    policy.network.blocked_domains = one_in(3) ? patterns(true) : Words{};
    for (std::size_t left = below(3); left > 0; --left) policy.network.allowed_cidrs.push_back(cidr());
    policy.network.ports.clear();
    for (const std::uint16_t port : kPorts) {
      if (!one_in(3)) policy.network.ports.push_back(port);
    }
    if (one_in(3)) policy.network.hosts[host()] = address();
    if (one_in(10)) policy.network_limit.max_connections = 0;
    if (one_in(4)) policy.network_limit.allowed_protocols = one_in(2) ? Words{} : Words{"tcp"};
    if (one_in(4)) policy.global_blocks.push_back({pattern(true), "kaid.yaml:1"});
    return policy;
  }

 private:
  std::mt19937 engine_;
};

bool lists(const Words& texts, const std::string& host, std::uint16_t port, const std::vector<std::uint16_t>* ports) {
  return std::any_of(texts.begin(), texts.end(), [&](const std::string& text) {
    const auto pattern = read_domain_pattern(text);
    if (!pattern || !matches(*pattern, host, port)) return false;
    return ports == nullptr || pattern->port != 0 || std::find(ports->begin(), ports->end(), port) != ports->end();
  });
}

/// manifest ∩ policy, blocked wins, said anew.
bool may_connect(const Manifest& manifest, const Policy& policy, const std::string& host, std::uint16_t port) {
  const NetworkPolicy& asked = manifest.security.network;
  if (port == 53 || policy.network_limit.max_connections == 0 || asked.max_connections == 0U) return false;
  if (policy.network_limit.allowed_protocols.empty()) return false;
  for (const GlobalBlock& block : policy.global_blocks) {
    if (lists({block.pattern}, host, port, nullptr)) return false;
  }
  return lists(asked.allowed_domains, host, port, nullptr) && !lists(asked.blocked_domains, host, port, nullptr) &&
         !lists(policy.network.blocked_domains, host, port, nullptr) &&
         lists(policy.network.allowed_domains, host, port, &policy.network.ports);
}

bool has(const std::vector<std::uint16_t>& ports, std::uint16_t port) {
  return std::find(ports.begin(), ports.end(), port) != ports.end();
}

/// How many of the connections by name passed.
int check_names(Chance& chance, const Manifest& manifest, const Policy& policy, const egress::Rules& rules) {
  int passed = 0;
  const std::string host = chance.host();
  bool some = false;
  for (const std::uint16_t port : kPorts) {
    const NetworkDecision decision = decide_connection(rules, host, port);
    const Verdict verdict = connect_verdict(manifest, policy, host, port);
    CAPTURE(host);
    CAPTURE(port);
    CAPTURE(decision.reason);
    CAPTURE(verdict.reason);
    CHECK(decision.allowed == may_connect(manifest, policy, host, port));
    const auto mapped = policy.network.hosts.find(host);
    const bool leads =
        mapped == policy.network.hosts.end() || decide_dialled(rules, *read_address(mapped->second), port).allowed;
    CHECK((verdict.kind == Verdict::Kind::kGranted) ==
          (decision.allowed && leads && manifest.security.network.allow_outbound));
    CHECK(!decision.rule.empty());
    CHECK(!verdict.reason.empty());
    some = some || decision.allowed;
    if (!decision.allowed) continue;
    ++passed;
    CHECK(has(network_ports(rules), port));
    const auto reachable = reachable_names(rules);
    CHECK(std::any_of(reachable.begin(), reachable.end(),
                      [&](const egress::Pattern& each) { return matches(pattern_of(each), host, port); }));
  }
  CHECK(decide_lookup(rules, host).allowed == some);
  return passed;
}

int check_addresses(Chance& chance, const Manifest& manifest, const Policy& policy, const egress::Rules& rules) {
  int passed = 0;
  const std::string text = chance.address();
  for (const std::uint16_t port : kPorts) {
    const NetworkDecision decision = decide_literal(rules, *read_address(text), port);
    const Verdict verdict = connect_verdict(manifest, policy, text, port);
    CAPTURE(text);
    CAPTURE(decision.reason);
    CHECK((verdict.kind == Verdict::Kind::kGranted) == (decision.allowed && manifest.security.network.allow_outbound));
    if (!decision.allowed) continue;
    ++passed;
    CHECK(has(network_ports(rules), port));
    CHECK(decide_dialled(rules, *read_address(text), port).allowed);
    CHECK(decide_own_address(rules, *read_address(text)).allowed);
  }
  return passed;
}

}  // namespace

TEST_CASE("explain and egress decide alike, and as the rules mean, over random rules") {
  Chance chance(20240601);
  int names = 0;
  int addresses = 0;
  for (int round = 0; round < 4000; ++round) {
    const Manifest manifest = chance.manifest();
    const Policy policy = chance.policy();
    const egress::Rules rules = network_rules(manifest, policy, policy.global_blocks);
    CAPTURE(round);
    names += check_names(chance, manifest, policy, rules);
    addresses += check_addresses(chance, manifest, policy, rules);
  }
  CHECK(names > 300);
  CHECK(addresses > 500);
}

TEST_CASE("the spec carries the rules where there is egress, and only there") {
  Chance chance(1);
  for (int round = 0; round < 100; ++round) {
    const Manifest manifest = chance.manifest();
    Policy policy = chance.policy();
    if (chance.one_in(4)) policy.grants = {"hostNetwork"};
    const auto compiled = compile(manifest, policy, {"p", ""});
    REQUIRE(compiled);
    const bool asks = manifest.security.network.allow_outbound;
    CHECK(compiled->spec.has_network() == (asks && policy.grants.empty()));
    if (!compiled->spec.has_network()) continue;
    CHECK(compiled->spec.network().SerializeAsString() ==
          network_rules(manifest, policy, policy.global_blocks).SerializeAsString());
  }
}

}  // namespace kai
