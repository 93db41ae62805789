#include "supervisor/doctor/probe.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <csignal>
#include <cstring>

#include "base/unix.h"

namespace kai::doctor {
namespace {

constexpr std::int64_t kPatienceMs = 60'000;  // an emulated machine takes many seconds to start node

struct Message {
  int error_number;
  std::array<char, 60> step;
};

/// Reads until end of file or until patience ends; false then.
bool read_patiently(int fd, std::string& bytes) {
  std::array<char, 4096> buffer;
  for (;;) {
    pollfd readable{fd, POLLIN, 0};
    if (poll(&readable, 1, kPatienceMs) <= 0) return false;
    const ssize_t count = read(fd, buffer.data(), buffer.size());
    if (count <= 0) return count == 0;
    if (bytes.size() < buffer.size()) bytes.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

int wait_for(pid_t child, bool ended) {
  if (!ended) kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

}  // namespace

Answer failed(const char* step) {
  return {errno, step};
}

Answer ask_child(const std::function<Answer()>& ask, const std::function<Answer(pid_t child)>& beside) {
  auto pipe = make_pipe();
  if (!pipe) return {pipe.error().error_number, "pipe2"};
  const pid_t child = fork();
  if (child < 0) return failed("fork");
  if (child == 0) {
    const Answer answer = ask();
    Message message{answer.error_number, {}};
    std::strncpy(message.step.data(), answer.step.c_str(), message.step.size() - 1);
    static_cast<void>(!write(pipe->second.get(), &message, sizeof message));
    _exit(0);
  }
  pipe->second.reset();
  Answer own = beside ? beside(child) : Answer();
  std::string bytes;
  const bool ended = own.ok() && read_patiently(pipe->first.get(), bytes);
  wait_for(child, ended);
  if (!own.ok()) return own;
  Message message{};
  if (bytes.size() != sizeof message) return {ended ? ECHILD : ETIMEDOUT, "the probe died"};
  std::memcpy(&message, bytes.data(), sizeof message);
  return {message.error_number, message.step.data()};
}

Result<std::string> first_line_of(const std::string& program, const std::string& argument) {
  if (access(program.c_str(), X_OK) < 0) return errno_failure("access", program);
  auto pipe = make_pipe();
  if (!pipe) return tl::unexpected(pipe.error());
  const pid_t child = fork();
  if (child < 0) return errno_failure("fork");
  if (child == 0) {
    dup2(pipe->second.get(), STDOUT_FILENO);
    dup2(pipe->second.get(), STDERR_FILENO);
    execl(program.c_str(), program.c_str(), argument.c_str(), nullptr);
    _exit(127);
  }
  pipe->second.reset();
  std::string bytes;
  const bool ended = read_patiently(pipe->first.get(), bytes);
  const int status = wait_for(child, ended);
  if (!ended) return failure(program + " " + argument, "did not end");
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return failure(program + " " + argument, "failed");
  return bytes.substr(0, bytes.find('\n'));
}

long long number_in(const std::string& path) {
  const auto text = read_file(path);
  long long value = -1;
  if (!text) return -1;
  const auto parsed = std::from_chars(text->data(), text->data() + text->size(), value);
  return parsed.ec == std::errc() ? value : -1;
}

}  // namespace kai::doctor
