// What a process tree uses, read from /proc: for agents without a cgroup (an ordinary user's, not delegated).
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace kai::keeper {

struct TreeUsage {
  std::uint64_t memory_bytes = 0;  ///< resident, without what is shared with files
  std::uint64_t cpu_us = 0;        ///< of the processes that live
  std::uint32_t pids = 0;
};

/// `root` and all its descendants: as it is the first process of a pid namespace, orphans stay below it.
TreeUsage tree_usage(pid_t root);

}  // namespace kai::keeper
