// What the runner sends. All of it is hostile: nothing here may cost more than the agent's own life.
#include <charconv>

#include "agent-host/bridge.h"
#include "agent-host/json_text.h"
#include "base/text.h"

namespace kai {
namespace {

std::optional<std::string> string_member(const std::optional<JsonView>& object, std::string_view name) {
  const auto value = object ? object->member(name) : std::nullopt;
  return value ? value->string() : std::nullopt;
}

KlpError too_large() {
  return {"TOO_LARGE", "the payload is larger than a message may be", {}, false};
}

bool is_log_level(std::string_view level) {
  return level == "debug" || level == "info" || level == "warn" || level == "error";
}

}  // namespace

void Bridge::on_line(std::string_view line) {
  if (kill_now_ || line.find_first_not_of(" \t\r") == std::string_view::npos) return;
  const auto message = parse_rpc(line);
  if (!message) {
    const RpcFault& fault = message.error();
    if (!fault.id.empty()) answer_runner(rpc_error(fault.id, fault.code, {"INVALID", fault.message, {}, false}));
    return broken_line();
  }
  if (!spoken_ && !first_word(*message)) return;
  switch (message->kind) {
    case RpcMessage::Kind::kRequest:
      return on_request(*message);
    case RpcMessage::Kind::kNotification:
      return on_notification(*message);
    default:
      return on_answer(*message);
  }
}

void Bridge::broken_line() {
  if (++broken_lines_ < kMaxBrokenLines) return;
  violation("the runner sent " + std::to_string(broken_lines_) +
            " lines on descriptor 3 that are not the runner protocol");
}

bool Bridge::first_word(const RpcMessage& message) {
  spoken_ = true;
  std::string sdk;
  if (message.kind == RpcMessage::Kind::kNotification && message.method == "hello") {
    sdk = clip_utf8(string_member(message.content, "sdk").value_or(""), kMaxNameBytes);
    const auto protocol = message.content ? message.content->member("protocol") : std::nullopt;
    if (protocol && protocol->text() != "1") {
      violation("the runner's SDK speaks runner protocol " + std::string(clip_utf8(protocol->text(), kMaxNameBytes)) +
                ", this kAI speaks 1: use the SDK that came with it");
      return false;
    }
  }
  klp::Envelope envelope;
  envelope.mutable_runner_hello()->set_sdk(std::move(sdk));
  control_.send(envelope);
  return true;
}

void Bridge::on_answer(const RpcMessage& message) {
  std::uint64_t id = 0;
  const char* const end = message.id.data() + message.id.size();
  const auto [stopped, error] = std::from_chars(message.id.data(), end, id);
  if (error != std::errc() || stopped != end || id == 0 || id > last_call_) return broken_line();  // never asked
  if (id == hook_call_) return on_hook_answer(message);
  if (health_call_ && id == health_call_->id) {
    const std::uint64_t sequence = health_call_->sequence;
    health_call_.reset();
    return report_health(sequence, health_said(message, failed_checks_));
  }
  if (open_hook_ && id == open_hook_->rpc_id) return on_hook_returned(message);
  if (id == commit_call_) return on_commit_answer(message);
  // Else it is late: the question has been answered with TIMEOUT.
  if (const auto to = messages_.take(id)) on_message_answer(message, *to);
}

void Bridge::on_hook_answer(const RpcMessage& message) {
  hook_call_ = 0;
  const bool failed = message.kind == RpcMessage::Kind::kError;
  if (phase_ == Phase::kStopping) {
    if (failed) log("error", "onShutdown failed: " + error_of_hook(*message.content).message, "");
    // End of input lets a runner leave by itself, with its own exit status; SIGTERM follows soon.
    channel_.finish_sending();
    terminate_at_ = std::min(terminate_at_, now_ + kShutdownExitMs);
    return;
  }
  if (failed) {
    const KlpError error = error_of_hook(*message.content);
    return start_failed(phase_ == Phase::kInit ? "init" : "start", error.message, error.details_json);
  }
  if (phase_ == Phase::kInit) return call_hook(Phase::kStart, "start", "{}");
  started();
}

void Bridge::on_message_answer(const RpcMessage& message, const Correspondent& to) {
  last_activity_unix_ms_ = unix_ms();
  const std::string& agent = spec_.agent_id();
  if (message.kind == RpcMessage::Kind::kError) {
    return send_message(error_message(error_of_hook(*message.content), to, agent));
  }
  const auto response = response_message(*message.content, to, agent);
  if (!response) {
    send_message(error_message(response.error(), to, agent));
    return broken_line();
  }
  if (response->payload().size() > max_payload_) {
    const KlpError error{"TOO_LARGE",
                         "the agent's answer has " + std::to_string(response->payload().size()) + " bytes, at most " +
                             std::to_string(max_payload_) + " are allowed",
                         {},
                         false};
    return send_message(error_message(error, to, agent));
  }
  send_message(*response);
}

klp::HealthReport Bridge::health_said(const RpcMessage& message, FailedChecks& failed) const {
  const HealthBasis basis = health_basis();
  if (message.kind == RpcMessage::Kind::kResult) {
    // A runner without the hook may answer null.
    const bool none = message.content->is_null();
    failed.in_a_row = 0;
    return none ? basic_health(basis) : rebuilt_health(*message.content, basis);
  }
  if (is_method_not_found(*message.content)) return basic_health(basis);
  const std::string given = string_member(message.content->member("data"), "name").value_or("");
  const std::string name(clip_utf8(given, kMaxHealthTextBytes));
  if (name != failed.error_name) failed.in_a_row = 0;
  failed.error_name = name;
  ++failed.in_a_row;
  return failed_health(failed, error_of_hook(*message.content).message, basis);
}

void Bridge::on_notification(const RpcMessage& message) {
  if (message.method == "hello") return;  // only the first word counts
  if (message.method != "log") return broken_line();
  const auto level = string_member(message.content, "level");
  const auto text = string_member(message.content, "message");
  const auto fields = message.content ? message.content->member("fields") : std::nullopt;
  const bool absent = !fields || fields->is_null();
  if (!level || !is_log_level(*level) || !text || (!absent && !fields->is_object())) return broken_line();
  std::string fields_json;
  if (!absent && fields->text().size() <= kMaxLogFieldsBytes) append_json_on_one_line(fields_json, fields->text());
  if (!absent && fields_json.empty()) fields_json = R"({"fieldsLost":"too large"})";
  log(*level, *text, fields_json);
}

void Bridge::on_request(const RpcMessage& message) {
  const bool send = message.method == "klp.send";
  const bool emit = message.method == "klp.emit";
  const auto memory = memory_call(message.method);
  if (!send && !emit && !memory) {
    return refuse(message, RpcCode::kMethodNotFound,
                  {"INVALID", "the runner protocol has no method " + message.method, {}, false});
  }
  if (!connected_) return refuse(message, RpcCode::kAgentError, no_control());
  if (!message.content) {
    return refuse(message, RpcCode::kInvalidParams, {"INVALID", message.method + " needs params", {}, false});
  }
  if (memory) return on_memory(message, *memory);
  return send ? on_send(message) : on_emit(message);
}

void Bridge::on_send(const RpcMessage& message) {
  const auto request = send_request(*message.content, spec_.agent_id());
  if (!request) return refuse(message, RpcCode::kInvalidParams, request.error());
  if (request->message.payload().size() > max_payload_) {
    return refuse(message, RpcCode::kAgentError, too_large());
  }
  if (request->message.type() == klp::EVENT) return publish(request->message, message.id, R"({"payload":null})");
  if (sends_.size() >= max_in_flight_) {
    return refuse(message, RpcCode::kAgentError, {"BUSY", "as many sent messages wait for answers as may", {}, true});
  }
  const std::int64_t wait = request->timeout_ms > 0 ? request->timeout_ms : message_deadline_ms_;
  sends_.add(request->message.id(), std::string(message.id), now_ + wait);
  send_message(request->message);
}

void Bridge::on_emit(const RpcMessage& message) {
  const auto event = emit_event(*message.content, spec_.agent_id());
  if (!event) return refuse(message, RpcCode::kInvalidParams, event.error());
  if (event->payload().size() > max_payload_) return refuse(message, RpcCode::kAgentError, too_large());
  publish(*event, message.id, "{}");
}

void Bridge::publish(const klp::Message& event, std::string_view rpc_id, std::string_view result_json) {
  while (events_.take_expired(now_)) continue;
  if (events_.size() < kMaxWatchedEvents) events_.add(event.id(), event.to(), now_ + kEventErrorMs);
  send_message(event);
  answer_runner(rpc_result(rpc_id, result_json));
}

void Bridge::refuse(const RpcMessage& message, RpcCode code, const KlpError& error) {
  answer_runner(rpc_error(message.id, code, error));
}

void Bridge::answer_runner(const std::string& line) {
  if (channel_.send(line, kMaxQueuedRunnerBytes) || !channel_.open() || channel_.ended()) return;
  violation("the runner sends requests on descriptor 3 and does not read the answers");
}

}  // namespace kai
