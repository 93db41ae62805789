// What an agent may reach: manifest ∩ operator policy as one set of rules (proto/egress.proto), and each decision by
// it. kai-egress decides with these functions, and `policy explain --connect` with the same. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policies/addresses.h"
#include "policies/domains.h"
#include "policies/manifest.h"
#include "policies/policy.h"
#include "proto/egress.pb.h"

namespace kai {

/// Ports that one agent may have in all: each is a listener in its network namespace.
inline constexpr std::size_t kMaxNetworkPorts = 32;

/// The rules of an agent that asks for outbound connections. `blocked`: kaid.yaml's blockedDomains, each with its rule.
egress::Rules network_rules(const Manifest& manifest, const Policy& policy, const std::vector<GlobalBlock>& blocked);

/// Of the bytes that a message has; nullopt: neither 4 nor 16.
std::optional<Address> address_of(std::string_view bytes);
/// The same of a block; nullopt also where the prefix is longer than the address.
std::optional<Cidr> block_of(const egress::Cidr& cidr);

DomainPattern pattern_of(const egress::Pattern& pattern);

/// As an operator writes them.
std::string text_of(const egress::Pattern& pattern);
std::string text_of(const egress::Cidr& cidr);
/// The same among names: one address alone, and its port.
std::string listed_text(const egress::Cidr& cidr);

/// Whether the manifest itself blocks it, and not the operator: declined_addresses has the blocks of both.
bool is_of_manifest(const egress::Cidr& block);

/// The TCP ports that some connection by `rules` could have, ascending, at most kMaxNetworkPorts.
std::vector<std::uint16_t> network_ports(const egress::Rules& rules);

/// The port of egress's own DNS in each agent's network namespace: no connection leads anywhere there.
inline constexpr std::uint16_t kDnsPort = 53;

/// What is asked for and allowed of names: where two patterns meet, the narrower one, with the port that either says
/// (0: the policy's ports). What is blocked as a whole is left out. For explanations; decisions are made below.
std::vector<egress::Pattern> reachable_names(const egress::Rules& rules);
/// Whether a connection to some address, named by the agent itself, could be allowed.
bool reaches_addresses(const egress::Rules& rules);

struct NetworkDecision {
  bool allowed = false;
  std::string reason;  ///< one sentence, for whoever reads the log; where it is refused, with what to do
  std::string rule;    ///< "10-calendar.yaml:14", "kaid.yaml:3", "builtin", or the manifest's JSON Pointer
};

/// What refuses every connection at this port, whoever is meant; allowed, without reason: nothing does.
NetworkDecision decide_port(const egress::Rules& rules, std::uint16_t port);
/// A connection to a name (canonical_host's), at a port.
NetworkDecision decide_connection(const egress::Rules& rules, std::string_view host, std::uint16_t port);
/// A question for a name: allowed where a connection to it at some port would be.
NetworkDecision decide_lookup(const egress::Rules& rules, std::string_view host);
/// A connection to an address that the agent itself named.
NetworkDecision decide_literal(const egress::Rules& rules, const Address& address, std::uint16_t port);
/// The address that an allowed name leads to, right before it is dialled: refused where it is not a public one, unless
/// allowedCidrs has it. Whether it is one of this host's own only the host knows. `port` decides where the manifest
/// blocks the address at one port; 0: at whichever.
NetworkDecision decide_dialled(const egress::Rules& rules, const Address& address, std::uint16_t port = 0);
/// An address of this host itself, which decide_dialled has let pass: refused unless allowedCidrs has it.
NetworkDecision decide_own_address(const egress::Rules& rules, const Address& address);

/// What has to be spoken on `port`: one of these. TCP: nothing is checked. With tls and http allowed, 443 is tls, 80 is
/// http, and another port either. Empty: no protocol is left, and nothing passes.
std::vector<egress::Protocol> expected_protocols(const egress::Rules& rules, std::uint16_t port);

/// Why `address` is none that a name on the Internet should lead to ("is a private address (RFC 1918)"); nullptr: it is
/// an ordinary public one. Forms that carry an IPv4 address (mapped, 6to4, NAT64) are what they carry.
const char* special_address(const Address& address);
/// The IPv4 address that such a form carries; nullopt: none.
std::optional<Address> carried_address(const Address& address);

}  // namespace kai
