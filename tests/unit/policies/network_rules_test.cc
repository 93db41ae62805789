#include "policies/network_rules.h"

#include <algorithm>

#include <doctest/doctest.h>

#include "policies/domains.h"
#include "tests/unit/policies/manifests.h"
#include "tests/unit/policies/policy_fixture.h"

namespace kai {
namespace {

using testing::Json;
using testing::policy;
using Words = std::vector<std::string>;
using Ports = std::vector<std::uint16_t>;
using Protocols = std::vector<egress::Protocol>;

Manifest asking(const Words& allowed, const Words& blocked = {}) {
  Json document = testing::example();
  document["security"]["networkAccess"] = {
      {"allowOutbound", true}, {"allowedDomains", allowed}, {"blockedDomains", blocked}};
  const ManifestResult parsed = parse_manifest(document.dump());
  REQUIRE_MESSAGE(parsed.manifest, document.dump());
  return *parsed.manifest;
}

egress::Rules rules_of(const Words& asked, const std::string& keys, const Words& declined = {},
                       const std::vector<GlobalBlock>& global = {}) {
  return network_rules(asking(asked, declined), policy(keys), global);
}

Address address(const std::string& text) {
  const auto read = read_address(text);
  REQUIRE_MESSAGE(read, text);
  return *read;
}

/// As it is, where read_address would make an IPv4 address of it.
Address mapped(std::array<std::uint8_t, 4> ipv4) {
  Address result{.bytes = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF}};
  std::copy(ipv4.begin(), ipv4.end(), result.bytes.begin() + 12);
  return result;
}

}  // namespace

TEST_CASE("rules: what manifest, policy and kaid.yaml say, each with its place") {
  const egress::Rules rules =
      rules_of({"Calendar.Google.com.", "*.office.com:443", "10.1.2.3:8080", "fd00::/8"},
               "  network:\n    allowedDomains: [calendar.google.com, \"*.office.com:443\"]\n    blockedDomains: "
               "[evil.office.com]\n"
               "    allowedCidrs: [10.1.0.0/16]\n    ports: [443, 80]\n    hosts: {calendar.google.com: 10.1.2.3}\n"
               "  networkLimit: {maxConnections: 7, bandwidthLimit: 3, allowedProtocols: [tcp, tls]}\n",
               {"no.office.com", "10.1.2.0/24"}, {{"*.bad.example", "kaid.yaml:3"}});
  CHECK(rules.agent_id() == "calendarAgent");
  CHECK(rules.policy() == "test");
  REQUIRE(rules.asked_size() == 2);
  CHECK(rules.asked(0).name() == "calendar.google.com");
  CHECK(rules.asked(0).rule() == "/security/networkAccess/allowedDomains/0");
  CHECK(rules.asked(1).subdomains());
  CHECK(rules.asked(1).port() == 443);
  REQUIRE(rules.asked_addresses_size() == 2);
  CHECK(text_of(rules.asked_addresses(0)) == "10.1.2.3/32");
  CHECK(rules.asked_addresses(0).port() == 8080);
  CHECK(rules.asked_addresses(0).rule() == "/security/networkAccess/allowedDomains/2");
  CHECK(text_of(rules.asked_addresses(1)) == "fd00::/8");
  CHECK(rules.declined(0).rule() == "/security/networkAccess/blockedDomains/0");
  CHECK(rules.declined_addresses(0).rule() == "/security/networkAccess/blockedDomains/1");
  CHECK(rules.allowed(1).rule() == "10-test.yaml:4");
  REQUIRE(rules.blocked_size() == 2);
  CHECK(rules.blocked(0).rule() == "10-test.yaml:5");
  CHECK(text_of(rules.blocked(1)) == "*.bad.example");
  CHECK(rules.blocked(1).rule() == "kaid.yaml:3");
  CHECK(text_of(rules.cidrs(0)) == "10.1.0.0/16");
  CHECK(rules.cidrs(0).rule() == "10-test.yaml:6");
  CHECK(rules.ports_size() == 2);
  CHECK(rules.ports_rule() == "10-test.yaml:7");
  REQUIRE(rules.hosts_size() == 1);
  CHECK(rules.hosts(0).address() == std::string("\x0A\x01\x02\x03", 4));
  CHECK(rules.hosts(0).rule() == "10-test.yaml:8");
  CHECK(rules.protocols_size() == 2);
  CHECK(rules.limits().connections() == 7);
  CHECK(rules.limits().connections_rule() == "10-test.yaml:9");
  CHECK(rules.limits().bytes_per_second() == 3 * 1024);
  CHECK(rules.limits().dial_ms() == 10'000);
  CHECK(rules.limits().total_ms() == 86'400'000);
}

TEST_CASE("limits: the smaller of manifest and policy, with the rule of whose it is") {
  Manifest manifest = asking({"a.com"});
  const Policy seven = policy("  networkLimit: {maxConnections: 7}\n");
  manifest.security.network.max_connections = 3;
  CHECK(network_rules(manifest, seven, {}).limits().connections() == 3);
  CHECK(network_rules(manifest, seven, {}).limits().connections_rule() == "/security/networkAccess/maxConnections");
  manifest.security.network.max_connections = 8;
  CHECK(network_rules(manifest, seven, {}).limits().connections() == 7);
  CHECK(network_rules(manifest, seven, {}).limits().connections_rule() == "10-test.yaml:3");
}

TEST_CASE("connections by name: asked, allowed, and blocked by nobody") {
  const egress::Rules rules = rules_of(
      {"a.com", "*.b.com", "c.com:8443", "d.com", "e.com:99", "*.bad.example", "any.example:53"},
      "  network:\n    allowedDomains:\n    - a.com\n    - \"*.b.com\"\n    - c.com\n    - d.com:5432\n    - "
      "\"*.bad.example\"\n"
      "    - e.com:98\n    blockedDomains:\n    - evil.b.com\n    - mail.b.com:80\n    ports: [80, 443, 8443]\n",
      {"self.b.com"}, {{"*.bad.example", "kaid.yaml:3"}});
  struct Case {
    const char* host;
    std::uint16_t port;
    bool allowed;
    const char* rule;
  };
  const Case cases[] = {
      {"a.com", 443, true, "10-test.yaml:5"},
      {"a.com", 80, true, "10-test.yaml:5"},
      {"a.com", 22, false, "10-test.yaml:14"},  // network.ports
      {"x.a.com", 443, false, "/security/networkAccess/allowedDomains"},
      {"evila.com", 443, false, "/security/networkAccess/allowedDomains"},
      {"x.b.com", 443, true, "10-test.yaml:6"},
      {"b.com", 443, false, "/security/networkAccess/allowedDomains"},
      {"evil.b.com", 443, false, "10-test.yaml:12"},
      {"mail.b.com", 80, false, "10-test.yaml:13"},
      {"mail.b.com", 443, true, "10-test.yaml:6"},
      {"self.b.com", 443, false, "/security/networkAccess/blockedDomains/0"},
      {"c.com", 8443, true, "10-test.yaml:7"},
      {"c.com", 443, false, "/security/networkAccess/allowedDomains/2"},  // asked with a port: only that
      {"d.com", 5432, true, "10-test.yaml:8"},
      {"d.com", 443, false, "10-test.yaml:8"},
      {"e.com", 99, false, "10-test.yaml:10"},
      {"e.com", 98, false, "/security/networkAccess/allowedDomains/4"},
      {"x.bad.example", 443, false, "kaid.yaml:3"},
      {"any.example", 53, false, "builtin"},
  };
  for (const Case& each : cases) {
    const NetworkDecision found = decide_connection(rules, each.host, each.port);
    CAPTURE(std::string(each.host));
    CAPTURE(each.port);
    CAPTURE(found.reason);
    CHECK(found.allowed == each.allowed);
    CHECK(found.rule == each.rule);
    CHECK(!found.reason.empty());
  }
  // c.com at 8443 alone, d.com at 5432; what is blocked, or asked and allowed at different ports, needs no listener.
  CHECK(network_ports(rules) == Ports{80, 443, 5432, 8443});
}

TEST_CASE("lookups: a name that could be connected to at some port") {
  const egress::Rules rules =
      rules_of({"a.com", "c.com:8443", "d.com", "e.com:99"},
               "  network:\n    allowedDomains: [a.com, \"c.com:8443\", \"d.com:5432\", e.com]\n"
               "    blockedDomains: [\"a.com:80\"]\n    ports: [80, 443]\n");
  CHECK(decide_lookup(rules, "a.com").allowed);
  CHECK(decide_lookup(rules, "c.com").allowed);
  CHECK(decide_lookup(rules, "d.com").allowed);
  const NetworkDecision at_ports = decide_lookup(rules, "e.com");
  CHECK(!at_ports.allowed);
  CHECK(at_ports.reason.starts_with("network.ports of policy test does not have port 99"));
  CHECK(decide_lookup(rules, "f.com").reason.starts_with("the manifest does not ask for it"));
  CHECK(!decide_lookup(rules, "").allowed);
  CHECK(!decide_lookup(rules_of({"a.com"}, "  network: {allowedDomains: [a.com], ports: []}\n"), "a.com").allowed);
  CHECK(network_ports(rules_of({"a.com"}, "  network: {allowedDomains: [a.com], ports: []}\n")).empty());
}

TEST_CASE("nothing without a list, a connection or a protocol") {
  const std::string open = "  network: {allowedDomains: [\"*\"], allowedCidrs: [10.0.0.0/8]}\n";
  for (const egress::Rules& rules : {
           rules_of({}, open),
           rules_of({"a.com"}, "  cpuLimit: 5\n"),
           rules_of({"a.com"}, open + "  networkLimit: {maxConnections: 0}\n"),
           rules_of({"a.com"}, open + "  networkLimit: {allowedProtocols: []}\n"),
           egress::Rules(),
       }) {
    CHECK(!decide_connection(rules, "a.com", 443).allowed);
    CHECK(!decide_lookup(rules, "a.com").allowed);
    CHECK(!decide_literal(rules, address("10.0.0.1"), 443).allowed);
    CHECK(network_ports(rules).empty());
  }
  CHECK(network_ports(rules_of({"a.com"}, open)) == Ports{80, 443});
}

TEST_CASE("an address that the agent names: by allowedCidrs alone, at network.ports") {
  const egress::Rules rules =
      rules_of({"a.com", "10.9.9.9"},
               "  network:\n    allowedDomains: [\"*\"]\n    allowedCidrs:\n    - 10.0.0.0/8\n    "
               "- fd00::/8\n    - 127.0.0.0/8\n    - ::1/128\n",
               {"10.1.0.0/16", "10.2.0.1:443", "fd00::7"});
  const auto allowed = [&](const std::string& text, std::uint16_t port) {
    return decide_literal(rules, address(text), port).allowed;
  };
  CHECK(allowed("10.9.9.9", 443));
  CHECK(allowed("10.3.0.1", 80));
  CHECK(allowed("::ffff:10.3.0.1", 80));
  CHECK(decide_literal(rules, mapped({10, 3, 0, 1}), 80).allowed);
  CHECK(!allowed("10.3.0.1", 22));
  CHECK(decide_literal(rules, address("10.3.0.1"), 443).rule == "10-test.yaml:6");
  CHECK(!allowed("11.0.0.1", 443));
  CHECK(decide_literal(rules, address("11.0.0.1"), 443).rule == "10-test.yaml:5");
  CHECK(!allowed("10.1.2.3", 443));  // the manifest's own blocks
  CHECK(!allowed("10.2.0.1", 443));
  CHECK(allowed("10.2.0.1", 80));
  CHECK(allowed("fd00::1", 443));
  CHECK(!allowed("fd00::7", 443));
  CHECK(!allowed("10.3.0.1", 53));
  // The agent's own, whatever the policy lists: it would be this machine's.
  for (const char* own : {"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"}) CHECK(!allowed(own, 443));
  CHECK(!decide_literal(rules, mapped({127, 0, 0, 1}), 443).allowed);
  // Of nothing but addresses: a list too.
  CHECK(decide_literal(rules_of({"10.9.9.9"}, "  network: {allowedCidrs: [10.0.0.0/8]}\n"), address("10.9.9.9"), 443)
            .allowed);
}

TEST_CASE("what a name leads to: public, or listed") {
  const egress::Rules closed = rules_of({"a.com"}, "  network: {allowedDomains: [a.com]}\n", {"93.184.216.0/24"});
  CHECK(decide_dialled(closed, address("1.1.1.1")).allowed);
  CHECK(decide_dialled(closed, address("2606:4700::1111")).allowed);
  CHECK(!decide_dialled(closed, address("93.184.216.34")).allowed);
  CHECK(!decide_dialled(closed, mapped({10, 0, 0, 1})).allowed);
  const NetworkDecision private_one = decide_dialled(closed, address("10.0.0.1"));
  CHECK(!private_one.allowed);
  CHECK(private_one.reason ==
        "10.0.0.1 is a private address (RFC 1918): a name may lead there only if the operator lists it in "
        "network.allowedCidrs of policy test");
  CHECK(!decide_own_address(closed, address("1.1.1.1")).allowed);

  const egress::Rules open =
      rules_of({"a.com"}, "  network: {allowedDomains: [a.com], allowedCidrs: [10.0.0.0/8, 127.0.0.1/32]}\n",
               {"10.1.0.1:80", "10.2.0.1"});
  CHECK(decide_dialled(open, address("10.0.0.1")).allowed);
  CHECK(decide_dialled(open, mapped({10, 0, 0, 1})).allowed);
  CHECK(decide_dialled(open, address("127.0.0.1")).allowed);
  CHECK(!decide_dialled(open, address("127.0.0.2")).allowed);
  CHECK(decide_own_address(open, address("10.0.0.1")).allowed);
  // A form that carries an address is dialled as itself: its block has to be listed.
  CHECK(!decide_dialled(open, address("64:ff9b::a00:1")).allowed);
  CHECK(!decide_dialled(open, address("2002:a00:1::1")).allowed);
  CHECK(decide_dialled(open, address("10.1.0.1"), 443).allowed);
  CHECK(!decide_dialled(open, address("10.1.0.1"), 80).allowed);
  CHECK(!decide_dialled(open, address("10.1.0.1")).allowed);
  CHECK(!decide_dialled(open, address("10.2.0.1"), 443).allowed);
}

TEST_CASE("the operator's blocks of addresses: for the agent's own word, for what names lead to, and for hosts") {
  const egress::Rules rules =
      rules_of({"a.com"},
               "  network:\n    allowedDomains: [a.com]\n    allowedCidrs: [10.0.0.0/8, 127.0.0.0/8]\n    "
               "blockedDomains:\n    - "
               "10.0.0.1\n    - 10.2.0.0/16\n    - 10.3.0.1:80\n    - \"[fd00::1]:443\"\n    - evil.a.com\n    - "
               "93.184.216.0/24\n",
               {"10.2.3.4"}, {{"10.9.0.0/16", "kaid.yaml:3"}, {"2606:4700::/32", "kaid.yaml:4"}});
  CHECK(rules.blocked_size() == 1);
  CHECK(rules.declined_addresses_size() == 8);
  CHECK(listed_text(rules.declined_addresses(1)) == "10.0.0.1");
  CHECK(listed_text(rules.declined_addresses(2)) == "10.2.0.0/16");
  CHECK(listed_text(rules.declined_addresses(3)) == "10.3.0.1:80");
  CHECK(listed_text(rules.declined_addresses(4)) == "[fd00::1]:443");

  const NetworkDecision literal = decide_literal(rules, address("10.0.0.1"), 443);
  CHECK(!literal.allowed);
  CHECK(literal.rule == "10-test.yaml:7");
  CHECK(literal.reason == "blockedDomains has 10.0.0.1, and blocked wins over allowed");
  CHECK(decide_literal(rules, address("10.0.0.2"), 443).allowed);
  CHECK(!decide_literal(rules, mapped({10, 0, 0, 1}), 443).allowed);
  CHECK(!decide_literal(rules, address("10.3.0.1"), 80).allowed);
  CHECK(decide_literal(rules, address("10.3.0.1"), 443).allowed);
  CHECK(decide_literal(rules, address("10.9.1.1"), 443).rule == "kaid.yaml:3");
  // The manifest's own word first, as with names.
  CHECK(decide_literal(rules, address("10.2.3.4"), 443).rule == "/security/networkAccess/blockedDomains/0");

  CHECK(decide_dialled(rules, address("10.0.0.2"), 443).allowed);
  CHECK(decide_dialled(rules, address("10.0.0.1"), 443).reason == literal.reason);
  CHECK(decide_dialled(rules, mapped({10, 0, 0, 1}), 443).rule == "10-test.yaml:7");
  CHECK(decide_dialled(rules, address("10.2.0.7"), 443).rule == "10-test.yaml:8");
  CHECK(!decide_dialled(rules, address("93.184.216.34"), 443).allowed);  // public ones too
  CHECK(!decide_dialled(rules, address("2606:4700::1"), 443).allowed);
  CHECK(!decide_dialled(rules, address("64:ff9b::5db8:d822"), 443).allowed);  // NAT64 and 6to4 of 93.184.216.34
  CHECK(!decide_dialled(rules, address("2002:5db8:d822::1"), 443).allowed);
  CHECK(decide_dialled(rules, address("64:ff9b::101:101"), 443).allowed);
}

TEST_CASE("messages that are no rules allow nothing") {
  egress::Rules rules = rules_of({"a.com"}, "  network: {allowedDomains: [a.com]}\n");
  for (const std::string& bytes : {std::string(), std::string(3, '\0'), std::string(17, '\0')}) {
    egress::Cidr& odd = *rules.add_cidrs();
    odd.set_network(bytes);
    odd.set_prefix(0);
  }
  egress::Cidr& longer = *rules.add_cidrs();
  longer.set_network(std::string(4, '\0'));
  longer.set_prefix(33);
  CHECK(!decide_literal(rules, address("10.0.0.1"), 443).allowed);
  CHECK(!decide_dialled(rules, address("10.0.0.1")).allowed);
  CHECK(!decide_dialled(rules, address("fd00::1")).allowed);
  rules.add_ports(0);
  rules.add_ports(70000);
  CHECK(network_ports(rules) == Ports{80, 443});
}

TEST_CASE("ports: as many as an agent can have") {
  egress::Rules rules = rules_of({"a.com"}, "  network: {allowedDomains: [a.com]}\n");
  rules.clear_ports();
  for (std::uint32_t port = 200; port > 100; --port) rules.add_ports(port);
  const Ports ports = network_ports(rules);
  CHECK(ports.size() == kMaxNetworkPorts);
  CHECK(std::is_sorted(ports.begin(), ports.end()));
  CHECK(ports.front() == 101);
}

TEST_CASE("protocols: by the port where both are allowed") {
  const auto expected = [](const char* list, std::uint16_t port) {
    return expected_protocols(rules_of({"a.com"}, "  networkLimit: {allowedProtocols: [" + std::string(list) + "]}\n"),
                              port);
  };
  CHECK(expected("tls, http", 443) == Protocols{egress::TLS});
  CHECK(expected("tls, http", 80) == Protocols{egress::HTTP});
  CHECK(expected("http, tls", 8080) == Protocols{egress::TLS, egress::HTTP});
  CHECK(expected("tls", 80) == Protocols{egress::TLS});
  CHECK(expected("http", 443) == Protocols{egress::HTTP});
  CHECK(expected("http, tcp", 443) == Protocols{egress::TCP});
  CHECK(expected("", 443).empty());
}

TEST_CASE("special addresses: every block that is not the Internet's, at its edges") {
  for (const char* text : {"0.0.0.0",
                           "0.255.255.255",
                           "10.0.0.0",
                           "10.255.255.255",
                           "100.64.0.0",
                           "100.127.255.255",
                           "100.100.100.200",
                           "127.0.0.1",
                           "127.255.255.255",
                           "168.63.129.16",
                           "169.254.0.0",
                           "169.254.169.254",
                           "169.254.255.255",
                           "172.16.0.0",
                           "172.31.255.255",
                           "192.0.0.0",
                           "192.0.0.192",
                           "192.0.0.255",
                           "192.0.2.1",
                           "192.88.99.1",
                           "192.168.0.0",
                           "192.168.255.255",
                           "198.18.0.0",
                           "198.19.255.255",
                           "198.51.100.1",
                           "203.0.113.1",
                           "224.0.0.0",
                           "239.255.255.255",
                           "240.0.0.0",
                           "255.255.255.254",
                           "255.255.255.255",
                           "::",
                           "::1",
                           "::2",
                           "::7f00:1",
                           "::10.0.0.1",
                           "::1.1.1.1",
                           "::ffff:10.0.0.1",
                           "::ffff:169.254.169.254",
                           "::ffff:0:10.0.0.1",
                           "64:ff9b::a00:1",
                           "64:ff9b::7f00:1",
                           "64:ff9b::a9fe:a9fe",
                           "64:ff9b:1::",
                           "64:ff9b:1:ffff::808:808",
                           "100::",
                           "100::ffff",
                           "2001::",
                           "2001:0:ffff::1",
                           "2001:1::1",
                           "2001:20::1",
                           "2001:1ff:ffff::",
                           "2001:db8::1",
                           "2001:db8:ffff::",
                           "2002:a00:1::",
                           "2002:7f00:1::1",
                           "2002:a9fe:a9fe::",
                           "3fff::1",
                           "3fff:fff::1",
                           "4000::1",
                           "1fff:ffff::1",
                           "5f00::1",
                           "fc00::1",
                           "fd00:ec2::254",
                           "fd20:ce::254",
                           "fdff::1",
                           "fe80::1",
                           "febf::1",
                           "fec0::1",
                           "feff::1",
                           "ff00::",
                           "ff02::1",
                           "ffff::1"}) {
    CAPTURE(std::string(text));
    CHECK(special_address(address(text)) != nullptr);
  }
  for (const char* text :
       {"1.0.0.0",     "9.255.255.255",   "11.0.0.0",        "100.63.255.255",   "100.128.0.0",     "126.255.255.255",
        "128.0.0.0",   "168.63.129.15",   "168.63.129.17",   "169.253.255.255",  "169.255.0.0",     "172.15.255.255",
        "172.32.0.0",  "192.0.1.0",       "192.0.3.0",       "192.167.255.255",  "192.169.0.0",     "198.17.255.255",
        "198.20.0.0",  "223.255.255.255", "::ffff:1.1.1.1",  "64:ff9b::101:101", "2000::1",         "2001:200::1",
        "2001:db7::1", "2001:db9::1",     "2002:101:101::1", "2003::1",          "2606:4700::1111", "3ffe::1",
        "3fff:1000::1"}) {
    CAPTURE(std::string(text));
    CHECK(special_address(address(text)) == nullptr);
  }
  CHECK(special_address(mapped({192, 168, 1, 1})) == special_address(address("192.168.1.1")));
  CHECK(std::string(special_address(address("169.254.169.254"))).find("metadata") != std::string::npos);
  CHECK(std::string(special_address(address("fd00:ec2::254"))).find("metadata") != std::string::npos);
}

TEST_CASE("evasions: names that look allowed, and addresses in disguise") {
  const egress::Rules rules = rules_of({"allowed.com", "*.allowed.com"}, "  network: {allowedDomains: [\"*\"]}\n");
  REQUIRE(decide_connection(rules, "allowed.com", 443).allowed);
  REQUIRE(decide_connection(rules, "x.allowed.com", 443).allowed);
  const std::string_view hosts[] = {"evilallowed.com",
                                    "allowed.com.evil.org",
                                    "allowed.co",
                                    "allowed.comm",
                                    "ALLOWED.com",   // whoever asks in another case asks for canonical_host's
                                    "allowed.com.",  // and without the dot
                                    ".allowed.com",
                                    "..allowed.com",
                                    "x..allowed.com",
                                    "*.allowed.com",
                                    "*",
                                    "",
                                    ".",
                                    "allowed.com:443",
                                    "allowed.com ",
                                    "allowed.com\n",
                                    std::string_view("allowed.com\0", 12),
                                    std::string_view("evil.org\0.allowed.com", 21),
                                    "evil.org/.allowed.com",
                                    "evil.org#.allowed.com",
                                    "evil.org@allowed.com",
                                    "xn--llowed-2nf.com",
                                    "\xD0\xB0llowed.com",
                                    "allowed\xE3\x80\x82"
                                    "com",
                                    "127.0.0.1",
                                    "2130706433",
                                    "0x7f000001",
                                    "0177.0.0.1",
                                    "127.1",
                                    "::1",
                                    "[::1]",
                                    "fe80::1%eth0",
                                    "1.2.3.4.allowed.com.evil"};
  for (const std::string_view host : hosts) {
    CAPTURE(std::string(host));
    CHECK(!decide_connection(rules, host, 443).allowed);
    CHECK(!decide_lookup(rules, host).allowed);
  }
}

}  // namespace kai
