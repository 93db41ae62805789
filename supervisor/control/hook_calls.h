// The hook calls of one channel (proto/klp.proto, HookCall): one at a time, each with its deadline, and DISCARD, which
// may overtake the one that is under way. Each is answered exactly once.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string_view>

#include "proto/klp.pb.h"
#include "supervisor/control/failure.h"
#include "supervisor/loop/event_loop.h"

namespace kai {

/// As the log and the records name it: load, saveState, init, restoreState, upgrade, start, health, commit, discard.
std::string_view to_string(klp::HookCall::Hook hook);

class HookCalls {
 public:
  using Done = std::function<void(Outcome<klp::HookDone>)>;
  using Send = std::function<void(const klp::Envelope&)>;

  HookCalls(EventLoop& loop, Send send) : send_(std::move(send)), timer_(loop) {}

  /// `done`, later: what the hook gave; the agent's own error; TIMEOUT after `deadline`. What is under way when a
  /// DISCARD is sent is answered as cancelled.
  void call(klp::HookCall call, std::chrono::milliseconds deadline, Done done);
  /// false: an answer to what was never asked. One that comes too late is dropped.
  [[nodiscard]] bool answer(klp::HookDone&& done, const std::string& agent);
  /// What is under way fails like this.
  void fail(const Failure& failure);
  /// What is under way under this id.
  [[nodiscard]] klp::HookCall::Hook under_way(std::uint64_t id) const {
    return done_ && id == last_ ? hook_ : klp::HookCall::UNSPECIFIED;
  }

 private:
  Send send_;
  Timer timer_;
  std::uint64_t last_ = 0;
  klp::HookCall::Hook hook_ = klp::HookCall::UNSPECIFIED;
  Done done_;
};

}  // namespace kai
