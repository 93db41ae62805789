#include "tests/unit/kaictl/program.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <stdexcept>

#include "base/unix.h"

namespace kai::test {
namespace {

// What a program reads where the environment of whoever runs the tests must not count.
void run_in_child(const std::vector<std::string>& arguments) {
  unsetenv("KAI_SOCKET");
  unsetenv("XDG_RUNTIME_DIR");
  std::vector<std::string> words = {"kaictl"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  execv(KAICTL_PATH, argv.data());
  _exit(127);
}

std::pair<Fd, Fd> pipe_or_throw() {
  auto pipe = make_pipe();
  if (!pipe) throw std::runtime_error(pipe.error().message());
  return std::move(*pipe);
}

/// One read into `bytes`; false at the end. A terminal whose program ended gives EIO.
bool read_some(Fd& fd, std::string& bytes) {
  std::array<char, 65536> buffer;
  const ssize_t count = read(fd.get(), buffer.data(), buffer.size());
  if (count <= 0) return false;
  bytes.append(buffer.data(), static_cast<std::size_t>(count));
  return true;
}

}  // namespace

Program::Program(const std::vector<std::string>& arguments, Streams streams) {
  auto [input_read, input_write] = pipe_or_throw();
  auto [output_read, output_write] = pipe_or_throw();
  auto [error_read, error_write] = pipe_or_throw();
  if (streams == Streams::kTerminal) {
    int ours = -1;
    int theirs = -1;
    if (openpty(&ours, &theirs, nullptr, nullptr, nullptr) < 0) throw std::runtime_error("openpty");
    output_read = Fd(ours);
    output_write = Fd(theirs);
    fcntl(ours, F_SETFD, FD_CLOEXEC);
    error_write = Fd(fcntl(theirs, F_DUPFD_CLOEXEC, 3));
    // What the program wrote is compared: the terminal must not make \r\n of \n.
    termios plain{};
    tcgetattr(theirs, &plain);
    plain.c_oflag &= ~static_cast<tcflag_t>(OPOST);
    tcsetattr(theirs, TCSANOW, &plain);
  }
  pid_ = fork();
  if (pid_ < 0) throw std::runtime_error("fork");
  if (pid_ == 0) {
    dup2(input_read.get(), STDIN_FILENO);
    dup2(output_write.get(), STDOUT_FILENO);
    dup2(error_write.get(), STDERR_FILENO);
    run_in_child(arguments);
  }
  input_ = std::move(input_write);
  output_ = std::move(output_read);
  error_ = std::move(error_read);
}

Program::~Program() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void Program::write_input(std::string_view bytes) {
  static_cast<void>(write_all(input_.get(), bytes));
}

void Program::signal(int number) {
  kill(pid_, number);
}

bool Program::read_until(const std::string& text) {
  while (out_.find(text) == std::string::npos) {
    if (!read_some(output_, out_)) return false;
  }
  return true;
}

Result Program::finish() {
  input_.reset();
  while (output_.valid() || error_.valid()) {
    std::array<pollfd, 2> readable = {{{output_.get(), POLLIN, 0}, {error_.get(), POLLIN, 0}}};
    if (poll(readable.data(), readable.size(), -1) < 0) continue;
    if (readable[0].revents != 0 && !read_some(output_, out_)) output_.reset();
    if (readable[1].revents != 0 && !read_some(error_, err_)) error_.reset();
  }
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  return {WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status), out_, err_};
}

Result kaictl(const std::vector<std::string>& arguments, const std::string& input) {
  Program program(arguments);
  program.write_input(input);
  return program.finish();
}

bool is_one_line(const std::string& text) {
  return !text.empty() && text.back() == '\n' && std::count(text.begin(), text.end(), '\n') == 1;
}

}  // namespace kai::test
