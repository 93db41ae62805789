// What a process tree uses, read from /proc: for agents without a cgroup (an ordinary user's, not delegated).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace kai::keeper {

struct TreeUsage {
  /// Resident, without what is shared with files; at most: what forked processes still share counts for each of them.
  std::uint64_t memory_bytes = 0;
  std::uint64_t cpu_us = 0;  ///< of the processes that live
  std::uint32_t pids = 0;
};

/// `root` and all its descendants: as it is the first process of a pid namespace, orphans stay below it.
TreeUsage tree_usage(pid_t root);

/// Them, parents first.
std::vector<pid_t> process_tree(pid_t root);

/// The memory alone, with what is shared counted once: exact, and a hundred times the work.
std::uint64_t exact_tree_memory(pid_t root);

}  // namespace kai::keeper
