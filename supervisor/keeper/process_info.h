// Processes of an agent as /proc shows them on the host. Whatever a process says of itself is escaped for terminals.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

namespace kai::keeper {

struct ProcessName {
  std::string comm;     ///< as the process calls itself
  pid_t inner_pid = 0;  ///< as the agent sees it
};

/// nullopt: `process` is not (any more) `agent`, the first process of a pid namespace, or below it.
std::optional<ProcessName> name_process(pid_t process, pid_t agent);

/// How many descriptors it has open, at most about `enough`; nullopt: it ended, or hides that.
std::optional<std::uint64_t> count_open_files(pid_t process, std::uint64_t enough);

}  // namespace kai::keeper
