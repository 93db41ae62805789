// What a seccomp profile costs a system call.
#pragma once

#include <string>

#include "base/result.h"

namespace kai::bench {

/// Microseconds of one call.
struct CallCost {
  double getpid = 0;  ///< allowed whatever its arguments: the kernel answers from a bitmap (Linux 5.11)
  double prctl = 0;   ///< allowed by an argument: the program runs
};

/// In a process of its own. `profile` empty: without a filter.
Result<CallCost> cost_of_calls(const std::string& profile);

}  // namespace kai::bench
