// Hooks of one instance, called one after the other until one fails: the middle of an upgrade, and a start that goes on
// from a saved state.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "supervisor/control/instance.h"
#include "supervisor/control/upgrade_record.h"

namespace kai {

klp::HookCall hook_call(klp::HookCall::Hook hook);
klp::HookCall restore_call(std::string state_json);
klp::HookCall upgrade_call(std::string old_version);

class HookSequence {
 public:
  /// Whether all returned; an error names the hook that did not.
  using Done = std::function<void(Outcome<>)>;

  /// `instance` and `steps` outlive it; each hook adds its time to `steps`. All of them together have until `deadline`,
  /// loop time. A health check that says critical is a failure. `done` may destroy it.
  HookSequence(EventLoop& loop, Instance& instance, std::vector<klp::HookCall> calls, std::int64_t deadline,
               std::vector<UpgradeStep>& steps, Done done);
  ~HookSequence() { *alive_ = false; }
  HookSequence(const HookSequence&) = delete;
  HookSequence& operator=(const HookSequence&) = delete;

  void run() { next(); }

 private:
  void next();
  void returned(klp::HookCall::Hook hook, double began, const Outcome<klp::HookDone>& outcome);

  EventLoop& loop_;
  Instance& instance_;
  std::vector<klp::HookCall> calls_;
  std::size_t at_ = 0;
  std::int64_t deadline_;
  std::vector<UpgradeStep>& steps_;
  Done done_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

/// Monotonic, for the times of steps.
double now_ms_exact();

}  // namespace kai
