#include <algorithm>
#include <array>

#include "base/text.h"
#include "supervisor/control/agent.h"
#include "supervisor/control/router.h"

namespace kai {
namespace {

constexpr std::size_t kHeaders = 32;  // of the last messages, kept for the evidence of a quarantine

void append_text(std::string& json, std::string_view name, std::string_view text) {
  if (text.empty()) return;
  if (json.size() > 1) json += ',';
  json.append("\"").append(name).append("\":");
  append_json_string(json, text);
}

void append_number(std::string& json, std::string_view name, std::uint64_t number) {
  json.append(",\"").append(name).append("\":").append(std::to_string(number));
}

std::string_view type_name(klp::Type type) {
  static constexpr std::array<std::string_view, 5> kNames = {"", "request", "response", "event", "error"};
  const auto at = static_cast<std::size_t>(type);
  return at < kNames.size() ? kNames[at] : "";
}

/// Who said what to whom, and how much: never the payload.
std::string header_json(const klp::Message& message, std::string_view outcome) {
  static constexpr std::array<std::string_view, 4> kPriorities = {"", "low", "high", "urgent"};
  std::string json = "{";
  append_text(json, "messageId", message.id());
  append_text(json, "correlationId", message.correlation_id());
  append_text(json, "from", message.from());
  append_text(json, "to", message.to());
  append_text(json, "type", type_name(message.type()));
  append_text(json, "capability", message.capability());
  append_number(json, "bytes", message.payload().size());
  const auto priority = static_cast<std::size_t>(message.metadata().priority());
  if (priority < kPriorities.size()) append_text(json, "priority", kPriorities[priority]);
  if (message.metadata().ttl_seconds() != 0) append_number(json, "ttl", message.metadata().ttl_seconds());
  append_text(json, "traceparent", message.metadata().traceparent());
  append_text(json, "outcome", outcome);
  return json += '}';
}

}  // namespace

void Agent::record_message(std::string_view event, const klp::Message& message, std::string_view outcome) {
  std::string header = header_json(message, outcome);
  if (policy().audit_messages) environment_.audit.append(row_.id, event, header);
  headers_.push_back(std::move(header));
  if (headers_.size() > kHeaders) headers_.pop_front();
}

void Agent::on_message(Instance& from, const klp::Message& message) {
  const bool several = upgrade_ || !leaving_.empty();
  // Only requests are answered, and of those a limited number is under way.
  if (several && message.type() == klp::REQUEST) askers_.insert_or_assign(message.id(), from.number());
  if (!several && !askers_.empty()) askers_.clear();
  if (environment_.log.enabled(LogLevel::kDebug)) {
    environment_.log.write(LogLevel::kDebug, row_.id, "message_sent", "",
                           {{"to", message.to()}, {"id", message.id()}, {"bytes", message.payload().size()}});
  }
  speaking_ = &from;
  environment_.router->route(*this, message);
  speaking_ = nullptr;
}

void Agent::note_sent(const klp::Message& message) {
  ++sent_;
  record_message("message_sent", message, {});
}

std::optional<Failure> Agent::not_served(const std::string& capability) const {
  const auto failed = [](std::string code, std::string message, std::string hint = {}) {
    return refuse(std::move(code), std::move(message), std::move(hint)).value();
  };
  if (state_ == State::kQuarantined) {
    return failed("QUARANTINED", "agent '" + row_.id + "' is quarantined: " + quarantine_->reason.description,
                  "See 'kaictl quarantine show " + row_.id + "'");
  }
  if (state_ != State::kRunning && state_ != State::kUpgrading) {
    Failure failure = failed("NOT_RUNNING", "agent '" + row_.id + "' is " + std::string(to_string(state_)),
                             "Start it: kaictl start " + row_.id);
    // kaid itself is about to start it.
    if (state_ == State::kStarting || state_ == State::kBackoff || follow_up_ == Event::kStart) {
      failure.retryable = true;
      failure.hint = "Try again in a moment; see 'kaictl status " + row_.id + "'";
    }
    return failure;
  }
  if (manifest_.runtime.protocol == Protocol::kNone) {
    return failed("UNKNOWN_CAPABILITY", "agent '" + row_.id + "' takes no messages: its runtime.protocol is none");
  }
  const auto& known = manifest_.capabilities;
  if (std::find(known.begin(), known.end(), capability) == known.end()) {
    return failed("UNKNOWN_CAPABILITY", "agent '" + row_.id + "' has no capability '" + capability + "'",
                  "See its manifest's capabilities");
  }
  return environment_.audit.refusal();
}

void Agent::deliver(klp::Message message, std::chrono::milliseconds deadline, KlpChannel::Answer answer) {
  if (auto refused = not_served(message.capability())) return answer(tl::unexpected(std::move(*refused)));
  if (deadline.count() == 0) deadline = policy().deadlines.message;
  if (message.id().empty()) message.set_id(new_uuid());
  message.set_to(row_.id);
  message.set_type(klp::REQUEST);
  if (environment_.log.enabled(LogLevel::kDebug)) {
    environment_.log.write(
        LogLevel::kDebug, row_.id, "message_received", "",
        {{"from", message.from()}, {"capability", message.capability()}, {"bytes", message.payload().size()}});
  }
  klp::Message request;
  request.set_id(message.id());
  request.set_from(message.from());
  std::string received = header_json(message, {});
  // Whether it is taken is known when it has not been refused at once.
  const auto asking = std::make_shared<bool>(true);
  KlpChannel::Answer noted = [this, alive = std::weak_ptr(alive_), asking, request = std::move(request),
                              answer = std::move(answer)](Outcome<klp::Message> outcome) {
    if (!*asking && !alive.expired()) note_answer(request, outcome);
    *asking = false;
    answer(std::move(outcome));
  };
  if (holding_ || !held_.empty()) {
    hold_request(std::move(message), deadline, std::move(noted));
  } else {
    instance_->channel()->request(std::move(message), deadline, std::move(noted));
  }
  if (!std::exchange(*asking, false)) return;
  ++received_;
  if (policy().audit_messages) environment_.audit.append(row_.id, "message_received", received);
  headers_.push_back(std::move(received));
  if (headers_.size() > kHeaders) headers_.pop_front();
}

/// What became of a request: the agent's response, or why there is none.
void Agent::note_answer(const klp::Message& request, const Outcome<klp::Message>& outcome) {
  if (outcome) {
    ++sent_;
    return record_message("message_sent", *outcome, "ok");
  }
  klp::Message failed;
  failed.set_correlation_id(request.id());
  failed.set_from(row_.id);
  failed.set_to(request.from());
  failed.set_type(klp::ERROR);
  // The agent's own error is its answer; where kaid had to answer in its place, nothing was sent.
  const bool of_agent = outcome.error().from == row_.id;
  if (of_agent) ++sent_;
  record_message(of_agent ? "message_sent" : "error", failed, outcome.error().code);
}

/// Of the instance that asked; null where that has ended.
KlpChannel* Agent::channel_for(const klp::Message& request) {
  Instance* asker = instance_.get();
  if (const auto found = askers_.find(request.id()); found != askers_.end()) {
    asker = instance_numbered(found->second);
    askers_.erase(found);
  }
  return asker == nullptr ? nullptr : asker->channel();
}

void Agent::answer(const klp::Message& request, klp::Message response) {
  if (KlpChannel* const channel = channel_for(request)) channel->reply(request, std::move(response));
}

void Agent::answer_error(const klp::Message& request, const Failure& failure) {
  if (KlpChannel* const channel = channel_for(request)) channel->reply_error(request, failure);
}

bool Agent::deliver_event(const klp::Message& event) {
  if (state_ != State::kRunning && state_ != State::kUpgrading) return true;
  if (holding_ || !held_.empty()) return held_.push_event(event);
  return instance_->channel()->deliver(event);
}

const std::vector<Permission>& Agent::permissions() const {
  static const std::vector<Permission> none;
  if (speaking_ != nullptr) return speaking_->permissions();
  return instance_ ? instance_->permissions() : none;
}

void Agent::deny(const klp::Message& message, const std::string& reason) {
  Denial denial;
  denial.kind = Denial::Kind::kMessage;
  denial.what = message.to();
  denial.detail =
      "a message to " + message.to() + (message.capability().empty() ? "" : " (" + message.capability() + ")");
  denial.reason = reason;
  denial.rule = policy().rule("permissions");
  denial.error = "DENIED";
  denials_.write(denial);
}

void Agent::deny_memory(std::string_view of, const std::string& reason) {
  Denial denial;
  denial.kind = Denial::Kind::kMessage;
  denial.what = of;
  denial.detail = "the memory of agent " + std::string(of);
  denial.reason = reason;
  denial.rule = policy().rule("permissions");
  denial.error = "DENIED";
  denials_.write(denial);
}

}  // namespace kai
