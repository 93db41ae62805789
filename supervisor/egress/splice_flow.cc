#include "supervisor/egress/splice_flow.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace kai::egress {
namespace {

constexpr unsigned kSplice = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;

}  // namespace

/// From socket to pipe. False: `step` says why not.
bool SpliceFlow::fill(Side& from, std::uint64_t most, Step& step) {
  auto pipe = pipes_.take();
  if (!pipe) {
    step.state = State::kBroken;
    step.fault = "egress could not make a pipe (" + pipe.error().message() + "): raise its limit of open files";
    return false;
  }
  const ssize_t got = splice(from.socket.get(), nullptr, pipe->write.get(), nullptr, most, kSplice);
  if (got > 0) {
    pipe_ = std::move(*pipe);
    held_ = static_cast<std::uint64_t>(got);
    step.bytes += held_;
    // It ends early where the socket is empty, or the pipe full: not with fewer bytes than places.
    if (held_ < pipe_.places && !from.hung_up) from.readable = false;
    return true;
  }
  const int error = errno;
  pipes_.give_back(std::move(*pipe));
  if (got == 0) {
    end_ = true;
    return true;
  }
  if (error == EAGAIN || error == EINTR) {
    from.readable = error == EINTR;
    return from.readable;
  }
  step.state = State::kBroken;
  step.broken = &from;
  return false;
}

/// From pipe to socket, all of it. False: `step` says why not.
bool SpliceFlow::drain(Side& to, Step& step) {
  while (held_ > 0) {
    if (!to.writable) return false;
    const ssize_t went = splice(pipe_.read.get(), nullptr, to.socket.get(), nullptr, held_, kSplice);
    if (went > 0) {
      held_ -= static_cast<std::uint64_t>(went);
    } else if (went < 0 && errno == EAGAIN) {
      to.writable = false;
    } else if (went == 0 || errno != EINTR) {
      step.state = State::kBroken;
      step.broken = &to;
      return false;
    }
  }
  if (pipe_.read) pipes_.give_back(std::move(pipe_));
  return true;
}

Flow::Step SpliceFlow::move(Side& from, Side& to, std::uint64_t most) {
  Step step;
  while (drain(to, step)) {
    if (end_) {
      step.state = State::kEnded;
      return step;
    }
    // What cannot be written is not read: nobody who stands still holds a pipe.
    if (!from.readable || !to.writable) return step;
    if (step.bytes >= most) {
      step.state = State::kMore;
      return step;
    }
    if (!fill(from, most - step.bytes, step)) return step;
  }
  return step;
}

}  // namespace kai::egress
