// When a crashed agent is started again (policy backoff, maxCrashes, crashWindow). Pure; times are monotonic ms.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>

#include "policies/policy.h"

namespace kai {

class RestartPolicy {
 public:
  explicit RestartPolicy(const Policy& policy) : policy_(policy) {}

  /// Another policy from now on; what was counted stays.
  void use(const Policy& policy);

  /// Counts a crash of an instance that ran for `ran` (0: it never came up).
  void crashed(std::int64_t now_ms, std::chrono::milliseconds ran);
  /// More than maxCrashes lie in the window.
  [[nodiscard]] bool exhausted(std::int64_t now_ms) const { return crashes(now_ms) > policy_.max_crashes; }
  [[nodiscard]] std::uint32_t crashes(std::int64_t now_ms) const;

  /// Before the next start: initial, base, 2·base, 4·base, … up to max, times 1 ± jitter. `random` is in [0, 1).
  [[nodiscard]] std::chrono::milliseconds delay(double random) const;
  /// The operator started it: a new beginning.
  void reset();

 private:
  Policy policy_;
  std::deque<std::int64_t> times_;  // of the crashes in the window, oldest first; at most max_crashes + 1
  std::uint32_t consecutive_ = 0;   // since a run of resetAfter
};

}  // namespace kai
