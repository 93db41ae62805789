#include "supervisor/control/output_pipes.h"

#include <fcntl.h>

#include <cerrno>

#include "base/text.h"
#include "base/unix.h"

namespace kai {

OutputPipes::OutputPipes(EventLoop& loop, Log& log, const std::string& agent, std::uint32_t lines_per_second)
    : loop_(loop), output_(log, agent, lines_per_second, monotonic_ms()), report_timer_(loop) {
  pipes_[1].stream = AgentOutput::Stream::kStderr;
}

Result<> OutputPipes::begin(Pipe& pipe, Fd fd) {
  pipe.fd = std::move(fd);
  // Ours only: the agent's end stays as programs expect it, blocking.
  if (auto set = set_nonblocking(pipe.fd.get()); !set) return set;
  pipe.poll = std::make_unique<Poll>(loop_, pipe.fd.get(), [this, &pipe](int) {
    read_some(pipe);
    arm_report();
  });
  pipe.poll->watch(UV_READABLE);
  return {};
}

Result<std::vector<Fd>> OutputPipes::open() {
  std::vector<Fd> given, kept;
  given.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!given.back()) return errno_failure("open", "/dev/null");
  for (Pipe& pipe : pipes_) {
    auto ends = make_pipe();
    if (!ends) return tl::unexpected(ends.error());
    kept.emplace_back(fcntl(ends->first.get(), F_DUPFD_CLOEXEC, 0));
    if (!kept.back()) return errno_failure("fcntl", "F_DUPFD_CLOEXEC");
    given.push_back(std::move(ends->second));
    if (auto begun = begin(pipe, std::move(ends->first)); !begun) return tl::unexpected(begun.error());
  }
  for (Fd& fd : kept) given.push_back(std::move(fd));
  return given;
}

Result<> OutputPipes::adopt(Fd output, Fd error) {
  if (auto begun = begin(pipes_[0], std::move(output)); !begun) return begun;
  return begin(pipes_[1], std::move(error));
}

bool OutputPipes::read_some(Pipe& pipe) {
  auto& buffer = loop_.scratch();
  const ssize_t count = read(pipe.fd.get(), buffer.data(), buffer.size());
  if (count > 0) {
    output_.feed(pipe.stream, {buffer.data(), static_cast<std::size_t>(count)}, monotonic_ms());
    return true;
  }
  if (count < 0 && errno == EINTR) return true;
  if (count < 0 && errno == EAGAIN) return false;
  pipe.poll.reset();
  pipe.fd.reset();
  return false;
}

void OutputPipes::log(LogLevel level, std::string_view message, std::string_view fields_json) {
  output_.log(level, message, fields_json, monotonic_ms());
  arm_report();
}

void OutputPipes::arm_report() {
  if (!output_.owes_report() || report_timer_.active()) return;
  report_timer_.start(std::chrono::milliseconds(1000), [this] {
    output_.tick(monotonic_ms());
    arm_report();
  });
}

void OutputPipes::finish() {
  // A pipe holds 64 KiB; somebody outside the tree who still has the other end may not hold us here.
  constexpr int kMostReads = 32;
  for (Pipe& pipe : pipes_) {
    for (int reads = 0; pipe.fd && reads < kMostReads && read_some(pipe); ++reads) {
    }
    pipe.poll.reset();
    pipe.fd.reset();
  }
  report_timer_.stop();
  output_.finish(monotonic_ms());
}

}  // namespace kai
