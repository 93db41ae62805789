// Bytes a second over the last seconds, without a timer: what was counted in the window before fades as this one grows.
#pragma once

#include <chrono>
#include <cstdint>

#include "supervisor/egress/reactor.h"

namespace kai::egress {

class RateMeter {
 public:
  static constexpr auto kWindow = std::chrono::seconds(2);

  void count(std::uint64_t bytes, Clock::time_point now) {
    roll(now);
    current_ += bytes;
  }
  [[nodiscard]] std::uint64_t per_second(Clock::time_point now) const {
    RateMeter rolled = *this;
    rolled.roll(now);
    const std::chrono::duration<double> into = now - rolled.began_, window = kWindow;
    const double faded = static_cast<double>(rolled.before_) * (1 - into / window);
    return static_cast<std::uint64_t>((faded + static_cast<double>(rolled.current_)) / window.count());
  }

 private:
  void roll(Clock::time_point now) {
    if (now - began_ < kWindow) return;
    before_ = now - began_ < 2 * kWindow ? current_ : 0;
    current_ = 0;
    began_ = before_ == 0 ? now : began_ + kWindow;
  }

  Clock::time_point began_{};
  std::uint64_t before_ = 0, current_ = 0;
};

}  // namespace kai::egress
