// What waits for an agent while it changes its version or is saved: requests and events, in the order in which they
// came.
#include <algorithm>
#include <utility>

#include "supervisor/control/agent.h"

namespace kai {

/// From here on nothing new is sent to it.
void Agent::hold() {
  if (std::exchange(holding_, true)) return;
  if (!instance_ || instance_->channel() == nullptr) return;
  for (QueuedRequest& waiting : instance_->channel()->take_waiting()) held_.push(std::move(waiting));
}

void Agent::hold_request(klp::Message message, std::chrono::milliseconds deadline, KlpChannel::Answer answer) {
  QueuedRequest request;
  const std::int64_t now = environment_.loop.now_ms();
  request.deadline = now + deadline.count();
  const std::uint32_t ttl = message.metadata().ttl_seconds();
  if (ttl != 0) request.expires = now + std::int64_t{ttl} * 1000;
  request.message = std::move(message);
  request.answer = std::move(answer);
  held_.push(std::move(request));
}

/// `done` when it owes no answer any more; a request that takes longer than any may is a failure.
void Agent::drain(std::function<void(Outcome<>)> done) {
  hold();
  draining_ = std::move(done);
  if (!instance_ || instance_->channel() == nullptr) {
    return std::exchange(draining_, nullptr)(refuse("NOT_RUNNING", "agent '" + row_.id + "' is not running"));
  }
  drain_timer_.start(policy().deadlines.message, [this] {
    const std::size_t left = instance_ && instance_->channel() ? instance_->channel()->in_flight() : 0;
    std::exchange(draining_,
                  nullptr)(refuse("TIMEOUT",
                                  std::to_string(left) + " requests that it had were still not answered after " +
                                      std::to_string(policy().deadlines.message.count()) + " ms (deadlines.message, " +
                                      policy().rule("deadlines.message") + ")",
                                  "Try again when it has less to do"));
  });
  instance_->channel()->when_drained([this] {
    drain_timer_.stop();
    if (draining_) std::exchange(draining_, nullptr)({});
  });
}

void Agent::release() {
  drain_timer_.stop();
  draining_ = nullptr;
  holding_ = false;
  feed();
}

/// As much as it may have at a time; the rest goes behind the answers to that.
void Agent::feed() {
  if (feeding_ || holding_ || state_ != State::kRunning || !instance_ || instance_->channel() == nullptr) return;
  feeding_ = true;
  for (const klp::Message& event : held_.take_events()) {
    static_cast<void>(instance_->channel()->deliver(event));  // as any that it reads too slowly
  }
  while (instance_ && instance_->channel()->has_place()) {
    auto request = held_.pop();
    if (!request) break;
    deliver_held(std::move(*request));
  }
  feeding_ = false;
}

void Agent::deliver_held(QueuedRequest request) {
  const auto& known = manifest_.capabilities;
  if (std::find(known.begin(), known.end(), request.message.capability()) == known.end()) {
    return request.answer(refuse("UNKNOWN_CAPABILITY", "version " + row_.active.version + " of agent '" + row_.id +
                                                           "' has no capability '" + request.message.capability() +
                                                           "' any more"));
  }
  const std::chrono::milliseconds left(std::max<std::int64_t>(request.ends() - environment_.loop.now_ms(), 1));
  instance_->channel()->request(
      std::move(request.message), left,
      [this, alive = std::weak_ptr(alive_), answer = std::move(request.answer)](Outcome<klp::Message> outcome) {
        answer(std::move(outcome));
        if (!alive.expired()) feed();
      });
}

/// It does not serve, and will not at once.
void Agent::fail_held() {
  drain_timer_.stop();
  holding_ = false;
  if (const auto waits = std::exchange(draining_, nullptr)) {
    waits(refuse("NOT_RUNNING", "agent '" + row_.id + "' is " + std::string(to_string(state_))));
  }
  if (held_.empty()) return;
  const bool again = state_ == State::kStarting || state_ == State::kBackoff;
  const std::string code = state_ == State::kQuarantined ? "QUARANTINED" : again ? "AGENT_CRASHED" : "NOT_RUNNING";
  held_.fail_all({code, "agent '" + row_.id + "' is " + std::string(to_string(state_)), {}, {}, again});
}

void Agent::save_state(std::function<void(Outcome<std::string>)> done) {
  if (state_ != State::kRunning || manifest_.runtime.protocol != Protocol::kRunner) return done(std::string());
  if (holding_) {
    return done(refuse("CONFLICT", "agent '" + row_.id + "' is being upgraded or saved already",
                       "Try again when that is done: see 'kaictl status " + row_.id + "'"));
  }
  drain([this, done = std::move(done)](const Outcome<>& drained) {
    if (!drained) return done(tl::unexpected(drained.error()));
    instance_->call_hook(hook_call(klp::HookCall::SAVE_STATE), policy().deadlines.message / 2,
                         [this, done](const Outcome<klp::HookDone>& outcome) {
                           if (outcome) return done(outcome->state());
                           // One that does not return would keep every other hook waiting.
                           const bool again = outcome.error().code == "TIMEOUT" && instance_;
                           if (again)
                             instance_->call_hook(hook_call(klp::HookCall::DISCARD), kDiscardDeadline, [](auto&&) {});
                           done(tl::unexpected(outcome.error()));
                         });
  });
}

void Agent::release_messages() {
  if (!upgrade_ && holding_ && state_ == State::kRunning) release();
}

}  // namespace kai
