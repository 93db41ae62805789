// What control sends. Control is trusted, but its frames are checked all the same: what has no place in the protocol
// ends the agent rather than being guessed at.
#include <sys/wait.h>

#include <algorithm>

#include "agent-host/bridge.h"
#include "agent-host/json_text.h"
#include "base/text.h"

namespace kai {
namespace {

void append_strings(std::string& out, const google::protobuf::RepeatedPtrField<std::string>& strings) {
  out += '[';
  for (const std::string& text : strings) {
    if (out.back() != '[') out += ',';
    append_json_string(out, text);
  }
  out += ']';
}

void append_permissions(std::string& out, const google::protobuf::RepeatedPtrField<klp::Permission>& permissions) {
  out += '[';
  for (const klp::Permission& permission : permissions) {
    if (out.back() != '[') out += ',';
    out += '{';
    append_name(out, "resource");
    append_json_string(out, permission.resource());
    append_name(out, "actions");
    append_strings(out, permission.actions());
    if (!permission.scope().empty()) {
      append_name(out, "scope");
      append_json_string(out, permission.scope());
    }
    out += '}';
  }
  out += ']';
}

}  // namespace

bool Bridge::legal(klp::Envelope::KindCase kind) const {
  switch (kind) {
    case klp::Envelope::kAccepted:
      return !answered_;
    case klp::Envelope::kResumed:
      return answered_ && !connected_;
    case klp::Envelope::kRefused:
      return !connected_;
    case klp::Envelope::kMessage:
    case klp::Envelope::kMemoryAnswer:
    case klp::Envelope::kHealthRequest:
    case klp::Envelope::kHookCall:
      return connected_;
    case klp::Envelope::kStop:
    case klp::Envelope::kSignal:
      return true;
    default:
      return false;
  }
}

void Bridge::on_envelope(const klp::Envelope& envelope) {
  if (kill_now_) return;
  if (!legal(envelope.kind_case())) {
    log("error",
        "control sent envelope kind " + std::to_string(envelope.kind_case()) +
            " where the protocol has no place for it; the agent ends",
        "");
    on_control_broken();
    return;
  }
  switch (envelope.kind_case()) {
    case klp::Envelope::kAccepted:
      return on_accepted(envelope.accepted());
    case klp::Envelope::kRefused:
      refused_ = true;
      return on_control_broken();
    case klp::Envelope::kResumed:
      return reconnected();
    case klp::Envelope::kMessage:
      return on_message(envelope.message());
    case klp::Envelope::kMemoryAnswer:
      return on_memory_answer(envelope.memory_answer());
    case klp::Envelope::kHealthRequest:
      return on_health_request(envelope.health_request().sequence());
    case klp::Envelope::kHookCall:
      return on_hook_call(envelope.hook_call());
    case klp::Envelope::kStop:
      return stop(envelope.stop().grace_ms());
    default:
      return signal_runner(envelope.signal().number());
  }
}

void Bridge::on_accepted(const klp::Accepted& accepted) {
  answered_ = true;
  reconnected();
  if (accepted.max_in_flight() > 0) max_in_flight_ = std::min(accepted.max_in_flight(), kMaxInFlight);
  if (accepted.max_frame_bytes() > 0) max_payload_ = std::min<std::size_t>(accepted.max_frame_bytes(), kMaxFrameBytes);
  if (accepted.message_deadline_ms() > 0) {
    message_deadline_ms_ = std::min<std::int64_t>(accepted.message_deadline_ms(), kMaxMessageDeadlineMs);
  }
  *serving_.mutable_permissions() = accepted.permissions();
  if (phase_ != Phase::kHello) return;  // stopped before it was accepted
  if (accepted.held()) {
    phase_ = Phase::kHeld;
    return;
  }
  if (!channel_.open()) return started();
  std::string params = "{";
  append_init_members(params, serving_, spec_.manifest_json());
  call_hook(Phase::kInit, "init", params + "}");
}

void Bridge::append_init_members(std::string& json, const klp::Load& version, std::string_view manifest_json) const {
  const auto manifest = JsonView::parse(manifest_json);
  const auto name = manifest ? manifest->member("name") : std::nullopt;
  append_name(json, "agent");
  json += '{';
  append_name(json, "id");
  append_json_string(json, spec_.agent_id());
  append_name(json, "name");
  append_json_string(json, name ? name->string().value_or(spec_.agent_id()) : spec_.agent_id());
  append_name(json, "version");
  append_json_string(json, version.version());
  json += '}';
  append_name(json, "capabilities");
  append_strings(json, version.capabilities());
  append_name(json, "manifest");
  append_json_on_one_line(json, manifest && manifest->is_object() ? manifest->text() : "{}");
  append_name(json, "permissions");
  append_permissions(json, version.permissions());
  append_name(json, "limits");
  json += '{';
  append_name(json, "messageMs");
  append_decimal(json, static_cast<std::uint64_t>(message_deadline_ms_));
  append_name(json, "inFlight");
  append_decimal(json, max_in_flight_);
  append_name(json, "frameBytes");
  append_decimal(json, max_payload_);
  json += '}';
  append_name(json, "protocol");
  json += '1';
}

void Bridge::on_message(const std::string& bytes) {
  klp::Message message;
  if (!message.ParseFromString(bytes)) return on_control_broken();
  switch (message.type()) {
    case klp::REQUEST:
      return deliver(message);
    case klp::EVENT:
      return notify(message);
    case klp::RESPONSE:
    case klp::ERROR:
      return answer_send(message);
    default:
      return on_control_broken();
  }
}

void Bridge::deliver(const klp::Message& message) {
  const auto error = try_deliver(message);
  if (error) send_message(error_message(*error, {message.id(), message.from()}, spec_.agent_id()));
}

std::optional<KlpError> Bridge::try_deliver(const klp::Message& message) {
  if (!channel_.open()) {
    return KlpError{"UNKNOWN_CAPABILITY", "the agent takes no messages: its runtime has protocol none", {}, false};
  }
  if (phase_ != Phase::kServing) return KlpError{"NOT_RUNNING", "the agent is starting or stopping", {}, false};
  const auto too_large = [](std::string_view what) { return KlpError{"TOO_LARGE", std::string(what), {}, false}; };
  if (message.payload().size() > max_payload_) return too_large("the payload is larger than the agent's limit");
  if (messages_.size() >= max_in_flight_) {
    return KlpError{"BUSY", "the agent has as many messages to answer as it may have", {}, true};
  }
  const auto json = message_json(message);
  if (!json) return json.error();
  const std::string params = "{\"message\":" + *json + "}";
  if (params.size() + kMaxNameBytes > kMaxLineBytes) return too_large("the payload is too large as base64");
  const std::uint64_t id = call("message", params, kMaxQueuedMessageBytes);
  if (id == 0) return KlpError{"BUSY", "the agent does not read its messages, and its queue is full", {}, true};
  const std::int64_t asked = message.deadline_ms() > 0 ? message.deadline_ms() : message_deadline_ms_;
  messages_.add(id, {message.id(), message.from()}, now_ + std::min(asked, kMaxMessageDeadlineMs));
  return std::nullopt;
}

void Bridge::notify(const klp::Message& message) {
  if (phase_ != Phase::kServing || message.payload().size() > max_payload_) return;
  const auto json = message_json(message);
  // Nobody waits for an event's answer: one that cannot be delivered is dropped.
  if (json) channel_.send(rpc_notification("message", "{\"message\":" + *json + "}"), kMaxQueuedMessageBytes);
}

void Bridge::answer_send(const klp::Message& message) {
  const auto rpc_id = sends_.take(message.correlation_id());
  if (!rpc_id) return on_event_refused(message);
  const auto result = send_result(message);
  std::string line = result ? rpc_result(*rpc_id, *result) : rpc_error(*rpc_id, RpcCode::kAgentError, result.error());
  if (line.size() > kMaxLineBytes + 1) {
    const KlpError error{"TOO_LARGE", "the answer is too large for the runner protocol", {}, false};
    line = rpc_error(*rpc_id, RpcCode::kAgentError, error);
  }
  answer_runner(line);
}

void Bridge::on_event_refused(const klp::Message& message) {
  const auto to = events_.take(message.correlation_id());
  // Else it is too late: the runner has had its TIMEOUT.
  if (!to || message.type() != klp::ERROR) return;
  std::string fields = "{";
  append_name(fields, "code");
  append_json_string(fields, message.error().code());
  fields += '}';
  log("warn", "the event to " + *to + " was refused: " + message.error().message(), fields);
}

bool Bridge::stopped() const {
  siginfo_t info{};
  // Asked for without being taken: it is told again as long as the program stands still.
  return waitid(P_PID, static_cast<id_t>(runner_), &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 && info.si_pid == runner_;
}

void Bridge::on_health_request(std::uint64_t sequence) {
  if (!channel_.open()) {
    // Nobody else can be asked. No report of a program that is stopped: control counts the misses, and it is hung.
    if (!stopped()) report_health(sequence, basic_health(health_basis()));
    return;
  }
  if (phase_ != Phase::kServing) return;
  if (health_call_) {
    health_call_->sequence = sequence;  // one question at a time: its answer is true for both
    return;
  }
  const std::uint64_t id = call("health", "{}", kMaxQueuedMessageBytes);
  if (id != 0) health_call_ = HealthCall{id, sequence, now_ + kHealthDeadlineMs};
}

}  // namespace kai
