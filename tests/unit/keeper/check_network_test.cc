// Network rules that a control that was taken over could ask for, and does not get.
#include "supervisor/keeper/check_network.h"

#include <functional>
#include <string>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "policies/compile.h"
#include "policies/network_rules.h"
#include "policies/policy_yaml.h"
#include "supervisor/keeper/check.h"

namespace {

using kai::egress::Rules;
using kai::keeper::check_rules;

constexpr const char* kPolicies = R"(policies:
- name: web
  networkLimit: {maxConnections: 8, bandwidthLimit: 100, allowedProtocols: [tls]}
  network:
    allowedDomains: [example.org, "*.example.net", "api.example.com:8443"]
    blockedDomains: [ads.example.net, 10.1.0.1]
    allowedCidrs: [10.1.0.0/16]
    ports: [443]
    hosts: {intern.example.org: 10.1.2.3}
- name: other
  network: {allowedDomains: [example.com], ports: [80, 443]}
)";

kai::PolicySet policies() {
  auto set = kai::parse_policies({{"10-test.yaml", kPolicies}}, false);
  REQUIRE(set);
  set->block_everywhere({{"blocked.example", "kaid.yaml:1"}, {"10.1.9.0/24", "kaid.yaml:1"}});
  return std::move(*set);
}

Rules good() {
  const kai::PolicySet set = policies();
  kai::Manifest manifest;
  manifest.id = "weather";
  manifest.security.network.allow_outbound = true;
  manifest.security.network.allowed_domains = {"example.org", "whatever.it.asks.example"};
  manifest.security.network.max_connections = 4;
  return kai::network_rules(manifest, set.policies.front(), set.policies.front().global_blocks);
}

/// The error of good rules after `change`; empty: accepted.
std::string after(const std::function<void(Rules&)>& change) {
  Rules rules = good();
  change(rules);
  const auto checked = check_rules(rules, "weather", policies());
  return checked ? "" : checked.error().message();
}

void add_name(Rules& rules, const std::string& name, bool subdomains, std::uint32_t port) {
  auto* pattern = rules.add_allowed();
  pattern->set_name(name);
  pattern->set_subdomains(subdomains);
  pattern->set_port(port);
}

}  // namespace

TEST_CASE("the rules that policies make are taken, and narrower ones") {
  CHECK(after([](Rules&) {}) == "");
  CHECK(after([](Rules& rules) {
          rules.clear_allowed();
          rules.clear_cidrs();
          rules.clear_ports();
          rules.clear_hosts();
          rules.clear_protocols();
          rules.mutable_limits()->set_connections(0);
          rules.mutable_limits()->set_idle_ms(1);
        }) == "");
  CHECK(after([](Rules& rules) { rules.add_blocked()->set_name("more.example"); }) == "");
  CHECK(after([](Rules& rules) { rules.add_asked()->set_name("anything.example"); }) == "");
}

TEST_CASE("nothing goes beyond the policy that the rules name") {
  const auto beyond = [](const std::string& key) {
    return "the network rules go beyond the policy's " + key + ": web";
  };
  CHECK(after([](Rules& rules) { add_name(rules, "example.com", false, 0); }) == beyond("allowedDomains"));
  CHECK(after([](Rules& rules) { add_name(rules, "", false, 0); }) == beyond("allowedDomains"));
  CHECK(after([](Rules& rules) { add_name(rules, "example.org", true, 0); }) == beyond("allowedDomains"));
  CHECK(after([](Rules& rules) { add_name(rules, "api.example.com", false, 0); }) == beyond("allowedDomains"));
  CHECK(after([](Rules& rules) { add_name(rules, "example.org", false, 22); }) == beyond("allowedDomains"));
  for (const int missing : {0, 1}) {  // the policy's, and kaid.yaml's
    CHECK(after([&](Rules& rules) { rules.mutable_blocked()->DeleteSubrange(missing, 1); }) ==
          beyond("blockedDomains, or kaid.yaml's"));
  }
  for (const int missing : {0, 1}) {
    CHECK(after([&](Rules& rules) { rules.mutable_declined_addresses()->DeleteSubrange(missing, 1); }) ==
          beyond("blockedDomains, or kaid.yaml's"));
    CHECK(after([&](Rules& rules) { rules.mutable_declined_addresses(missing)->set_port(443); }) ==
          beyond("blockedDomains, or kaid.yaml's"));
  }
  CHECK(after([](Rules& rules) { *rules.add_declined_addresses() = rules.cidrs(0); }) == "");
  CHECK(after([](Rules& rules) { rules.mutable_blocked(0)->set_port(443); }) ==
        beyond("blockedDomains, or kaid.yaml's"));
  CHECK(after([](Rules& rules) { rules.mutable_cidrs(0)->set_prefix(8); }) == beyond("allowedCidrs"));
  CHECK(after([](Rules& rules) { rules.mutable_hosts(0)->set_name("example.org"); }) == beyond("hosts"));
  CHECK(after([](Rules& rules) { rules.mutable_hosts(0)->set_address(std::string("\x7f\0\0\1", 4)); }) ==
        beyond("hosts"));
  CHECK(after([](Rules& rules) { rules.add_ports(80); }) == beyond("ports"));
  CHECK(after([](Rules& rules) { rules.add_protocols(kai::egress::TCP); }) == beyond("allowedProtocols"));
  CHECK(after([](Rules& rules) { rules.mutable_limits()->set_connections(9); }) == beyond("limits"));
  CHECK(after([](Rules& rules) { rules.mutable_limits()->set_bytes_per_second(100 * 1024 + 1); }) == beyond("limits"));
  CHECK(after([](Rules& rules) { rules.mutable_limits()->set_bytes_per_second(0); }) == beyond("limits"));
  CHECK(after([](Rules& rules) { rules.mutable_limits()->set_lookups(1'000'000); }) == beyond("limits"));
  CHECK(after([](Rules& rules) { rules.clear_limits(); }) == beyond("limits"));
}

TEST_CASE("another policy's name or agent's, and rules without measure") {
  CHECK(after([](Rules& rules) { rules.set_policy("other"); }) ==
        "the network rules go beyond the policy's allowedDomains: other");
  CHECK(after([](Rules& rules) { rules.set_policy("\x1b[2J"); }) ==
        "no operator policy of the name that the network rules give: \\e[2J");
  CHECK(after([](Rules& rules) { rules.set_agent_id("calendar"); }) == "network rules of another agent");
  CHECK(after([](Rules& rules) {
          rules.add_asked()->set_name(std::string(kai::keeper::kMaxRulesBytes, 'a'));
        }).starts_with("more network rules than an agent may have"));
}

TEST_CASE("a spec's rules are held against the policies, and the host's network has none") {
  const kai::PolicySet set = policies();
  auto spec = kai::compile_run("weather", set.policies.front(), {"/bin/true"}, {});
  *spec.mutable_network() = good();
  CHECK(kai::keeper::check_spec(spec, {set, 0}));
  spec.mutable_network()->add_ports(1);
  CHECK_FALSE(kai::keeper::check_spec(spec, {set, 0}));
  *spec.mutable_network() = good();
  spec.set_host_network(true);
  CHECK_FALSE(kai::keeper::check_spec(spec, {set, 0}));
}

TEST_CASE("rules come in a memfd that nobody can change any more") {
  const std::string bytes = good().SerializeAsString();
  const auto sealed = kai::sealed_memfd("rules", bytes);
  REQUIRE(sealed);
  CHECK(kai::keeper::read_rules(*sealed, "weather", policies()));
  const auto pipe = kai::make_pipe();
  REQUIRE(pipe);
  CHECK_FALSE(kai::keeper::read_rules(pipe->first, "weather", policies()));
  const auto other = kai::sealed_memfd("rules", "\xff\xff");
  REQUIRE(other);
  CHECK_FALSE(kai::keeper::read_rules(*other, "weather", policies()));
}
