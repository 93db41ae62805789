// Random system calls with random arguments, inside a sandbox: what the filter lets through has to be harmless whatever
// it is given, and the daemon must not notice. By seed, so that a finding can be made again.
//
// usage: escape-fuzz SEED SECONDS
//
// Runs only where a filter and no_new_privs hold: outside it would be an attack on the machine. Children make the
// calls, a few hundred each, as a call may end or block its process. Left out: what would merely stop the fuzzer itself
// (kStops). Prints `calls N children N signals N blocked N` at its end.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

namespace {

constexpr long kHighestCall = 480;  // beyond what Linux 6.18 has
constexpr int kCallsEach = 400;
constexpr long kPatienceMs = 30;  // a child that gets no further waits for something that never comes
constexpr std::size_t kScratch = 64 << 10;

// End or suspend whoever makes them, or end the fuzzer that counts; kill and its kin are attempts of their own.
constexpr long kStops[] = {
    SYS_exit,
    SYS_exit_group,
    SYS_rt_sigsuspend,
    SYS_rt_sigreturn,
    SYS_kill,
    SYS_tkill,
    SYS_tgkill,
    SYS_rt_sigqueueinfo,
    SYS_pidfd_open,
    SYS_pidfd_send_signal,
    SYS_rt_tgsigqueueinfo,
#ifdef SYS_pause
    SYS_pause,
    SYS_vfork,
#endif
};

struct Shared {
  std::uint64_t calls;
};

class Fuzzer {
 public:
  explicit Fuzzer(std::uint64_t seed) : random_(seed) {
    // Between two pieces that nobody may touch: a length beyond its end shall not reach the fuzzer's own memory.
    void* memory = mmap(nullptr, 3 * kScratch, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    scratch_ = static_cast<char*>(memory) + kScratch;
    (void)mprotect(scratch_, kScratch, PROT_READ | PROT_WRITE);
    for (std::size_t at = 0; at < kScratch; ++at) scratch_[at] = static_cast<char>(random_());
    constexpr const char* kPaths[] = {"/tmp/a",         "/tmp", "/proc/self/mem", "/dev/null",
                                      "/proc/1/status", "..",   "/usr/bin/env",   ""};
    for (std::size_t at = 0; at < std::size(kPaths); ++at) (void)std::strcpy(scratch_ + at * 64, kPaths[at]);
  }

  void call() {
    const long number = next_number();
    std::array<unsigned long, 6> argument{};
    for (auto& value : argument) value = next_argument();
    const long result = syscall(number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
    // A child of a child would go on fuzzing where nobody waits for it.
    const bool forks = number == SYS_clone || number == SYS_clone3
#ifdef SYS_fork
                       || number == SYS_fork
#endif
        ;
    if (forks && result == 0) (void)syscall(SYS_exit, 0);
  }

 private:
  std::uint64_t below(std::uint64_t limit) {
    return random_() % limit;
  }

  long next_number() {
    while (true) {
      const long number = static_cast<long>(below(kHighestCall));
      if (std::find(std::begin(kStops), std::end(kStops), number) == std::end(kStops)) return number;
    }
  }

  unsigned long next_argument() {
    switch (below(8)) {
      case 0:
        return 0;
      case 1:
        return ~0UL - below(3);
      case 2:
        return below(16);  // descriptors, small counts
      case 3:
        return 1UL << below(64);  // flags
      case 4:
        return reinterpret_cast<unsigned long>(scratch_ + below(8) * 64);
      case 5:
        return reinterpret_cast<unsigned long>(scratch_ + below(kScratch));
      case 6:
        return below(1UL << 16);
      default:
        return random_();
    }
  }

  std::mt19937_64 random_;
  char* scratch_ = nullptr;
};

long now_ms() {
  timespec now{};
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

bool confined() {
  std::ifstream file("/proc/self/status");
  const std::string status((std::istreambuf_iterator<char>(file)), {});
  return status.find("\nSeccomp:\t2") != std::string::npos && status.find("\nNoNewPrivs:\t1") != std::string::npos;
}

[[noreturn]] void fuzz(std::uint64_t seed, Shared* shared) {
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd <= STDERR_FILENO; ++fd) (void)dup2(null, fd);  // the fuzzer's own output stays its own
  Fuzzer fuzzer(seed);
  for (int at = 0; at < kCallsEach; ++at) {
    fuzzer.call();
    __atomic_fetch_add(&shared->calls, 1, __ATOMIC_RELAXED);
  }
  (void)syscall(SYS_exit_group, 0);
  __builtin_unreachable();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 || !confined()) {
    (void)std::fprintf(stderr, "usage: escape-fuzz SEED SECONDS, inside a sandbox only (this is %sone)\n",
                       confined() ? "" : "not ");
    return 2;
  }
  auto* shared = static_cast<Shared*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  std::uint64_t seed = std::strtoull(argv[1], nullptr, 10);
  const long end = now_ms() + std::atol(argv[2]) * 1000;
  unsigned children = 0, signals = 0, blocked = 0;
  sigset_t ended;
  (void)sigemptyset(&ended);
  (void)sigaddset(&ended, SIGCHLD);
  (void)sigprocmask(SIG_BLOCK, &ended, nullptr);
  while (now_ms() < end) {
    const pid_t child = fork();
    if (child == 0) fuzz(++seed, shared);
    if (child < 0) {  // its kind has used up the processes: they end with their parents
      while (waitpid(-1, nullptr, WNOHANG) > 0) {
      }
      continue;
    }
    ++seed;
    ++children;
    const timespec patience{kPatienceMs / 1000, kPatienceMs % 1000 * 1'000'000};
    int status = 0;
    while (waitpid(child, &status, WNOHANG) == 0) {
      if (sigtimedwait(&ended, nullptr, &patience) < 0 && errno == EAGAIN) {
        ++blocked;
        (void)kill(child, SIGKILL);
        (void)waitpid(child, &status, 0);
        break;
      }
    }
    if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) ++signals;
  }
  std::printf("calls %lu children %u signals %u blocked %u\n", static_cast<unsigned long>(shared->calls), children,
              signals, blocked);
  return 0;
}
