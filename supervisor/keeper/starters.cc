#include "supervisor/keeper/starters.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "base/unix.h"
#include "supervisor/keeper/child.h"

namespace kai::keeper {

namespace {

// Those that stand ready have opened nothing of anybody's: a killed one is gone at once.
constexpr auto kEndPatience = std::chrono::seconds(1);

}  // namespace

Result<Starters> Starters::open(const std::string& program, bool root) {
  auto fd = open_at(AT_FDCWD, program, O_PATH | O_NOFOLLOW);
  if (!fd) return tl::unexpected(fd.error());
  // Out of the way of the places that launch() fills.
  Fd high(fcntl(fd->get(), F_DUPFD_CLOEXEC, kStarterChannelFd + 1));
  if (!high) return errno_failure("fcntl F_DUPFD_CLOEXEC");
  return Starters(std::move(high), root);
}

Starters::~Starters() {
  end();
}

Result<Starter> Starters::launch(bool host_network) const {
  auto channel = socket_pair(SOCK_SEQPACKET);
  if (!channel) return tl::unexpected(channel.error());
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return errno_failure("open", "/dev/null");
  const char* const arguments[] = {"kai-agent-host", root_ ? "--root" : "--user",
                                   host_network ? "--host-network" : nullptr, nullptr};
  const char* const environment[] = {nullptr};
  const pid_t keeper = getpid();

  // vfork: nothing of the keeper's memory is copied, and it waits until exec. Only calls that change nothing shared.
  const pid_t pid = vfork();
  if (pid < 0) return errno_failure("vfork");
  if (pid == 0) {
    sigset_t none;
    sigemptyset(&none);
    // setsid: what a terminal sends to kaid's process group does not end a starter.
    const bool ready = setsid() > 0 && sigprocmask(SIG_SETMASK, &none, nullptr) == 0 &&
                       prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == keeper && dup2(null.get(), 0) == 0 &&
                       dup2(null.get(), 1) == 1 && dup2(null.get(), 2) == 2 &&
                       dup2(channel->second.get(), kStarterChannelFd) == kStarterChannelFd;
    if (ready) {
      syscall(SYS_execveat, program_.get(), "", const_cast<char* const*>(arguments),
              const_cast<char* const*>(environment), AT_EMPTY_PATH);
    }
    _exit(127);
  }
  auto pidfd = open_pidfd(pid);
  if (!pidfd) return tl::unexpected(pidfd.error());
  return Starter{std::move(channel->first), std::move(*pidfd)};
}

Result<Starter> Starters::take() {
  while (!ready_.empty()) {
    Starter starter = std::move(ready_.front());
    ready_.pop_front();
    pollfd ended{.fd = starter.pidfd.get(), .events = POLLIN, .revents = 0};
    if (poll(&ended, 1, 0) == 0) return starter;
    (void)reap(starter.pidfd);
  }
  return launch();
}

void Starters::end() {
  for (const Starter& starter : ready_) (void)signal_pidfd(starter.pidfd.get(), SIGKILL);
  for (const Starter& starter : ready_) (void)reap_within(starter.pidfd, kEndPatience);
  ready_.clear();
}

Result<> Starters::refill() {
  while (!full()) {
    auto starter = launch();
    if (!starter) return tl::unexpected(starter.error());
    ready_.push_back(std::move(*starter));
  }
  return {};
}

}  // namespace kai::keeper
