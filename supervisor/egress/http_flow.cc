#include "supervisor/egress/http_flow.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <utility>

namespace kai::egress {
namespace {

constexpr std::size_t kReadBytes = 64 << 10;

}  // namespace

void HttpFlow::check() {
  while (fault_.empty() && checked_ < bytes_.size()) {
    HttpRequests::Step step = requests_.take(std::string_view(bytes_).substr(checked_));
    checked_ += step.forward;
    fault_ = std::move(step.fault);
    if (step.forward == 0) return;
  }
}

/// False: `step` says why not.
bool HttpFlow::fill(Side& from, std::uint64_t most, Step& step) {
  std::array<char, kReadBytes> read;  // not initialised: what recv fills is all that is looked at
  const std::size_t room = std::min<std::uint64_t>(most, read.size());
  const ssize_t got = recv(from.socket.get(), read.data(), room, MSG_DONTWAIT);
  if (got > 0) {
    const auto size = static_cast<std::size_t>(got);
    bytes_.append(read.data(), size);
    step.bytes += size;
    if (size < room && !from.hung_up) from.readable = false;
    check();
    return true;
  }
  if (got == 0) {
    end_ = true;
    return true;
  }
  if (errno == EAGAIN || errno == EINTR) {
    from.readable = errno == EINTR;
    return from.readable;
  }
  step.state = State::kBroken;
  step.broken = &from;
  return false;
}

/// Everything that was checked. False: `step` says why not.
bool HttpFlow::drain(Side& to, Step& step) {
  std::size_t sent = 0;
  while (sent < checked_ && to.writable) {
    const ssize_t went = send(to.socket.get(), bytes_.data() + sent, checked_ - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (went >= 0) {
      sent += static_cast<std::size_t>(went);
    } else if (errno == EAGAIN) {
      to.writable = false;
    } else if (errno != EINTR) {
      step.state = State::kBroken;
      step.broken = &to;
      return false;
    }
  }
  bytes_.erase(0, sent);
  checked_ -= sent;
  if (bytes_.empty()) std::string().swap(bytes_);  // an idle connection holds no memory
  return checked_ == 0;
}

Flow::Step HttpFlow::look(Side& from) {
  Step step;
  while (checked_ == 0) {
    if (!fault_.empty()) {
      step.state = State::kBroken;
      step.fault = fault_;
      return step;
    }
    if (end_) {
      step.state = State::kEnded;
      return step;
    }
    if (!from.readable) return step;
    if (!fill(from, kReadBytes, step)) return step;
  }
  step.state = State::kMore;
  return step;
}

Flow::Step HttpFlow::move(Side& from, Side& to, std::uint64_t most) {
  Step step;
  while (drain(to, step)) {
    if (!fault_.empty()) {
      step.state = State::kBroken;
      step.fault = fault_;
      return step;
    }
    if (end_) {  // an unfinished head stays here
      step.state = State::kEnded;
      return step;
    }
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
