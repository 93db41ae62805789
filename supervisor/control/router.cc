#include "supervisor/control/router.h"

#include <algorithm>

#include "base/text.h"

namespace kai {
namespace {

constexpr std::string_view kTopic = "topic:";
constexpr std::size_t kMaxSharedReads = 64;  // of one reader, at once
constexpr std::chrono::milliseconds kLossReportEvery{5'000};

Failure fault(std::string code, std::string message) {
  return refuse(std::move(code), std::move(message)).value();
}

void deny(Agent& sender, const klp::Message& message, std::string_view permission) {
  sender.deny(message, "no permission " + std::string(permission) + " of its policy and manifest names it");
  sender.answer_error(message, fault("DENIED", "agent '" + sender.row().id + "' may not send to '" + message.to() +
                                                   "': it has no permission " + std::string(permission) + " for it"));
}

/// How long the receiver may take: what the sender asks for, within what the policies of both allow.
std::chrono::milliseconds deadline_of(const klp::Message& message, const Agent& sender, const Agent& receiver) {
  const auto most = std::min(sender.policy().deadlines.message, receiver.policy().deadlines.message);
  const std::chrono::milliseconds asked(message.deadline_ms());
  return asked.count() == 0 ? most : std::min(asked, most);
}

}  // namespace

bool permits(const std::vector<Permission>& permissions, std::string_view resource, std::string_view name,
             std::string_view action) {
  if (name.empty()) return false;
  return std::any_of(permissions.begin(), permissions.end(), [&](const Permission& permission) {
    return permission.resource == resource && (permission.scope == "*" || permission.scope == name) &&
           std::find(permission.actions.begin(), permission.actions.end(), action) != permission.actions.end();
  });
}

Router::Router(EventLoop& loop, Log& log, Agents& agents) : log_(log), agents_(agents), loss_timer_(loop) {}

void Router::route(Agent& sender, const klp::Message& message) {
  if (message.type() == klp::EVENT) return publish(sender, message);
  if (message.to() == "kaid") {
    return sender.answer_error(
        message, fault("UNAVAILABLE", "kaid's service '" + message.capability() + "' is not in this version"));
  }
  if (message.to() == "operator") {
    return sender.answer_error(message, fault("INVALID", "nobody listens at 'operator'; use log, or a topic"));
  }
  if (message.to().starts_with(kTopic)) {
    return sender.answer_error(message, fault("INVALID", "a topic takes events, no requests: nobody would answer"));
  }
  request(sender, message);
}

void Router::read_memory(Agent& reader, klp::MemoryRequest&& request, MemoryContext::Answer answer) {
  const std::string owner = request.agent();
  const auto refuse_read = [&](std::string_view code, const std::string& why) {
    klp::MemoryAnswer refusal;
    refusal.set_id(request.id());
    *refusal.mutable_error() =
        memory_error(code, "the memory of agent '" + escape_for_terminal(owner) + "' cannot be read: " + why);
    answer(std::move(refusal));
  };
  // Whatever is denied is told and recorded by its name: what cannot be an agent's is neither.
  if (!is_agent_id(owner)) {
    klp::MemoryAnswer refusal;
    refusal.set_id(request.id());
    *refusal.mutable_error() = memory_error("INVALID", "`agent` is not an agent's id");
    return answer(std::move(refusal));
  }
  const auto deny_read = [&](const std::string& why) {
    reader.deny_memory(owner, why);
    refuse_read("DENIED", why);
  };
  // Before anything else: whoever may not read it does not learn whether it exists.
  if (!permits(reader.permissions(), "memory", owner, "read")) {
    return deny_read("no permission {resource: memory, actions: [read]} of its policy and manifest names it");
  }
  if (!request.has_get() && !request.has_list()) return deny_read("shared memory is read only");
  Agent* const agent = agents_.find(owner);
  if (agent == nullptr) return refuse_read("NOT_FOUND", "no such agent is registered");
  if (!agent->manifest().memory.shared_access) {
    return deny_read("its manifest does not say memory.sharedAccess");
  }
  // The queue is the owner's: a reader may have a small part of it.
  const std::string& id = reader.row().id;
  if ((*reads_)[id] >= kMaxSharedReads) {
    return refuse_read("BUSY", "agent '" + id + "' waits for as many reads of others' memory as it may");
  }
  ++(*reads_)[id];
  agent->memory().touch();
  agent->memory().perform(std::move(request),
                          [reads = reads_, id, answer = std::move(answer)](klp::MemoryAnswer&& said) {
                            const auto count = reads->find(id);
                            if (--count->second == 0) reads->erase(count);
                            answer(std::move(said));
                          });
}

void Router::request(Agent& sender, const klp::Message& message) {
  // Before anything else: whoever may not send to it does not learn whether it exists.
  if (!permits(sender.permissions(), "agent", message.to(), "execute")) {
    return deny(sender, message, "{resource: agent, actions: [execute]}");
  }
  Agent* receiver = agents_.find(message.to());
  if (receiver == nullptr) return sender.answer_error(message, not_registered(message.to()));
  const std::string& id = sender.row().id;
  if (in_flight_[id] >= sender.policy().limits.in_flight) {
    return sender.answer_error(message, fault("BUSY", "agent '" + id + "' waits for " + std::to_string(in_flight_[id]) +
                                                          " answers already, its limit (limits.inFlight)"));
  }
  ++in_flight_[id];
  sender.note_sent(message);
  klp::Message header = message;
  header.clear_payload();
  receiver->deliver(
      message, deadline_of(message, sender, *receiver),
      [this, header = std::move(header)](const Outcome<klp::Message>& outcome) { on_answer(header, outcome); });
}

void Router::on_answer(const klp::Message& request, const Outcome<klp::Message>& outcome) {
  const auto count = in_flight_.find(request.from());
  if (--count->second == 0) in_flight_.erase(count);
  // A later life of the sender knows no such request and drops it.
  Agent* sender = agents_.find(request.from());
  if (sender == nullptr) return;
  outcome ? sender->answer(request, *outcome) : sender->answer_error(request, outcome.error());
}

void Router::publish(Agent& sender, const klp::Message& message) {
  const std::string_view to = message.to();
  if (!to.starts_with(kTopic) || to.size() == kTopic.size()) {
    return sender.answer_error(message, fault("INVALID", "an event goes to topic:NAME"));
  }
  const std::string_view topic = to.substr(kTopic.size());
  if (!permits(sender.permissions(), "topic", topic, "write")) {
    return deny(sender, message, "{resource: topic, actions: [write]}");
  }
  if (const auto refused = sender.unrecordable()) return sender.answer_error(message, *refused);
  sender.note_sent(message);
  for (const auto& [id, reader] : agents_.all()) {
    if (!permits(reader->permissions(), "topic", topic, "read")) continue;
    if (!reader->deliver_event(message)) note_loss(id);
  }
}

void Router::note_loss(const std::string& reader) {
  ++lost_[reader];
  if (loss_timer_.active()) return;
  report_losses();
}

// The first at once, then at most one line a reader in each period.
void Router::report_losses() {
  if (lost_.empty()) return;
  for (const auto& [reader, count] : std::exchange(lost_, {})) {
    log_.write(LogLevel::kWarn, reader, "kai.events_lost",
               "it does not read the events of its topics as fast as they come, and has lost some", {{"lost", count}});
  }
  loss_timer_.start(kLossReportEvery, [this] { report_losses(); });
}

}  // namespace kai
