// Where a message of an agent goes: to another agent, to the readers of a topic, to kaid itself; by the sender's
// permissions alone (contracts.md: agent/ID|*/execute, topic/NAME/write and read).
#pragma once

#include "supervisor/control/agents.h"

namespace kai {

class Router {
 public:
  explicit Router(Agents& agents) : agents_(agents) {}

  /// `message` came over the sender's own channel: `from` is stamped, signature, replay and sizes are checked. A
  /// request is always answered, now or later, as long as the sender lives.
  void route(Agent& sender, const klp::Message& message);

 private:
  Agents& agents_;
};

}  // namespace kai
