#include "supervisor/egress/agent_network.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "policies/network_rules.h"
#include "sandbox/network.h"
#include "supervisor/egress/dial.h"

namespace kai::egress {
namespace {

constexpr auto kAcceptPause = std::chrono::milliseconds(50);

// Of a snapshot, which has to fit in one packet (wmem_default of socket(7): some 208 KB) with everything at its
// longest.
constexpr int kMostNames = 128, kMostRefusals = 64;

/// Why egress does not listen there. `name`: that the address stands for; may be empty.
NetworkDecision why_no_listener(const Rules& rules, const RefusedPort& refused, const std::string& name) {
  if (refused.datagram) {
    return {false, "UDP does not leave the sandbox, but for DNS; clients of QUIC go on with TCP", "builtin"};
  }
  NetworkDecision decision = decide_destination(rules, {name, refused.address, refused.port});
  if (!decision.allowed) return decision;
  // Listeners are made once, before the agent begins.
  return {false, "the policy allows this port since the agent was started: restart the agent to open it",
          decision.rule};
}

}  // namespace

AgentNetwork::AgentNetwork(Shared& shared, std::uint64_t instance, Rules rules)
    : shared_(shared),
      instance_(instance),
      rules_(std::move(rules)),
      names_(rules_),
      accept_timer_(shared.reactor,
                    [this] {
                      for (const auto& listener : listeners_) {
                        if (std::exchange(listener->again, false)) accept_from(*listener);
                      }
                    }),
      refusals_(shared.reactor, [this](Refused&& refused) { tell(&Event::mutable_refused, std::move(refused)); }) {}

Result<std::unique_ptr<AgentNetwork>> AgentNetwork::create(Shared& shared, std::uint64_t instance, Rules rules,
                                                           std::vector<Fd> descriptors) {
  if (descriptors.size() < sandbox::kFirstListener) return failure("an agent's network lacks a descriptor");
  std::unique_ptr<AgentNetwork> network(new AgentNetwork(shared, instance, std::move(rules)));
  if (auto done = network->listen(std::move(descriptors)); !done) return tl::unexpected(done.error());
  return network;
}

template <typename What>
void AgentNetwork::tell(What* (Event::*member)(), What&& what) {
  what.set_instance(instance_);
  Event event;
  *(event.*member)() = std::move(what);
  shared_.tell(std::move(event));
}

Result<> AgentNetwork::listen(std::vector<Fd> descriptors) {
  traffic_ = AgentTraffic::create(
      {.reactor = shared_.reactor,
       .resolver = shared_.resolver,
       .pipes = shared_.pipes,
       .names = names_,
       .rules = rules_,
       .events = {.opened = [this](Opened&& opened) { tell(&Event::mutable_opened, std::move(opened)); },
                  .closed = [this](Closed&& closed) { tell(&Event::mutable_closed, std::move(closed)); },
                  .refused = [this](Refused&& refused) { tell(&Event::mutable_refused, std::move(refused)); }}});
  auto dns =
      DnsServer::create({.reactor = shared_.reactor,
                         .resolver = shared_.resolver,
                         .names = names_,
                         .rules = rules_,
                         .on_refused = [this](const RefusedLookup& lookup) { on_refused_lookup(lookup); }},
                        std::move(descriptors[sandbox::kDnsDatagrams]), std::move(descriptors[sandbox::kDnsStreams]));
  if (!dns) return tl::unexpected(dns.error());
  dns_ = std::move(*dns);
  for (std::size_t at = sandbox::kFirstRefusals; at < sandbox::kFirstListener; ++at) {
    auto tap = RefusalTap::create(shared_.reactor, std::move(descriptors[at]),
                                  [this](const RefusedPort& port) { on_refused_port(port); });
    if (!tap) return tl::unexpected(tap.error());
    taps_.push_back(std::move(*tap));
  }
  for (std::size_t at = sandbox::kFirstListener; at < descriptors.size(); ++at) {
    auto listener = std::make_unique<Listener>();
    listener->socket = std::move(descriptors[at]);
    auto watch = shared_.reactor.watch(listener->socket.get(), EPOLLIN,
                                       [this, raw = listener.get()](std::uint32_t) { accept_from(*raw); });
    if (!watch) return tl::unexpected(watch.error());
    listener->watch = std::move(*watch);
    listeners_.push_back(std::move(listener));
  }
  return {};
}

void AgentNetwork::accept_from(Listener& listener) {
  for (int taken = 0; taken < kAcceptedInOneTurn; ++taken) {
    Fd socket(accept4(listener.socket.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket) {
      traffic_->accepted(std::move(socket));
      continue;
    }
    if (errno == EAGAIN) return;
    // Out of descriptors or memory: those who wait in the backlog may be lucky in a moment. What else accept(2) says is
    // of one connection that is gone.
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) return accept_later(listener, true);
  }
  accept_later(listener, false);
}

void AgentNetwork::accept_later(Listener& listener, bool pause) {
  listener.again = true;
  if (!accept_timer_.armed()) accept_timer_.arm_in(pause ? kAcceptPause : std::chrono::milliseconds(0));
}

void AgentNetwork::use(Rules rules) {
  rules_ = std::move(rules);
  names_.use(rules_);
  dns_->rules_changed();
  traffic_->rules_changed();
}

void AgentNetwork::on_refused_lookup(const RefusedLookup& lookup) {
  Refused event;
  event.set_kind(lookup.failed ? Refused::FAILED : Refused::LOOKUP);
  event.set_name(lookup.name);
  event.set_reason(lookup.reason);
  event.set_rule(lookup.rule);
  refusals_.add(std::move(event));
}

void AgentNetwork::on_refused_port(const RefusedPort& port) {
  Refused event;
  event.set_kind(port.datagram ? Refused::DATAGRAM : Refused::PORT);
  const std::string name = names_.name_of(port.address).value_or("");
  NetworkDecision decision = why_no_listener(rules_, port, name);
  event.set_name(name);
  if (name.empty()) event.set_address(address_text(port.address));
  event.set_port(port.port);
  event.set_reason(std::move(decision.reason));
  event.set_rule(std::move(decision.rule));
  refusals_.add(std::move(event));
}

void AgentNetwork::describe(Snapshot& snapshot) const {
  traffic_->describe(snapshot);
  refusals_.describe(snapshot);
  // Of both, the most frequent first.
  std::stable_sort(snapshot.mutable_refusals()->pointer_begin(), snapshot.mutable_refusals()->pointer_end(),
                   [](const Refusals* one, const Refusals* other) { return one->count() > other->count(); });
  if (snapshot.refusals_size() > kMostRefusals) {
    snapshot.mutable_refusals()->DeleteSubrange(kMostRefusals, snapshot.refusals_size() - kMostRefusals);
  }
  snapshot.set_lookups(dns_->questions());
  for (const SyntheticNames::Entry& entry : names_.entries()) {
    if (snapshot.names_size() >= kMostNames) return;
    NameInfo& name = *snapshot.add_names();
    name.set_name(entry.name);
    name.set_address4(address_text(entry.addresses.v4));
    name.set_address6(address_text(entry.addresses.v6));
    name.set_connections(entry.connections);
  }
}

}  // namespace kai::egress
