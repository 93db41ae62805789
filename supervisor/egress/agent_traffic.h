// All connections of one agent: who may begin, what is open, since when nothing moved, and what it all amounts to.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/egress/agent_connection.h"
#include "supervisor/egress/connection.h"
#include "supervisor/egress/refusal_log.h"
#include "supervisor/egress/turns.h"

namespace kai::egress {

/// A snapshot is one packet (net.core.wmem_default, 208 KB, is the most that one may have), whatever an agent does.
inline constexpr std::size_t kMaxSnapshotConnections = 128;

class Traffic final : public AgentTraffic {
 public:
  explicit Traffic(Agent agent);
  Traffic(const Traffic&) = delete;
  Traffic& operator=(const Traffic&) = delete;
  ~Traffic() override;

  void accepted(Fd socket) override;
  void rules_changed() override;
  void close_all(const std::string& cause) override;
  void describe(egress::Snapshot& snapshot) const override;

  // For its connections.
  Agent& agent() { return agent_; }
  Turns& turns() { return turns_; }
  void refused(egress::Refused&& refused) { refusals_.add(std::move(refused)); }
  void opened(AgentConnection& connection);
  /// Bytes moved.
  void count(AgentConnection& connection, Way way, std::uint64_t bytes);
  /// It holds no socket any more, and is destroyed when this round is over.
  void ended(AgentConnection& connection, bool was_open);

 private:
  struct NewConnections {  // a token bucket: as many at once as in a second
    double tokens = 0;
    Clock::time_point filled{};
    bool take(std::uint32_t per_second, Clock::time_point now);
  };

  bool has_room(egress::Refused& refused);
  void decide(Fd socket, Destination destination, egress::Refused&& refused);
  void end_oldest();
  void arm_timeouts();

  Agent agent_;
  Turns turns_;
  RefusalLog refusals_;
  NewConnections new_connections_;
  std::map<std::uint64_t, std::unique_ptr<AgentConnection>> connections_;  // oldest first
  std::list<AgentConnection*> by_activity_;                                // open ones, the longest idle first
  std::vector<std::unique_ptr<AgentConnection>> ended_;
  Reactor::Timer timeouts_;                // one for all: for the oldest and the longest idle
  Reactor::Timer bury_;                    // destroys ended_
  std::uint64_t last_id_ = 0, total_ = 0;  // total_: accepted by the rules, ever
  std::array<std::uint64_t, 2> bytes_{};
};

}  // namespace kai::egress
