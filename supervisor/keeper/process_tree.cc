#include "supervisor/keeper/process_tree.h"

#include <unistd.h>

#include <sstream>
#include <string>
#include <vector>

#include "base/unix.h"

namespace kai::keeper {
namespace {

constexpr std::size_t kMaxProcesses = 1 << 16;  // a tree that grows while it is read shall not hold the keeper

void add(pid_t pid, TreeUsage& usage) {
  static const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  static const auto tick_us = 1'000'000 / static_cast<std::uint64_t>(sysconf(_SC_CLK_TCK));
  const std::string process = "/proc/" + std::to_string(pid);
  if (const auto statm = read_file(process + "/statm")) {  // proc_pid_statm(5): size resident shared …
    std::istringstream fields(*statm);
    std::uint64_t size = 0, resident = 0, shared = 0;
    fields >> size >> resident >> shared;
    usage.memory_bytes += (resident - shared) * page;
  }
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

}  // namespace

TreeUsage tree_usage(pid_t root) {
  TreeUsage usage;
  std::vector<pid_t> open = {root};
  while (!open.empty() && usage.pids < kMaxProcesses) {
    const pid_t pid = open.back();
    open.pop_back();
    add(pid, usage);
    const std::string id = std::to_string(pid);
    const auto children = read_file("/proc/" + id + "/task/" + id + "/children");
    if (!children) continue;
    std::istringstream list(*children);
    for (pid_t child = 0; list >> child;) open.push_back(child);
  }
  return usage;
}

}  // namespace kai::keeper
