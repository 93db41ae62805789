// How many messages of one agent are read in a short time: an agent that floods its own DNS server fills the queues of
// its own kernel, and not egress's time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>

#include "supervisor/egress/reactor.h"

namespace kai::egress {

class DnsIntake {
 public:
  static constexpr std::chrono::milliseconds kWindow{100};
  static constexpr std::uint32_t kMostInWindow = 256;  ///< messages, on average
  /// At once after some quiet: so many come with a few hundred connections that begin together, each with a question
  /// for either family.
  static constexpr std::uint32_t kMostAtOnce = 1024;
  static constexpr std::uint32_t kMostInTurn = 64;  ///< then others have theirs

  /// `resume` is called when reading may go on after take() said no.
  DnsIntake(Reactor& reactor, std::function<void()> resume) : reactor_(reactor), resume_(reactor, std::move(resume)) {}

  /// One system call's worth. False: not now.
  bool take() {
    if (resume_.armed()) return false;
    const auto now = reactor_.now();
    if (const auto windows = (now - begin_) / kWindow; windows > 0) {
      begin_ = now;
      taken_ -= static_cast<std::uint32_t>(std::min<std::int64_t>(taken_, windows * kMostInWindow));
    }
    if (taken_ >= kMostAtOnce) {
      pause();
      return false;
    }
    if (++taken_ % kMostInTurn == 0) resume_.arm_in(std::chrono::milliseconds(0));
    return true;
  }
  void pause() { resume_.arm_in(kWindow); }

 private:
  Reactor& reactor_;
  Reactor::Timer resume_;
  std::uint32_t taken_ = 0;
  Clock::time_point begin_{};
};

}  // namespace kai::egress
