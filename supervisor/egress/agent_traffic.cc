#include "supervisor/egress/agent_traffic.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <utility>

#include "policies/network_rules.h"
#include "supervisor/egress/socket_address.h"

namespace kai::egress {
namespace {

// How late a timeout may be noticed, so that the timer does not fire for every connection by itself.
constexpr auto kTimeoutSlack = std::chrono::milliseconds(50);

std::string text(std::chrono::milliseconds time) {
  const auto count = time.count();
  return count % 1000 == 0 ? std::to_string(count / 1000) + " s" : std::to_string(count) + " ms";
}

}  // namespace

std::unique_ptr<AgentTraffic> AgentTraffic::create(Agent agent) {
  // splice(2) has no MSG_NOSIGNAL: a peer that has reset its connection would end the process.
  (void)std::signal(SIGPIPE, SIG_IGN);
  return std::make_unique<Traffic>(std::move(agent));
}

Traffic::Traffic(Agent agent)
    : agent_(std::move(agent)),
      turns_(agent_.reactor, agent_.rules.limits().bytes_per_second()),
      refusals_(agent_.reactor, [this](Refused&& refused) { agent_.events.refused(std::move(refused)); }),
      timeouts_(agent_.reactor, [this] { end_oldest(); }),
      bury_(agent_.reactor, [this] { ended_.clear(); }) {}

Traffic::~Traffic() {
  agent_.events = {.opened = [](Opened&&) {}, .closed = [](Closed&&) {}, .refused = [](Refused&&) {}};
  close_all("the agent is gone");
}

bool Traffic::NewConnections::take(std::uint32_t per_second, Clock::time_point now) {
  const std::chrono::duration<double> since = now - std::exchange(filled, now);
  tokens = std::min(static_cast<double>(per_second), tokens + since.count() * per_second);
  if (tokens < 1) return false;
  tokens -= 1;
  return true;
}

/// False: `refused` says why not.
bool Traffic::has_room(Refused& refused) {
  const std::uint32_t limit = agent_.rules.limits().connections();
  const std::string named = std::to_string(limit);
  refused.set_rule(agent_.rules.limits().connections_rule());
  if (!new_connections_.take(limit, agent_.reactor.now())) {
    refused.set_reason("more than " + named +
                       " new connections within a second: networkLimit.maxConnections allows no more");
    return false;
  }
  if (connections_.size() >= limit) {
    refused.set_reason(named + " connections are open, as many as networkLimit.maxConnections allows");
    return false;
  }
  refused.clear_rule();
  return true;
}

void Traffic::accepted(Fd socket) {
  reset_on_close(socket.get());
  const auto meant = local_address(socket.get());
  if (!meant) return;
  Destination destination{.address = meant->address, .port = meant->port};
  Refused refused;
  refused.set_kind(Refused::CONNECTION);
  refused.set_port(meant->port);
  if (auto name = agent_.names.name_of(meant->address)) {
    destination.name = std::move(*name);
    refused.set_name(destination.name);
  } else {
    refused.set_address(address_text(meant->address));
  }
  decide(std::move(socket), std::move(destination), std::move(refused));
}

void Traffic::decide(Fd socket, Destination destination, Refused&& refused) {
  const auto refuse = [&](std::string reason, std::string rule) {
    socket.reset();
    refused.set_reason(std::move(reason));
    refused.set_rule(std::move(rule));
    refusals_.add(std::move(refused));
  };
  if (!has_room(refused)) return refuse(refused.reason(), refused.rule());
  const NetworkDecision decision = decide_destination(agent_.rules, destination);
  if (!decision.allowed) return refuse(decision.reason, decision.rule);
  auto expected = expected_protocols(agent_.rules, destination.port);
  if (expected.empty()) {
    return refuse("networkLimit.allowedProtocols leaves no protocol for port " + std::to_string(destination.port),
                  agent_.rules.protocols_rule());
  }
  ++total_;
  const std::uint64_t id = ++last_id_;
  auto made = std::make_unique<AgentConnection>(*this, id, std::move(socket), std::move(destination), decision.rule,
                                                std::move(expected));
  AgentConnection& connection = *made;
  connections_.emplace(id, std::move(made));
  connection.start();
}

void Traffic::opened(AgentConnection& connection) {
  bytes_[static_cast<std::size_t>(Way::kSent)] += connection.up_.bytes;  // that were looked at
  connection.in_activity_ = by_activity_.insert(by_activity_.end(), &connection);
  if (!timeouts_.armed()) arm_timeouts();
}

void Traffic::count(AgentConnection& connection, Way way, std::uint64_t bytes) {
  bytes_[static_cast<std::size_t>(way)] += bytes;
  by_activity_.splice(by_activity_.end(), by_activity_, connection.in_activity_);
}

void Traffic::ended(AgentConnection& connection, bool was_open) {
  if (was_open) by_activity_.erase(connection.in_activity_);
  const auto found = connections_.find(connection.id());
  ended_.push_back(std::move(found->second));
  connections_.erase(found);
  if (!bury_.armed()) bury_.arm(agent_.reactor.now());
}

void Traffic::end_oldest() {
  const auto now = agent_.reactor.now();
  const std::chrono::milliseconds idle(agent_.rules.limits().idle_ms()), total(agent_.rules.limits().total_ms());
  while (!by_activity_.empty() && by_activity_.front()->last_byte() + idle <= now) {
    by_activity_.front()->end("idle for " + text(idle));
  }
  while (!connections_.empty() && connections_.begin()->second->began() + total <= now) {
    connections_.begin()->second->end("open for " + text(total) + ", which is as long as a connection may be");
  }
  arm_timeouts();
}

void Traffic::arm_timeouts() {
  if (by_activity_.empty()) return timeouts_.stop();
  const std::chrono::milliseconds idle(agent_.rules.limits().idle_ms()), total(agent_.rules.limits().total_ms());
  const auto when = std::min(by_activity_.front()->last_byte() + idle, connections_.begin()->second->began() + total);
  timeouts_.arm(std::max(when, agent_.reactor.now() + kTimeoutSlack));
}

void Traffic::rules_changed() {
  turns_.use(agent_.rules.limits().bytes_per_second());
  for (auto at = connections_.begin(); at != connections_.end();) {
    AgentConnection& connection = *(at++)->second;
    connection.check_again();
  }
  const std::uint32_t limit = agent_.rules.limits().connections();
  while (connections_.size() > limit) {  // the newest go first
    connections_.rbegin()->second->end("networkLimit.maxConnections is " + std::to_string(limit) + " now",
                                       agent_.rules.limits().connections_rule());
  }
  end_oldest();
}

void Traffic::close_all(const std::string& cause) {
  while (!connections_.empty()) connections_.begin()->second->end(cause);
  refusals_.flush();
}

void Traffic::describe(Snapshot& snapshot) const {
  for (const auto& [id, connection] : connections_) {
    if (static_cast<std::size_t>(snapshot.connections_size()) >= kMaxSnapshotConnections) break;
    connection->describe(*snapshot.add_connections(), agent_.reactor.now());
  }
  snapshot.set_open(static_cast<std::uint32_t>(connections_.size()));
  snapshot.set_total(total_);
  snapshot.set_sent(bytes_[static_cast<std::size_t>(Way::kSent)]);
  snapshot.set_received(bytes_[static_cast<std::size_t>(Way::kReceived)]);
  refusals_.describe(snapshot);
}

}  // namespace kai::egress
