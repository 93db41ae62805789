#include "agent-host/runner.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <vector>

#include "base/unix.h"

namespace kai {
namespace {

constexpr int kRunnerFd = 3;
constexpr int kAboveRunnerFd = 10;  // where the error pipe is out of the way of 0 to 3
constexpr std::string_view kDefaultPath = "/usr/local/bin:/usr/bin:/bin";

enum class ExecStep : int { kDescriptors, kDirectory, kExec };
struct ExecError {
  ExecStep step;
  int error_number;
};

std::string_view path_variable(const spec::SandboxSpec& spec) {
  for (const std::string& entry : spec.env()) {
    if (entry.starts_with("PATH=")) return std::string_view(entry).substr(5);
  }
  return kDefaultPath;
}

/// Every file that argv[0] may mean, in the order of PATH.
std::vector<std::string> candidates(const spec::SandboxSpec& spec) {
  const std::string& name = spec.argv(0);
  if (name.find('/') != std::string::npos) return {name};
  std::vector<std::string> paths;
  std::string_view rest = path_variable(spec);
  while (!rest.empty()) {
    const std::string_view directory = rest.substr(0, rest.find(':'));
    rest.remove_prefix(directory.size() < rest.size() ? directory.size() + 1 : rest.size());
    if (!directory.empty()) paths.push_back(std::string(directory) + "/" + name);
  }
  return paths;
}

std::vector<char*> pointers(const google::protobuf::RepeatedPtrField<std::string>& strings, const char* last) {
  std::vector<char*> list;
  for (const std::string& text : strings) list.push_back(const_cast<char*>(text.c_str()));
  if (last != nullptr) list.push_back(const_cast<char*>(last));
  list.push_back(nullptr);
  return list;
}

/// All that the child needs, made before the fork: it allocates nothing.
struct Plan {
  std::vector<std::string> paths;
  std::vector<char*> argv, envp;
  const char* cwd = nullptr;  // nullptr: stays
  int channel = -1;
  int errors = -1;
};

[[noreturn]] void report(const Plan& plan, ExecStep step) {
  const ExecError error{step, errno};
  if (write(plan.errors, &error, sizeof error) < 0) _exit(125);
  _exit(126);
}

void reset_signals() {
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) sigaction(number, &standard, nullptr);  // fails for KILL and STOP only
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

[[noreturn]] void run(const Plan& plan) {
  reset_signals();
  setsid();
  unsigned first_closed = kRunnerFd;
  if (plan.channel >= 0) {
    if (plan.channel != kRunnerFd && dup2(plan.channel, kRunnerFd) < 0) report(plan, ExecStep::kDescriptors);
    if (fcntl(kRunnerFd, F_SETFD, 0) < 0) report(plan, ExecStep::kDescriptors);
    first_closed = kRunnerFd + 1;
  }
  // On exec, so that the error pipe lives until then.
  if (syscall(SYS_close_range, first_closed, ~0U, CLOSE_RANGE_CLOEXEC) < 0) report(plan, ExecStep::kDescriptors);
  if (plan.cwd != nullptr && chdir(plan.cwd) < 0) report(plan, ExecStep::kDirectory);
  // As execvp does: go on where there is nothing, remember that something was there and could not be run.
  int error = ENOENT;
  for (const std::string& path : plan.paths) {
    execve(path.c_str(), plan.argv.data(), plan.envp.data());
    if (errno == EACCES) {
      error = EACCES;
    } else if (errno != ENOENT && errno != ENOTDIR) {
      error = errno;
      break;
    }
  }
  errno = error;
  report(plan, ExecStep::kExec);
}

tl::unexpected<RunnerFailure> failed(std::string doing, int error_number) {
  return tl::unexpected(RunnerFailure{error_number, std::move(doing), false});
}

RunnerFailure explained(const spec::SandboxSpec& spec, const ExecError& error) {
  RunnerFailure failure{error.error_number, {}, false};
  if (error.step == ExecStep::kDescriptors) {
    failure.message = "setting up its descriptors";
  } else if (error.step == ExecStep::kDirectory) {
    failure.message = "entering its working directory " + spec.cwd();
  } else {
    failure.message = spec.argv(0);
    failure.not_found = error.error_number == ENOENT;
    if (failure.not_found) {
      failure.message +=
          " (inside the sandbox there is no such program, or not the interpreter that its first line names)";
    } else if (error.error_number == EACCES) {
      failure.message += " (the file is not executable, or stands where nothing may be executed)";
    } else if (error.error_number == ENOEXEC) {
      failure.message += " (a script needs a first line that names its interpreter, as #!/usr/bin/python3)";
    }
  }
  return failure;
}

/// What the child wrote; step kExec with errno 0: nothing, it has exec'd.
ExecError outcome(int pipe) {
  ExecError error{ExecStep::kExec, 0};
  ssize_t count = 0;
  do {
    count = read(pipe, &error, sizeof error);
  } while (count < 0 && errno == EINTR);
  if (count == 0) return {ExecStep::kExec, 0};
  if (count != sizeof error) return {ExecStep::kDescriptors, EIO};
  return error;
}

}  // namespace

tl::expected<Runner, RunnerFailure> start_runner(const spec::SandboxSpec& spec) {
  if (spec.argv().empty() || spec.argv(0).empty()) return failed("the specification names no program", EINVAL);
  auto pipe = make_pipe();
  if (!pipe) return failed(pipe.error().what, pipe.error().error_number);
  Fd errors(fcntl(pipe->second.get(), F_DUPFD_CLOEXEC, kAboveRunnerFd));
  if (!errors) return failed("fcntl F_DUPFD_CLOEXEC", errno);
  pipe->second.reset();

  Runner runner;
  Fd theirs;
  Plan plan;
  if (spec.runner_protocol()) {
    auto pair = socket_pair(SOCK_STREAM);
    if (!pair) return failed(pair.error().what, pair.error().error_number);
    runner.channel = std::move(pair->first);
    theirs = std::move(pair->second);
    plan.channel = theirs.get();
  }
  plan.paths = candidates(spec);
  plan.argv = pointers(spec.argv(), nullptr);
  plan.envp = pointers(spec.env(), spec.runner_protocol() ? "KAI_RUNNER_FD=3" : nullptr);
  plan.cwd = spec.cwd().empty() ? nullptr : spec.cwd().c_str();
  plan.errors = errors.get();

  runner.pid = fork();
  if (runner.pid < 0) return failed("fork", errno);
  if (runner.pid == 0) run(plan);
  errors.reset();
  const ExecError error = outcome(pipe->first.get());
  if (error.error_number != 0) return tl::unexpected(explained(spec, error));
  return runner;
}

}  // namespace kai
