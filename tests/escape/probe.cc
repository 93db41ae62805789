// Makes attempts against its surroundings and says what came of each. The same program runs inside a sandbox and
// outside: what it is refused inside and gets outside is the sandbox's doing.
//
// usage: probe list             name|class|inside|outside|needs|layer of every attempt
//        probe NAME             one line, `refused HOW DETAIL` or `escaped DETAIL`; status 0 or 1, 2 when it could not
//        try probe run NAME...      each attempt in a process of its own; `NAME refused …` a line; status as above, the
//        worst probe whoami           status 200 as root, 201 as anybody else; what set-id attempts run
#include <fcntl.h>
#include <linux/vt.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <string>

#include "tests/escape/attempts.h"

namespace kai::escape {
namespace {

struct Attempt {
  const char* name;
  const char* attack;
  const char* inside;
  const char* outside;
  const char* needs;
  const char* layer;
  Verdict (*make)();
};

// Attempts about kaid itself: run.py makes them.
Verdict driven() {
  (void)dprintf(STDERR_FILENO, "probe: tests/escape/run.py makes this attempt\n");
  _exit(2);
}

#define ATTEMPT(name, attack, inside, outside, needs, layer, attempt) \
  {#name, attack, inside, outside, needs, layer, []() -> Verdict { return attempt; }},
constexpr Attempt kAttempts[] = {
#include "tests/escape/attempts.def"
};
#undef ATTEMPT

const Attempt* find(const char* name) {
  const auto* found = std::find_if(std::begin(kAttempts), std::end(kAttempts),
                                   [&](const Attempt& attempt) { return std::strcmp(attempt.name, name) == 0; });
  return found == std::end(kAttempts) ? nullptr : found;
}

std::string line_of(const Verdict& verdict) {
  std::string detail = verdict.detail;
  std::replace(detail.begin(), detail.end(), '\n', ' ');
  return verdict.escaped ? "escaped " + detail : "refused " + verdict.how + " " + detail;
}

std::string signal_name(int number) {
  const char* name = sigabbrev_np(number);
  return name != nullptr ? std::string("SIG") + name : std::to_string(number);
}

struct Answer {
  std::string line;
  int status = 2;
};

// In a child: an attempt may end its process, and none may see what another left.
Answer make(const Attempt& attempt) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) < 0) return {"broken pipe2", 2};
  const pid_t child = fork();
  if (child < 0) return {std::string("broken fork ") + strerrorname_np(errno), 2};
  if (child == 0) {
    (void)close(ends[0]);
    errno = 0;
    const Verdict verdict = attempt.make();
    const std::string line = line_of(verdict);
    (void)!write(ends[1], line.data(), line.size());
    _exit(verdict.escaped ? 1 : 0);
  }
  (void)close(ends[1]);
  std::string line;
  std::array<char, 512> piece{};
  // Until the child's end, not the pipe's: its children hold that too, and end when it does.
  int status = 0;
  (void)waitpid(child, &status, 0);
  (void)fcntl(ends[0], F_SETFL, O_NONBLOCK);
  for (ssize_t got = 0; (got = read(ends[0], piece.data(), piece.size())) > 0;) {
    line.append(piece.data(), static_cast<std::size_t>(got));
  }
  (void)close(ends[0]);
  if (WIFSIGNALED(status)) return {"refused " + signal_name(WTERMSIG(status)) + " ", 0};
  if (line.empty()) return {"broken without a verdict", 2};
  return {line, WEXITSTATUS(status)};
}

int list() {
  for (const Attempt& attempt : kAttempts) {
    std::printf("%s|%s|%s|%s|%s|%s\n", attempt.name, attempt.attack, attempt.inside, attempt.outside, attempt.needs,
                attempt.layer);
  }
  return 0;
}

int run(int count, char** names) {
  int worst = 0;
  for (int at = 0; at < count; ++at) {
    const Attempt* attempt = find(names[at]);
    const Answer answer = attempt != nullptr ? make(*attempt) : Answer{"broken there is no such attempt", 2};
    std::printf("%s %s\n", names[at], answer.line.c_str());
    (void)std::fflush(stdout);  // the next attempt may end everything
    worst = std::max(worst, answer.status);
  }
  return worst;
}

}  // namespace
}  // namespace kai::escape

int main(int argc, char** argv) {
  using namespace kai::escape;
  if (argc == 2 && std::strcmp(argv[1], "list") == 0) return list();
  if (argc == 2 && std::strcmp(argv[1], "whoami") == 0) return geteuid() == 0 ? 200 : 201;
  if (argc > 2 && std::strcmp(argv[1], "run") == 0) return run(argc - 2, argv + 2);
  const Attempt* attempt = argc == 2 ? find(argv[1]) : nullptr;
  if (attempt == nullptr) {
    (void)std::fprintf(stderr, "usage: probe list | probe NAME | probe run NAME...\n");
    return 2;
  }
  const Answer answer = make(*attempt);
  std::printf("%s\n", answer.line.c_str());
  return answer.status;
}
