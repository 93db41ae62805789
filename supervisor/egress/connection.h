// One connection of an agent, from accept(2) to its end: decide, look at what is spoken, resolve, dial, relay.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/fd.h"
#include "proto/egress.pb.h"
#include "supervisor/egress/names.h"
#include "supervisor/egress/pipes.h"
#include "supervisor/egress/reactor.h"
#include "supervisor/egress/resolver.h"
#include "supervisor/egress/shaper.h"

namespace kai::egress {

class AgentTraffic;

/// What egress tells of connections; AgentNetwork fills in the instance and passes it on.
struct TrafficEvents {
  std::function<void(egress::Opened&& opened)> opened;
  std::function<void(egress::Closed&& closed)> closed;
  std::function<void(egress::Refused&& refused)> refused;
};

/// All connections of one agent: its limits, its share of the loop, its counters.
class AgentTraffic {
 public:
  struct Agent {
    Reactor& reactor;
    Resolver& resolver;
    PipePool& pipes;
    SyntheticNames& names;
    const egress::Rules& rules;  ///< as they are now: the owner changes them in place and calls rules_changed()
    TrafficEvents events;
  };
  static std::unique_ptr<AgentTraffic> create(Agent agent);
  virtual ~AgentTraffic() = default;

  /// A connection came in on one of the agent's listeners.
  virtual void accepted(Fd socket) = 0;
  /// Everything open that the rules of now do not allow is reset before this returns.
  virtual void rules_changed() = 0;
  /// Everything open is reset before this returns.
  virtual void close_all(const std::string& cause) = 0;
  /// Connections, counters and rates; of egress.Snapshot what is this room's.
  virtual void describe(egress::Snapshot& snapshot) const = 0;
};

}  // namespace kai::egress
