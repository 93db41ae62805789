#include "supervisor/keeper/process_tree.h"

#include <unistd.h>

#include <filesystem>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/unix.h"

namespace kai::keeper {
namespace {

constexpr std::size_t kMaxProcesses = 1 << 16;  // a tree that grows while it is read shall not hold the keeper

/// The sum of two fields, `Name:  N kB` each, of a file in /proc/PID; nullopt: it cannot be read (any more).
std::optional<std::uint64_t> sum_of(pid_t pid, const char* file, std::string_view one, std::string_view other) {
  const auto text = read_file("/proc/" + std::to_string(pid) + "/" + file);
  if (!text) return std::nullopt;
  std::istringstream lines(*text);
  std::string line;
  std::uint64_t kib = 0;
  while (std::getline(lines, line)) {
    std::istringstream fields(line);
    std::string name;
    std::uint64_t value = 0;
    if (fields >> name >> value && (name == one || name == other)) kib += value;
  }
  return kib << 10;
}

/// Resident, without what is shared with files; shared memory counts for each process that has it.
std::uint64_t resident_memory(pid_t pid) {
  return sum_of(pid, "status", "RssAnon:", "RssShmem:").value_or(0);  // proc_pid_status(5)
}

void add(pid_t pid, TreeUsage& usage) {
  static const auto tick_us = 1'000'000 / static_cast<std::uint64_t>(sysconf(_SC_CLK_TCK));
  const std::string process = "/proc/" + std::to_string(pid);
  usage.memory_bytes += resident_memory(pid);
  if (const auto stat = read_file(process + "/stat")) {  // proc_pid_stat(5): utime and stime are fields 14 and 15
    std::istringstream fields(stat->substr(stat->rfind(')') + 1));
    std::string skipped;
    for (int field = 3; field < 14; ++field) fields >> skipped;
    std::uint64_t user = 0, system = 0;
    fields >> user >> system;
    usage.cpu_us += (user + system) * tick_us;
  }
  ++usage.pids;
}

/// What this process holds of memory that is in no file, each page divided by the processes that share it.
std::uint64_t proportional_memory(pid_t pid) {
  const auto exact = sum_of(pid, "smaps_rollup", "Pss_Anon:", "Pss_Shmem:");
  // A process can forbid that (PR_SET_DUMPABLE): then what it shares is counted as its own.
  return exact ? *exact : resident_memory(pid);
}

}  // namespace

/// Each thread has children of its own.
std::vector<pid_t> process_tree(pid_t root) {
  std::vector<pid_t> tree = {root};
  for (std::size_t at = 0; at < tree.size() && tree.size() < kMaxProcesses; ++at) {
    const std::string tasks = "/proc/" + std::to_string(tree[at]) + "/task";
    std::error_code ended;  // the process, while it is looked at
    for (std::filesystem::directory_iterator task(tasks, ended), end; !ended && task != end; task.increment(ended)) {
      const auto children = read_file(task->path().string() + "/children");
      if (!children) continue;
      std::istringstream list(*children);
      for (pid_t child = 0; list >> child;) tree.push_back(child);
    }
  }
  return tree;
}

TreeUsage tree_usage(pid_t root) {
  TreeUsage usage;
  for (const pid_t pid : process_tree(root)) add(pid, usage);
  return usage;
}

std::uint64_t exact_tree_memory(pid_t root) {
  std::uint64_t bytes = 0;
  for (const pid_t pid : process_tree(root)) bytes += proportional_memory(pid);
  return bytes;
}

}  // namespace kai::keeper
