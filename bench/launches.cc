#include "bench/launches.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "base/unix.h"
#include "bench/report.h"

namespace kai::bench {

Result<double> time_to_first_byte(const std::vector<std::string>& argv) {
  auto pipe = make_pipe();
  if (!pipe) return tl::unexpected(pipe.error());
  std::vector<char*> arguments;
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);

  const Clock::time_point begin = Clock::now();
  const pid_t child = fork();
  if (child < 0) return errno_failure("fork");
  if (child == 0) {
    // Own process group: bubblewrap has a process of its own beside the program.
    setpgid(0, 0);
    dup2(pipe->second.get(), STDOUT_FILENO);
    execv(arguments[0], arguments.data());
    _exit(127);
  }
  pipe->second.reset();
  char byte = 0;
  const ssize_t count = read(pipe->first.get(), &byte, 1);
  const double elapsed = microseconds_since(begin);
  kill(-child, SIGKILL);
  waitpid(child, nullptr, 0);
  if (count != 1) return failure("the program said nothing", argv[0]);
  return elapsed;
}

std::vector<std::string> bubblewrap_command(const std::string& program) {
  const std::string bwrap = "/usr/bin/bwrap";
  if (!std::filesystem::exists(bwrap)) return {};
  return {bwrap,       "--unshare-all", "--die-with-parent",
          "--ro-bind", "/usr",          "/usr",
          "--symlink", "usr/bin",       "/bin",
          "--symlink", "usr/lib",       "/lib",
          "--symlink", "usr/lib64",     "/lib64",
          "--proc",    "/proc",         "--dev",
          "/dev",      "--tmpfs",       "/tmp",
          "--ro-bind", program,         "/agent",
          "/agent"};
}

}  // namespace kai::bench
