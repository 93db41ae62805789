// Processes of an agent as /proc shows them on the host. Whatever a process says of itself is escaped for terminals.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

namespace kai::keeper {

struct ProcessName {
  std::string comm;     ///< as the process calls itself
  pid_t inner_pid = 0;  ///< as the agent sees it
};

/// nullopt: `process` is not (any more) `agent`, the first process of a pid namespace, or below it.
std::optional<ProcessName> name_process(pid_t process, pid_t agent);

/// The number of its pid namespace; 0: it has ended, or may not be looked at.
ino_t pid_namespace(pid_t process);

}  // namespace kai::keeper
