#include "supervisor/control/hook_sequence.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace kai {
namespace {

/// What a critical health says of itself.
std::string critical(const klp::HealthReport& health) {
  std::string why = "its health check says critical";
  if (health.errors_size() > 0 && !health.errors(0).message().empty()) why += ": " + health.errors(0).message();
  return why;
}

/// As it is named in the agent's code.
std::string hook_name(klp::HookCall::Hook hook) {
  switch (hook) {
    case klp::HookCall::INIT:
      return "onInit";
    case klp::HookCall::UPGRADE:
      return "onUpgrade";
    case klp::HookCall::START:
      return "onStart";
    case klp::HookCall::HEALTH:
      return "its health check";
    default:
      return std::string(to_string(hook));
  }
}

}  // namespace

klp::HookCall hook_call(klp::HookCall::Hook hook) {
  klp::HookCall call;
  call.set_hook(hook);
  return call;
}

klp::HookCall restore_call(std::string state_json) {
  klp::HookCall call = hook_call(klp::HookCall::RESTORE_STATE);
  call.set_state(std::move(state_json));
  return call;
}

klp::HookCall upgrade_call(std::string old_version) {
  klp::HookCall call = hook_call(klp::HookCall::UPGRADE);
  call.set_old_version(std::move(old_version));
  return call;
}

HookSequence::HookSequence(EventLoop& loop, Instance& instance, std::vector<klp::HookCall> calls, std::int64_t deadline,
                           std::vector<UpgradeStep>& steps, Done done)
    : loop_(loop),
      instance_(instance),
      calls_(std::move(calls)),
      deadline_(deadline),
      steps_(steps),
      done_(std::move(done)) {}

void HookSequence::next() {
  if (at_ == calls_.size()) {
    const Done done = std::move(done_);
    return done({});
  }
  klp::HookCall call = std::move(calls_[at_++]);
  const klp::HookCall::Hook hook = call.hook();
  const std::chrono::milliseconds left(std::max<std::int64_t>(deadline_ - loop_.now_ms(), 1));
  instance_.call_hook(std::move(call), left,
                      [this, alive = alive_, hook, began = now_ms_exact()](const Outcome<klp::HookDone>& outcome) {
                        if (*alive) returned(hook, began, outcome);
                      });
}

void HookSequence::returned(klp::HookCall::Hook hook, double began, const Outcome<klp::HookDone>& outcome) {
  steps_.push_back({std::string(to_string(hook)), now_ms_exact() - began});
  Outcome<> result;
  if (!outcome) {
    Failure failure = outcome.error();
    failure.message = hook_name(hook) + " failed: " + failure.message;
    result = tl::unexpected(std::move(failure));
  } else if (hook == klp::HookCall::HEALTH && outcome->health().status() == klp::HealthReport::CRITICAL) {
    result = refuse("AGENT_ERROR", critical(outcome->health()));
  }
  if (result) return next();
  const Done done = std::move(done_);
  done(std::move(result));
}

double now_ms_exact() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace kai
