#include "supervisor/keeper/process_info.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

#include "base/fd.h"
#include "base/text.h"
#include "base/unix.h"

namespace kai::keeper {
namespace {

/// Everything read through it is of one process, whatever becomes of its number.
Fd open_process(pid_t process) {
  const std::string path = "/proc/" + std::to_string(process);
  return Fd(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
}

std::optional<std::string> read_small(const Fd& process, const char* name) {
  const Fd file(openat(process.get(), name, O_RDONLY | O_CLOEXEC));
  if (!file) return std::nullopt;
  auto text = read_all(file.get(), 64 << 10);
  if (!text) return std::nullopt;
  return *text;
}

/// The number at the end of a line of proc_pid_status(5), as `NSpid:\t4711\t3` has 3; 0: no such line.
pid_t last_number(std::string_view status, std::string_view key) {
  const std::size_t line = status.find(key);
  if (line == std::string_view::npos) return 0;
  const std::string_view text = status.substr(line, status.find('\n', line + 1) - line);
  return static_cast<pid_t>(std::atoi(std::string(text.substr(text.rfind('\t') + 1)).c_str()));
}

ino_t namespace_of(const Fd& process) {
  struct stat status {};
  return fstatat(process.get(), "ns/pid", &status, 0) == 0 ? status.st_ino : 0;
}

/// Whether `status` is of a process below `agent`, which all orphans of its namespace fall to. How deep a process
/// stands is the agent's choice: one that stands deeper than this is not found.
bool is_below(std::string status, pid_t agent) {
  constexpr int kDeepest = 64;
  for (int depth = 0; depth < kDeepest; ++depth) {
    const pid_t parent = last_number(status, "\nPPid:");
    if (parent == agent) return true;
    if (parent <= 1) return false;
    const auto above = read_small(open_process(parent), "status");
    if (!above) return false;
    status = *above;
  }
  return false;
}

}  // namespace

std::optional<ProcessName> name_process(pid_t process, pid_t agent) {
  if (process <= 0 || agent <= 0) return std::nullopt;
  const Fd directory = open_process(process);
  if (!directory) return std::nullopt;
  const auto comm = read_small(directory, "comm");
  const auto status = read_small(directory, "status");
  if (!comm || !status) return std::nullopt;
  // An ordinary user may not look at the namespaces of a process that is not dumpable.
  const ino_t space = namespace_of(directory);
  const bool same = process == agent || (space != 0 && space == pid_namespace(agent));
  if (!same && !is_below(*status, agent)) return std::nullopt;
  const std::string_view name = std::string_view(*comm).substr(0, comm->rfind('\n'));
  return ProcessName{escape_for_terminal(name.substr(0, 64)), last_number(*status, "\nNSpid:")};
}

ino_t pid_namespace(pid_t process) {
  const Fd directory = open_process(process);
  return directory ? namespace_of(directory) : 0;
}

}  // namespace kai::keeper
