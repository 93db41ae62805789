#include "supervisor/egress/shaper.h"

#include <algorithm>

namespace kai::egress {
namespace {

// What a loop that is late may catch up on. Shorter, and a loaded machine moves less than the limit.
constexpr double kBurstSeconds = 0.1;
constexpr double kLeastBurst = 16 << 10;
// Less than this is not worth the system calls.
constexpr double kQuantumSeconds = 0.005;
constexpr double kLeastQuantum = 1460;

}  // namespace

TokenBucket::TokenBucket(std::uint64_t bytes_per_second) {
  use(bytes_per_second);
}

void TokenBucket::use(std::uint64_t bytes_per_second) {
  rate_ = static_cast<double>(bytes_per_second);
  burst_ = rate_ > 0 ? std::max(kLeastBurst, rate_ * kBurstSeconds) : 0;
  quantum_ = std::max(kLeastQuantum, rate_ * kQuantumSeconds);
  tokens_ = filled_ == Clock::time_point{} ? burst_ : std::min(tokens_, burst_);
}

std::uint64_t TokenBucket::available(Clock::time_point now, std::uint64_t most) {
  if (filled_ != Clock::time_point{}) {
    const std::chrono::duration<double> since = now - filled_;
    tokens_ = std::min(burst_, tokens_ + since.count() * rate_);
  }
  filled_ = now;
  if (tokens_ < quantum_) return 0;
  return std::min(most, static_cast<std::uint64_t>(tokens_));
}

Clock::time_point TokenBucket::next(Clock::time_point now) const {
  if (rate_ <= 0) return now + std::chrono::hours(1);
  const std::chrono::duration<double> wait((quantum_ - tokens_) / rate_);
  // Not much sooner than the clock of epoll_wait(2) can tell.
  return now +
         std::max(std::chrono::duration_cast<Clock::duration>(wait), Clock::duration(std::chrono::milliseconds(1)));
}

}  // namespace kai::egress
