#include "agent-host/bridge.h"

#include <signal.h>

#include <algorithm>

#include "agent-host/json_text.h"
#include "base/text.h"

namespace kai {

Bridge::Bridge(const spec::SandboxSpec& spec, const SigningKey& key, KlpLink& control, RpcChannel& channel,
               pid_t runner)
    : spec_(spec),
      key_(key),
      control_(control),
      channel_(channel),
      runner_(runner),
      now_(monotonic_ms()),
      started_at_(now_),
      last_activity_unix_ms_(unix_ms()) {
  serving_.set_version(spec.agent_version());
  *serving_.mutable_capabilities() = spec.capabilities();
  control_.send(greeting());
}

void Bridge::fill_hello(klp::Hello& hello) const {
  hello.set_agent_id(spec_.agent_id());
  hello.set_version(serving_.version());
  *hello.mutable_capabilities() = serving_.capabilities();
  hello.set_public_key(key_.public_key());
  hello.set_runner_protocol(channel_.open());
}

klp::Envelope Bridge::greeting() const {
  klp::Envelope envelope;
  if (!answered_) {
    fill_hello(*envelope.mutable_hello());
    return envelope;
  }
  klp::Resume& resume = *envelope.mutable_resume();
  fill_hello(*resume.mutable_hello());
  resume.set_runner_spoke(spoken_);
  resume.set_soft_swaps(soft_swaps_);
  resume.set_held(phase_ == Phase::kHeld);
  resume.set_phase(phase_ == Phase::kServing    ? klp::Resume::SERVING
                   : phase_ == Phase::kStopping ? klp::Resume::STOPPING
                                                : klp::Resume::STARTING);
  return envelope;
}

void Bridge::on_control_lost() {
  if (!kill_now_) forget_control();
}

void Bridge::forget_control() {
  connected_ = false;
  messages_.clear();  // whom their answers were for does not hear them any more
  events_.clear();
  health_call_.reset();
  forget_hook_call();
  while (const auto rpc_id = sends_.take_any()) answer_runner(rpc_error(*rpc_id, RpcCode::kAgentError, no_control()));
  while (const auto open = memory_calls_.take_any()) {
    answer_runner(rpc_error(open->rpc_id, RpcCode::kAgentError, no_control()));
  }
}

void Bridge::on_reconnect(Fd klp) {
  if (kill_now_) return;
  forget_control();
  control_.replace(std::move(klp), greeting());
  if (!start_failure_) return;
  // The greeting says that it ends, this says why.
  klp::Envelope envelope;
  *envelope.mutable_start_failed() = *start_failure_;
  control_.send(envelope);
}

void Bridge::reconnected() {
  connected_ = true;
  const std::uint64_t lost = control_.release();
  if (lost > 0) log("warn", std::to_string(lost) + " log records or events were lost while kaid restarted", "");
}

std::uint64_t Bridge::call(std::string_view method, std::string_view params_json, std::size_t queue_limit) {
  const std::string line = rpc_request(last_call_ + 1, method, params_json);
  if (line.size() > kMaxLineBytes + 1 || !channel_.send(line, queue_limit)) return 0;
  return ++last_call_;
}

void Bridge::call_hook(Phase phase, std::string_view method, std::string_view params_json) {
  phase_ = phase;
  hook_call_ = call(method, params_json, kMaxQueuedRunnerBytes);
  if (hook_call_ == 0) start_failed(method, "the manifest is too large to be told to the runner", "");
}

void Bridge::started() {
  phase_ = Phase::kServing;
  klp::Envelope envelope;
  envelope.mutable_started();
  control_.send(envelope);
}

void Bridge::start_failed(std::string_view step, const std::string& message, const std::string& details_json) {
  klp::Envelope envelope;
  klp::StartFailed& failed = *envelope.mutable_start_failed();
  failed.set_step(std::string(step));
  failed.set_message(message);
  failed.set_details_json(details_json);
  control_.send(envelope);
  start_failure_ = failed;
  status_ = 1;
  stop(kDefaultGraceMs);
}

void Bridge::stop(std::int64_t grace_ms) {
  const std::int64_t kill_at = now_ + grace_ms;
  if (phase_ == Phase::kStopping) {
    kill_at_ = std::min(kill_at_, kill_at);
    return;
  }
  const bool started = phase_ == Phase::kServing || (phase_ == Phase::kHeld && ready_);
  const bool ask = started && channel_.open();
  drop_next();
  phase_ = Phase::kStopping;
  kill_at_ = kill_at;
  terminate_at_ = now_;
  hook_call_ = ask ? call("shutdown", "{}", kMaxQueuedRunnerBytes) : 0;
  // A hook that does not end leaves SIGTERM the last fifth of the grace.
  if (hook_call_ != 0) terminate_at_ = now_ + grace_ms / 5 * 4;
}

void Bridge::violation(const std::string& message) {
  if (kill_now_) return;
  if (phase_ == Phase::kServing || phase_ == Phase::kStopping) {
    log("error", message + "; it is killed", "");
  } else {
    start_failed("runner-protocol", message, "");
  }
  kill_now_ = true;
}

void Bridge::log(std::string_view level, std::string_view message, std::string_view fields_json) {
  klp::Envelope envelope;
  klp::AgentLog& record = *envelope.mutable_log();
  record.set_level(std::string(level));
  record.set_message(std::string(clip_utf8(message, kMaxLogMessageBytes)));
  record.set_fields_json(std::string(fields_json));
  control_.send(envelope);
}

void Bridge::signal_runner(int number) const {
  // The runner leads its group and is reaped by nobody else: the number is not anybody's else before on_runner_end().
  kill(-runner_, number);
}

void Bridge::on_control_broken() {
  status_ = 1;
  kill_now_ = true;
}

void Bridge::on_keeper_gone(bool outlived) {
  if (outlived) {
    keeper_deadline_ = now_ + kKeeperPatienceMs;
  } else {
    on_control_broken();
  }
}

void Bridge::on_overlong_line() {
  violation("the runner sent a line of more than " + std::to_string(kMaxLineBytes) + " bytes on descriptor 3");
}

void Bridge::on_channel_closed() {
  if (phase_ != Phase::kStopping) channel_deadline_ = now_ + kClosedChannelExitMs;
}

void Bridge::on_terminate() {
  stop(kDefaultGraceMs);
}

void Bridge::on_time(std::int64_t now) {
  now_ = now;
  expire_calls();
  if (terminate_at_ <= now_) {
    terminate_at_ = kNever;
    signal_runner(SIGTERM);
  }
  if (kill_at_ <= now_) kill_now_ = true;
  if (keeper_deadline_ <= now_) on_control_broken();
  if (channel_deadline_ <= now_) {
    channel_deadline_ = kNever;
    if (phase_ != Phase::kStopping) violation("the runner closed descriptor 3 and went on running");
  }
}

void Bridge::expire_calls() {
  while (const auto to = messages_.take_expired(now_)) {
    const KlpError error{"TIMEOUT", "the agent did not answer within the deadline", {}, true};
    send_message(error_message(error, *to, spec_.agent_id()));
  }
  while (const auto rpc_id = sends_.take_expired(now_)) {
    const KlpError error{"TIMEOUT", "no answer within the deadline", {}, true};
    answer_runner(rpc_error(*rpc_id, RpcCode::kAgentError, error));
  }
  expire_memory();
  // No report: control counts the miss.
  if (health_call_ && health_call_->deadline <= now_) health_call_.reset();
}

std::int64_t Bridge::next_deadline() const {
  return std::min({messages_.next_deadline(), sends_.next_deadline(), memory_calls_.next_deadline(),
                   health_call_ ? health_call_->deadline : kNever, terminate_at_, kill_at_, channel_deadline_,
                   keeper_deadline_});
}

int Bridge::on_runner_end(const ProcessEnd& end) {
  if (refused_) return *status_;  // nothing is legal after a refusal
  klp::Envelope envelope;
  envelope.mutable_exit()->set_signaled(end.signaled);
  envelope.mutable_exit()->set_code(end.code);
  control_.send(envelope);
  return status_.value_or(end.status());
}

void Bridge::send_message(const klp::Message& message) {
  klp::Envelope envelope;
  message.SerializeToString(envelope.mutable_message());
  if (key_.makes_signatures()) envelope.set_signature(key_.sign(envelope.message()));
  control_.send(envelope);
}

void Bridge::report_health(std::uint64_t sequence, klp::HealthReport report) {
  klp::Envelope envelope;
  report.set_sequence(sequence);
  *envelope.mutable_health_report() = std::move(report);
  control_.send(envelope);
}

HealthBasis Bridge::health_basis() const {
  return {monotonic_ms() - started_at_, last_activity_unix_ms_};
}

}  // namespace kai
