// How many bytes of one direction of an agent may move now: a token bucket, which all its connections share (turns.h
// shares it fairly).
#pragma once

#include <cstdint>

#include "supervisor/egress/reactor.h"

namespace kai::egress {

/// Bytes of one direction of one agent.
class TokenBucket {
 public:
  explicit TokenBucket(std::uint64_t bytes_per_second);
  void use(std::uint64_t bytes_per_second);
  /// At most `most`; 0: none now, see next().
  std::uint64_t available(Clock::time_point now, std::uint64_t most);
  void take(std::uint64_t bytes) { tokens_ -= static_cast<double>(bytes); }
  /// When it is worth to ask again.
  [[nodiscard]] Clock::time_point next(Clock::time_point now) const;

 private:
  double rate_ = 0, burst_ = 0, quantum_ = 0, tokens_ = 0;  // quantum: less is not given out
  Clock::time_point filled_{};
};

}  // namespace kai::egress
