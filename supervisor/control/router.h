// Where a message of an agent goes: to another agent, to the readers of a topic, to kaid itself; by the sender's
// permissions alone (contracts.md: agent/ID|*/execute, topic/NAME/write and read).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "supervisor/control/agents.h"

namespace kai {

/// Whether one of them gives `action` on `name`. A scope is one name or "*"; one that names none opens nothing.
bool permits(const std::vector<Permission>& permissions, std::string_view resource, std::string_view name,
             std::string_view action);

class Router {
 public:
  Router(EventLoop& loop, Log& log, Agents& agents);

  /// `message` came over the sender's own channel: `from` is stamped, signature, replay and sizes are checked. A
  /// request is always answered, now or later, as long as the sender lives; an event that is refused is answered with
  /// an error.
  void route(Agent& sender, const klp::Message& message);
  /// `request.agent` is another agent, whose memory is to be read: shared by its manifest, and granted to the reader.
  /// `answer` is called once.
  void read_memory(Agent& reader, klp::MemoryRequest&& request, MemoryContext::Answer answer);

 private:
  void request(Agent& sender, const klp::Message& message);
  void publish(Agent& sender, const klp::Message& message);
  void on_answer(const klp::Message& request, const Outcome<klp::Message>& outcome);
  void note_loss(const std::string& reader);
  void report_losses();

  Log& log_;
  Agents& agents_;
  std::map<std::string, std::size_t, std::less<>> in_flight_;  // requests of each sender that are not answered yet
  // Of others' memory, by reader, not answered yet; whoever answers last may outlive the router.
  std::shared_ptr<std::map<std::string, std::size_t, std::less<>>> reads_ =
      std::make_shared<std::map<std::string, std::size_t, std::less<>>>();
  std::map<std::string, std::uint64_t, std::less<>> lost_;  // events by reader, since the last report
  Timer loss_timer_;
};

}  // namespace kai
