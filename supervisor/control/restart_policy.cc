#include "supervisor/control/restart_policy.h"

#include <algorithm>

namespace kai {

void RestartPolicy::use(const Policy& policy) {
  policy_ = policy;
  while (times_.size() > policy_.max_crashes + 1) times_.pop_front();
}

void RestartPolicy::crashed(std::int64_t now_ms, std::chrono::milliseconds ran) {
  if (ran >= policy_.backoff.reset_after) consecutive_ = 0;
  ++consecutive_;
  times_.push_back(now_ms);
  if (times_.size() > policy_.max_crashes + 1) times_.pop_front();
}

std::uint32_t RestartPolicy::crashes(std::int64_t now_ms) const {
  return static_cast<std::uint32_t>(std::count_if(
      times_.begin(), times_.end(), [&](std::int64_t at) { return now_ms - at < policy_.crash_window.count(); }));
}

std::chrono::milliseconds RestartPolicy::delay(double random) const {
  if (consecutive_ <= 1) return policy_.backoff.initial;
  const auto max = static_cast<double>(policy_.backoff.max.count());
  double delay = static_cast<double>(policy_.backoff.base.count());
  for (std::uint32_t step = 2; step < consecutive_ && delay < max; ++step) delay *= 2;
  delay = std::min(delay, max) * (1 + policy_.backoff.jitter * (2 * random - 1));
  return std::chrono::milliseconds(static_cast<std::int64_t>(delay));
}

void RestartPolicy::reset() {
  consecutive_ = 0;
  times_.clear();
}

}  // namespace kai
