// What an agent could use up. Each attempt takes more than the default policy gives, and little enough for a machine
// without a sandbox.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "tests/escape/attempts.h"

namespace kai::escape {
namespace {

constexpr int kProcesses = 400;       // policy: 128
constexpr unsigned kMegabytes = 700;  // policy: 512
constexpr int kInodes = 20'000;       // policy: 16384
constexpr int kDescriptors = 2'000;   // policy: 1024
constexpr int kSignals = 1'200;       // policy: 1024
constexpr rlim_t kFilesOutside = 4096;

std::string count_of(const char* what, long count) {
  return std::to_string(count) + " " + what;
}

}  // namespace

// Every process waits for the end of a pipe, so that all of them go when this one does. `daemons`: each is the
// grandchild of somebody who ended, in a session of its own.
Verdict fork_bomb(bool daemons) {
  std::array<int, 2> alive{}, born{};
  if (pipe(alive.data()) < 0 || pipe(born.data()) < 0) return refused("pipe");
  int count = 0;
  int why = 0;
  for (; count < kProcesses && why == 0; ++count) {
    const pid_t child = fork();
    if (child < 0) {
      why = errno;
      break;
    }
    if (child == 0) {
      int result = 0;
      if (daemons && setsid() >= 0) {
        const pid_t grandchild = fork();
        if (grandchild > 0) _exit(0);
        if (grandchild < 0) result = errno;
      }
      (void)!write(born[1], &result, sizeof result);
      if (result != 0) _exit(0);
      (void)close(alive[1]);
      char byte = 0;
      (void)!read(alive[0], &byte, 1);
      _exit(0);
    }
    (void)!read(born[0], &why, sizeof why);
    if (daemons) (void)waitpid(child, nullptr, 0);
  }
  errno = why;
  return why == 0 ? escaped(count_of("processes", count)) : refused(count_of("processes", count));
}

// Without a name where the file system can, so that nothing is left whatever happens.
Verdict fill_bytes(const std::string& directory, unsigned megabytes) {
  const int fd = open(directory.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  if (fd < 0) return refused(directory);
  const std::string piece(1 << 20, 'x');
  for (unsigned at = 0; at < megabytes; ++at) {
    for (std::size_t done = 0; done < piece.size();) {
      const ssize_t now = write(fd, piece.data() + done, piece.size() - done);
      if (now < 0) return refused(count_of("MB", at));
      done += static_cast<std::size_t>(now);
    }
  }
  return escaped(count_of("MB", megabytes));
}

Verdict fill_inodes() {
  const std::string directory = setting("WRITABLE") + "/inodes";
  if (mkdir(directory.c_str(), 0700) < 0) return refused(directory);
  const int dir = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int count = 0;
  while (count < kInodes && mknodat(dir, std::to_string(count).c_str(), S_IFIFO | 0600, 0) == 0) ++count;
  const int why = errno;
  for (int at = 0; at < count; ++at) (void)unlinkat(dir, std::to_string(at).c_str(), 0);
  (void)rmdir(directory.c_str());
  errno = why;
  return count == kInodes ? escaped(count_of("files", count)) : refused(count_of("files", count));
}

Verdict many_descriptors() {
  const rlimit more{kFilesOutside, kFilesOutside};
  (void)setrlimit(RLIMIT_NOFILE, &more);
  for (int at = 0; at < kDescriptors; ++at) {
    if (dup(STDIN_FILENO) < 0) return refused(count_of("descriptors", at));
  }
  return escaped(count_of("descriptors", kDescriptors));
}

// Descriptors in flight are in no table: they have a limit of their own, which is RLIMIT_NOFILE per user (unix(7)).
Verdict passed_descriptors() {
  const rlimit more{kFilesOutside, kFilesOutside};
  (void)setrlimit(RLIMIT_NOFILE, &more);
  constexpr int kEach = 250;  // SCM_MAX_FD is 253
  int sent = 0;
  for (int pair = 0; pair < 200; ++pair) {
    std::array<int, 2> ends{};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()) < 0)
      return refused(count_of("in flight", sent));
    std::array<int, kEach> descriptors{};
    descriptors.fill(STDIN_FILENO);
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof descriptors)> control{};
    char byte = 0;
    iovec piece{&byte, 1};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof descriptors);
    std::memcpy(CMSG_DATA(head), descriptors.data(), sizeof descriptors);
    if (sendmsg(ends[0], &message, MSG_NOSIGNAL) < 0) return refused(count_of("in flight", sent));
    sent += kEach;
    if (sent >= kDescriptors) break;
  }
  return escaped(count_of("in flight", sent));
}

Verdict many_timers() {
  for (int at = 0; at < kSignals; ++at) {
    timer_t timer{};
    if (timer_create(CLOCK_MONOTONIC, nullptr, &timer) < 0) return refused(count_of("timers", at));
  }
  return escaped(count_of("timers", kSignals));
}

Verdict many_signals() {
  sigset_t blocked;
  (void)sigemptyset(&blocked);
  (void)sigaddset(&blocked, SIGRTMIN);
  (void)sigprocmask(SIG_BLOCK, &blocked, nullptr);
  for (int at = 0; at < kSignals; ++at) {
    if (sigqueue(getpid(), SIGRTMIN, {}) < 0) return refused(count_of("signals", at));
  }
  return escaped(count_of("signals", kSignals));
}

Verdict raise_limit(int resource) {
  const auto which = static_cast<__rlimit_resource>(resource);
  rlimit limit{};
  if (getrlimit(which, &limit) < 0) return refused("getrlimit");
  if (limit.rlim_max != RLIM_INFINITY) limit.rlim_max += 1024;
  limit.rlim_cur = limit.rlim_max;
  return by_result(setrlimit(which, &limit));
}

Verdict dump_core() {
  const std::string directory = setting("WRITABLE");
  const pid_t child = fork();
  if (child < 0) return refused("fork");
  if (child == 0) {
    const rlimit all{RLIM_INFINITY, RLIM_INFINITY};
    (void)setrlimit(RLIMIT_CORE, &all);
    if (chdir(directory.c_str()) == 0) (void)raise(SIGQUIT);
    _exit(0);
  }
  int status = 0;
  (void)waitpid(child, &status, 0);
  for (const std::string& name : {std::string("core"), "core." + std::to_string(child)}) {
    (void)unlink((directory + "/" + name).c_str());
  }
  return WCOREDUMP(status) ? escaped("dumped core") : refused_as("not-there", "no core");
}

Verdict limit_of_other() {
  const pid_t target = setting_number("TARGET");
  rlimit limit{};
  return by_result(prlimit(kill(target, 0) == 0 ? target : 1, RLIMIT_NOFILE, nullptr, &limit));
}

Verdict lock_memory() {
  constexpr std::size_t kBytes = 16 << 20;  // policy: 64 KB
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return by_result(mlock(memory, kBytes));
}

// The whole sandbox ends, so nobody is left to say so: run.py reads how the run ended.
Verdict memory_over_children() {
  constexpr unsigned kChildren = 7;
  std::array<int, 2> ready{};
  if (pipe(ready.data()) < 0) return refused("pipe");
  std::vector<pid_t> children;
  for (unsigned at = 0; at < kChildren; ++at) {
    const pid_t child = fork();
    if (child < 0) return refused("fork");
    if (child == 0) {
      constexpr std::size_t kBytes = (std::size_t{kMegabytes} << 20) / kChildren;
      auto* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (memory != MAP_FAILED) std::memset(memory, 1, kBytes);
      (void)!write(ready[1], "x", 1);
      (void)pause();  // held: a watchdog looks from time to time
      _exit(0);
    }
    children.push_back(child);
  }
  (void)close(ready[1]);
  char byte = 0;
  unsigned held = 0;
  while (held < kChildren && read(ready[0], &byte, 1) == 1) ++held;
  if (setting("INSIDE") == "1") (void)pause();
  for (const pid_t child : children) (void)kill(child, SIGKILL);
  while (wait(nullptr) > 0) {
  }
  return held == kChildren ? escaped(count_of("MB", kMegabytes))
                           : refused_as("SIGKILL", count_of("children held", held));
}

}  // namespace kai::escape
