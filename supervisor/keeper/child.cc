#include "supervisor/keeper/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "base/unix.h"

namespace kai::keeper {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxWords = 400;

/// False: the deadline has passed.
bool wait_until_readable(int fd, Clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd wanted{.fd = fd, .events = POLLIN, .revents = 0};
    const int ready = poll(&wanted, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 0)));
    if (ready >= 0) return ready > 0;
    if (errno != EINTR) return false;
  }
}

/// What it writes until it closes its end, as far as it is shown; nullopt: the deadline has passed.
std::optional<std::string> read_words(const Fd& pipe, Clock::time_point deadline) {
  std::string words;
  std::array<char, 4096> buffer{};
  while (wait_until_readable(pipe.get(), deadline)) {
    const ssize_t length = read(pipe.get(), buffer.data(), buffer.size());
    if (length <= 0) return words;
    words.append(buffer.data(), std::min(static_cast<std::size_t>(length), kMaxWords - words.size()));
  }
  return std::nullopt;
}

std::optional<siginfo_t> end_of(const Fd& pidfd) {
  siginfo_t info{};
  const int waited = waitid(P_PIDFD, static_cast<id_t>(pidfd.get()), &info, WEXITED | WNOHANG | __WALL);
  return waited == 0 && info.si_pid == 0 ? std::nullopt : std::optional(info);
}

}  // namespace

bool reap(const Fd& pidfd) {
  return !pidfd || end_of(pidfd).has_value();
}

bool reap_within(const Fd& pidfd, std::chrono::milliseconds patience) {
  if (pidfd) (void)wait_until_readable(pidfd.get(), Clock::now() + patience);
  return reap(pidfd);
}

Result<> run_tool(const char* program, std::vector<const char*> arguments, int directory,
                  std::chrono::milliseconds patience, char* const* environment) {
  const auto deadline = Clock::now() + patience;
  auto words = make_pipe();
  if (!words) return tl::unexpected(words.error());
  const Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return errno_failure("open", "/dev/null");
  arguments.push_back(nullptr);
  char* const empty[] = {nullptr};
  char* const* const given = environment == nullptr ? empty : environment;
  const pid_t keeper = getpid();
  // vfork: nothing of the keeper's memory is copied, and it waits until exec. Only calls that change nothing shared.
  const pid_t pid = vfork();
  if (pid < 0) return errno_failure("vfork");
  if (pid == 0) {
    sigset_t none;
    sigemptyset(&none);
    const bool ready = setsid() > 0 && sigprocmask(SIG_SETMASK, &none, nullptr) == 0 &&
                       prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == keeper && fchdir(directory) == 0 &&
                       dup2(null.get(), 0) == 0 && dup2(words->second.get(), 1) == 1 &&
                       dup2(words->second.get(), 2) == 2;
    if (ready) execve(program, const_cast<char* const*>(arguments.data()), given);
    _exit(127);
  }
  words->second.reset();
  const auto pidfd = open_pidfd(pid);
  if (!pidfd) return tl::unexpected(pidfd.error());
  auto said = read_words(words->first, deadline);
  (void)wait_until_readable(pidfd->get(), deadline);
  const auto end = end_of(*pidfd);
  if (!end) {
    (void)signal_pidfd(pidfd->get(), SIGKILL);
    return failure(std::string(program) + " did not end within " + std::to_string(patience.count()) +
                   " ms and was killed; is the disk below it answering? See the kernel's log (dmesg)");
  }
  if (end->si_code == CLD_EXITED && end->si_status == 0) return {};
  if (end->si_code == CLD_EXITED && end->si_status == 127) {
    return failure(std::string(program) + " cannot be run" + (given == empty ? "; install the package e2fsprogs" : ""));
  }
  std::string why = said.value_or("");
  std::replace(why.begin(), why.end(), '\n', ' ');
  return failure(std::string(program) + " failed: " + why);
}

}  // namespace kai::keeper
