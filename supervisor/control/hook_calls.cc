#include "supervisor/control/hook_calls.h"

#include <array>
#include <string>
#include <utility>

namespace kai {

std::string_view to_string(klp::HookCall::Hook hook) {
  static constexpr std::array<std::string_view, 10> kNames = {"",        "load",  "saveState", "init",   "restoreState",
                                                              "upgrade", "start", "health",    "commit", "discard"};
  const auto at = static_cast<std::size_t>(hook);
  return at < kNames.size() ? kNames[at] : "";
}

void HookCalls::call(klp::HookCall call, std::chrono::milliseconds deadline, Done done) {
  fail(refuse("CONFLICT", "it was taken back").value());
  hook_ = call.hook();
  done_ = std::move(done);
  call.set_id(++last_);
  timer_.start(deadline, [this, deadline] {
    fail(refuse("TIMEOUT",
                std::string(to_string(hook_)) + " did not return within " + std::to_string(deadline.count()) + " ms")
             .value());
  });
  klp::Envelope envelope;
  *envelope.mutable_hook_call() = std::move(call);
  send_(envelope);
}

bool HookCalls::answer(klp::HookDone&& answered, const std::string& agent) {
  if (answered.id() == 0 || answered.id() > last_) return false;
  if (answered.id() != last_ || !done_) return true;
  timer_.stop();
  const Done done = std::exchange(done_, nullptr);
  if (!answered.has_error()) {
    done(std::move(answered));
    return true;
  }
  const klp::ErrorBody& error = answered.error();
  done(tl::unexpected(Failure{error.code().empty() ? "AGENT_ERROR" : error.code(),
                              error.message(),
                              {},
                              error.details_json(),
                              error.retryable(),
                              agent}));
  return true;
}

void HookCalls::fail(const Failure& failure) {
  if (!done_) return;
  timer_.stop();
  const Done done = std::exchange(done_, nullptr);
  done(tl::unexpected(failure));
}

}  // namespace kai
