// Programs that the keeper runs, and how long it waits for them.
#include "supervisor/keeper/child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>

#include <doctest/doctest.h>

#include "base/unix.h"

using kai::Fd;
using kai::keeper::run_tool;
using std::chrono::milliseconds;

namespace {

std::string shell(const char* program, milliseconds patience = std::chrono::seconds(20)) {
  const Fd here(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  const auto ran = run_tool("/bin/sh", {"sh", "-c", program}, here.get(), patience);
  return ran ? "" : ran.error().message();
}

}  // namespace

TEST_CASE("a tool's last words are its error") {
  CHECK(shell("test \"$PWD\" = /") == "");
  CHECK(shell("echo no; echo room >&2; exit 3") == "/bin/sh failed: no room ");
  CHECK(shell("kill -9 $$") == "/bin/sh failed: ");
  CHECK(shell("yes | head -c 1000000; exit 1").size() < 500);
  CHECK(shell("exit 127").find("cannot be run; install the package e2fsprogs") != std::string::npos);
}

TEST_CASE("a tool that does not end is not waited for") {
  const auto begin = std::chrono::steady_clock::now();
  CHECK(shell("exec sleep 1000", milliseconds(50)).find("did not end within 50 ms") != std::string::npos);
  // Whatever it left behind holds its output open.
  CHECK(shell("sleep 20 & exit 0", milliseconds(2'000)) == "");
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(15));
}

TEST_CASE("a child is reaped when it is gone, and never waited for longer than said") {
  auto pipe = kai::make_pipe();
  REQUIRE(pipe);
  const pid_t pid = fork();
  if (pid == 0) {
    pipe->second.reset();
    char byte = 0;
    (void)!read(pipe->first.get(), &byte, 1);
    _exit(0);
  }
  const auto pidfd = kai::open_pidfd(pid);
  REQUIRE(pidfd);
  CHECK_FALSE(kai::keeper::reap(*pidfd));
  CHECK_FALSE(kai::keeper::reap_within(*pidfd, milliseconds(10)));
  pipe->second.reset();
  CHECK(kai::keeper::reap_within(*pidfd, std::chrono::seconds(20)));
  CHECK(kai::keeper::reap(*pidfd));
  CHECK(waitpid(pid, nullptr, WNOHANG) == -1);
}
