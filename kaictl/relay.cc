#include "kaictl/relay.h"

#include <fcntl.h>
#include <linux/limits.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>

#include "base/unix.h"

namespace kai {
namespace {

Fd duplicate(int fd) {
  return Fd(fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

bool again(int error_number) {
  return error_number == EAGAIN || error_number == EINTR;
}

}  // namespace

Flow::Flow(Fd from, Fd to, bool escape) : from_(std::move(from)), to_(std::move(to)) {
  if (escape) filter_.emplace();
  if (!from_) to_.reset();  // a closed standard input is an empty one
}

int Flow::poll_fd() const {
  return pending_.empty() ? from_.get() : to_.get();
}
short Flow::poll_events() const {
  return pending_.empty() ? POLLIN : POLLOUT;
}

void Flow::close() {
  from_.reset();
  to_.reset();
  pending_.clear();
}

void Flow::take(std::string_view bytes) {
  pending_ += filter_ ? filter_->feed(bytes) : std::string(bytes);
}

void Flow::end_of_input() {
  from_.reset();
  if (filter_) pending_ += filter_->finish();
  if (pending_.empty()) to_.reset();
}

void Flow::advance() {
  if (pending_.empty()) {
    std::array<char, 65536> buffer;
    const ssize_t count = read(from_.get(), buffer.data(), buffer.size());
    if (count > 0) {
      take({buffer.data(), static_cast<std::size_t>(count)});
    } else if (count == 0 || !again(errno)) {
      end_of_input();  // a terminal that is gone (EIO) is an end too
    }
    return;
  }
  // A pipe that poll(2) calls writable takes PIPE_BUF bytes without waiting (pipe(7)); it may be shared, so that it is
  // not ours to make non-blocking.
  const ssize_t count = write(to_.get(), pending_.data(), std::min<std::size_t>(pending_.size(), PIPE_BUF));
  if (count >= 0) {
    pending_.erase(0, static_cast<std::size_t>(count));
  } else if (!again(errno)) {
    close();  // nobody reads any more: the writer learns it the usual way, by SIGPIPE or EPIPE
  }
  if (pending_.empty() && !from_.valid()) to_.reset();
}

void Flow::drain() {
  const int capacity = from_.valid() ? fcntl(from_.get(), F_GETPIPE_SZ) : 0;
  if (from_.valid()) static_cast<void>(set_nonblocking(from_.get()));
  std::array<char, 65536> buffer;
  for (auto left = static_cast<std::size_t>(std::max(capacity, 0)); left > 0;) {
    const ssize_t count = read(from_.get(), buffer.data(), std::min(left, buffer.size()));
    if (count <= 0) break;
    take({buffer.data(), static_cast<std::size_t>(count)});
    left -= static_cast<std::size_t>(count);
  }
  if (filter_) pending_ += filter_->finish();
  if (to_.valid()) static_cast<void>(write_all(to_.get(), pending_));
  close();
}

namespace {

class Relay {
 public:
  Relay(Client& client, std::uint64_t request_id, ProgramStreams streams, int signal_fd, Milliseconds start_limit)
      : client_(client),
        request_id_(request_id),
        signal_fd_(signal_fd),
        start_limit_(start_limit),
        flows_{Flow(duplicate(STDIN_FILENO), std::move(streams.input), false),
               Flow(std::move(streams.output), duplicate(STDOUT_FILENO), isatty(STDOUT_FILENO) == 1),
               Flow(std::move(streams.error), duplicate(STDERR_FILENO), isatty(STDERR_FILENO) == 1)} {}

  Outcome<RunEnd> run();

 private:
  Outcome<> wait();
  Outcome<> take_responses();
  Outcome<> pass_signal();
  void apply(const control::RunExited& exited);

  Client& client_;
  std::uint64_t request_id_;
  int signal_fd_;
  Milliseconds start_limit_;
  std::array<Flow, 3> flows_;
  bool started_ = false;
  Clock::time_point deadline_ = Clock::now() + start_limit_;  // for the start
  std::optional<RunEnd> end_;
};

Outcome<RunEnd> Relay::run() {
  while (!end_) {
    if (!started_ && Clock::now() >= deadline_) {
      return fail("TIMEOUT", "kaid did not start the program within " + std::to_string(start_limit_.count()) + " ms",
                  "It may be busy or stuck: look at its log");
    }
    if (auto waited = wait(); !waited) return tl::unexpected(waited.error());
  }
  flows_[0].close();
  // Whoever reads our output may be slow; from here on a signal ends kaictl.
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  flows_[1].drain();
  flows_[2].drain();
  return *end_;
}

Outcome<> Relay::wait() {
  std::array<pollfd, 5> waiting = {{{client_.fd(), POLLIN, 0}, {signal_fd_, POLLIN, 0}}};
  for (std::size_t at = 0; at < flows_.size(); ++at) {
    // Nothing that the program says is shown before kaid's word that it runs: whoever reads it may answer with a
    // signal.
    const bool flowing = started_ && flows_[at].open();
    waiting[at + 2] = {flowing ? flows_[at].poll_fd() : -1, flows_[at].poll_events(), 0};
  }
  const auto left = std::chrono::ceil<Milliseconds>(deadline_ - Clock::now()).count();
  if (poll(waiting.data(), waiting.size(), started_ ? -1 : static_cast<int>(std::max<std::int64_t>(left, 0))) < 0) {
    return {};  // EINTR
  }
  // kaid's word first: a signal that comes after the program was started is the program's.
  if (waiting[0].revents != 0) {
    if (auto taken = take_responses(); !taken || end_) return taken;
  }
  if (waiting[1].revents != 0) {
    if (auto passed = pass_signal(); !passed || end_) return passed;
  }
  for (std::size_t at = 0; at < flows_.size(); ++at) {
    if (waiting[at + 2].revents != 0) flows_[at].advance();
  }
  return {};
}

Outcome<> Relay::take_responses() {
  for (;;) {
    auto taken = client_.take();
    if (!taken) return tl::unexpected(taken.error());
    if (!*taken) return {};
    const control::Response& response = **taken;
    if (response.id() != request_id_ && response.has_failed()) continue;  // a signal that came after the program's end
    if (response.has_failed()) return tl::unexpected(failure_of(response.failed()));
    if (response.has_run_started()) started_ = true;
    if (response.has_progress()) deadline_ = Clock::now() + start_limit_;
    if (response.has_run_exited()) {
      apply(response.run_exited());
      return {};
    }
  }
}

void Relay::apply(const control::RunExited& exited) {
  end_ = RunEnd{exited.signaled() ? 128 + exited.code() : exited.code(), exited.message()};
}

Outcome<> Relay::pass_signal() {
  signalfd_siginfo info{};
  if (read(signal_fd_, &info, sizeof info) != sizeof info) return {};
  const auto number = static_cast<int>(info.ssi_signo);
  if (!started_) {
    // kaid ends the run when its connection closes.
    end_ = RunEnd{128 + number, ""};
    return {};
  }
  control::Request request;
  request.set_id(request_id_ + 1);
  request.mutable_signal()->set_number(number);
  return client_.send(request, {}, Clock::now() + kGraceTime);
}

}  // namespace

Outcome<RunEnd> relay(Client& client, std::uint64_t request_id, ProgramStreams streams, int signal_fd,
                      Milliseconds start_limit) {
  return Relay(client, request_id, std::move(streams), signal_fd, start_limit).run();
}

}  // namespace kai
