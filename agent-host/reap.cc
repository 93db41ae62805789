#include "agent-host/reap.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

namespace kai {
namespace {

std::optional<ProcessEnd> collect(pid_t runner, int flags) {
  std::optional<ProcessEnd> end;
  for (;;) {
    siginfo_t info{};
    if (waitid(P_ALL, 0, &info, WEXITED | flags) < 0) {
      if (errno == EINTR) continue;
      return end;  // ECHILD: no children are left
    }
    if (info.si_pid == 0) return end;  // WNOHANG: the others still run
    if (info.si_pid == runner) end = ProcessEnd{info.si_code != CLD_EXITED, info.si_status};
  }
}

}  // namespace

std::optional<ProcessEnd> reap(pid_t runner) {
  return collect(runner, WNOHANG);
}

std::optional<ProcessEnd> kill_everything(pid_t runner) {
  if (getpid() == 1) {
    kill(-1, SIGKILL);
  } else if (runner > 0) {
    kill(-runner, SIGKILL);
  }
  return collect(runner, 0);
}

}  // namespace kai
