#include "supervisor/keeper/socket_probe.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <climits>
#include <cstdio>

#include "base/unix.h"

namespace kai::keeper {
namespace {

/// 0 or errno, each below 256: the child's exit status.
int try_to_connect(int connection, const std::string& path) {
  const auto found = open_at(AT_FDCWD, path, O_PATH | O_NOFOLLOW | O_CLOEXEC, RESOLVE_NO_MAGICLINKS);
  if (!found) return found.error().error_number;
  struct stat status {};
  if (fstat(found->get(), &status) < 0) return errno;
  if (!S_ISSOCK(status.st_mode)) return ENOTSOCK;
  // What was looked at, whatever has its name now; and a path may be longer than sun_path.
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (void)std::snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d", found->get());
  return connect(connection, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
}

}  // namespace

Result<SocketProbe> SocketProbe::begin(const std::string& path) {
  Fd connection(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!connection) return errno_failure("socket");
  const pid_t keeper = getpid();
  const pid_t child = fork();
  if (child < 0) return errno_failure("fork");
  if (child == 0) {
    // Nothing that the keeper closes meanwhile stays open here.
    constexpr int kConnection = STDERR_FILENO + 1;
    const bool ready = prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == keeper &&
                       dup2(connection.get(), kConnection) == kConnection &&
                       close_range(kConnection + 1, UINT_MAX, 0) == 0;
    _exit(ready ? try_to_connect(kConnection, path) : ECHILD);
  }
  auto pidfd = open_pidfd(child);
  if (!pidfd) return tl::unexpected(pidfd.error());
  return SocketProbe(std::move(*pidfd), std::move(connection));
}

std::optional<int> SocketProbe::outcome(Clock::time_point now) {
  siginfo_t end{};
  const int waited = waitid(P_PIDFD, static_cast<id_t>(child_.get()), &end, WEXITED | WNOHANG | __WALL);
  if (waited == 0 && end.si_pid == 0) {
    if (now < deadline_) return std::nullopt;
    (void)signal_pidfd(child_.get(), SIGKILL);
    return ETIMEDOUT;
  }
  child_.reset();
  return waited == 0 && end.si_code == CLD_EXITED ? end.si_status : ECHILD;
}

Fd SocketProbe::end() {
  (void)signal_pidfd(child_.get(), SIGKILL);
  return std::move(child_);
}

}  // namespace kai::keeper
