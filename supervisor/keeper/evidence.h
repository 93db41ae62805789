// What a process tree is and does at this moment, as text for whoever has to find out why: control groups, then each
// process with its threads, kernel stacks and memory map. Everything in it that an agent chose (names, paths) is
// escaped, everything is bounded.
//
// Written by a child of the keeper: reading /proc/PID/maps waits for the lock of that process's memory, which a hostile
// one can keep (a page of a file system that does not answer), and the keeper waits for nobody.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace kai::keeper {

inline constexpr std::size_t kMaxEvidenceBytes = 1 << 20;
inline constexpr std::size_t kMaxEvidenceProcesses = 64;

/// One that is being written.
class EvidenceLook {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr auto kPatience = std::chrono::seconds(2);

  /// `places`: directories of the tree's control groups; none: it has none.
  static Result<EvidenceLook> begin(const std::vector<pid_t>& processes, const std::vector<std::string>& places);

  /// Never blocks. True: it is written, or its time is over.
  bool finished(Clock::time_point now);
  [[nodiscard]] const Fd& pidfd() const { return child_; }

  struct Text {
    Fd memfd;  ///< sealed
    std::uint32_t processes = 0;
    bool truncated = false;
    Fd child;  ///< still to be reaped, killed; empty: gone
  };
  /// Once, when finished.
  Result<Text> take();

 private:
  EvidenceLook(Fd memfd, Fd child) : memfd_(std::move(memfd)), child_(std::move(child)) {}

  Fd memfd_, child_;
  Clock::time_point deadline_ = Clock::now() + kPatience;
  bool whole_ = false;
};

}  // namespace kai::keeper
