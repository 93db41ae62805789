#include "agent-host/klp_link.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <utility>

#include "agent-host/limits.h"
#include "base/text.h"

namespace kai {
namespace {

std::string frame_of(const klp::Envelope& envelope) {
  std::string body;
  envelope.SerializeToString(&body);
  std::string frame;
  frame.reserve(kFrameHeaderBytes + body.size());
  append_frame(frame, body);
  return frame;
}

std::size_t frame_size(std::string_view bytes) {
  std::size_t body = 0;
  for (const char byte : bytes.substr(0, kFrameHeaderBytes)) body = body << 8 | static_cast<std::uint8_t>(byte);
  return kFrameHeaderBytes + body;
}

/// What a control can use that did not ask for it. Requests, answers and health reports are the old one's.
bool outlives_control(const klp::Envelope& envelope) {
  if (envelope.kind_case() == klp::Envelope::kLog) return true;
  klp::Message message;
  return envelope.kind_case() == klp::Envelope::kMessage && message.ParseFromString(envelope.message()) &&
         message.type() == klp::EVENT;
}

/// What has happened since the greeting said how far the agent is.
bool is_progress(const klp::Envelope& envelope) {
  const auto kind = envelope.kind_case();
  return kind == klp::Envelope::kRunnerHello || kind == klp::Envelope::kStarted || kind == klp::Envelope::kStartFailed;
}

}  // namespace

KlpLink::KlpLink(Fd socket) : socket_(std::move(socket)), outbox_(frame_size) {}

void KlpLink::send(const klp::Envelope& envelope) {
  switch (state_) {
    case State::kOpen:
      return outbox_.add(frame_of(envelope));
    case State::kGreeting:
      if (is_progress(envelope)) kept_ += frame_of(envelope);
      [[fallthrough]];
    case State::kAway:
      if (outlives_control(envelope)) keep_frame(frame_of(envelope));
      return;
    case State::kBroken:
      return;
  }
}

void KlpLink::flush() {
  if (state_ == State::kBroken || !socket_ || unwritable_) return;
  unwritable_ = !outbox_.flush(socket_.get());
}

void KlpLink::flush_finally() {
  const std::int64_t until = monotonic_ms() + kFlushMs;
  for (flush(); state_ != State::kBroken && queued() > 0; flush()) {
    const std::int64_t left = until - monotonic_ms();
    pollfd writable{socket_.get(), POLLOUT, 0};
    if (left <= 0 || poll(&writable, 1, static_cast<int>(left)) == 0) return;
  }
}

bool KlpLink::receive() {
  if (state_ == State::kBroken || !socket_) return false;
  std::array<char, kReadBytes> bytes;
  const ssize_t count = recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return false;
  if (count <= 0) {
    leave();
    return false;
  }
  decoder_->feed(std::string_view(bytes.data(), static_cast<std::size_t>(count)));
  return true;
}

std::optional<klp::Envelope> KlpLink::next() {
  if (state_ == State::kBroken) return std::nullopt;
  const auto frame = decoder_->next();
  if (!frame) {
    state_ = State::kBroken;
    return std::nullopt;
  }
  if (!*frame) {
    // A big frame's memory goes back when it has been dealt with.
    if (big_ && !decoder_->mid_frame()) {
      decoder_.emplace(kFrameLimit);
      big_ = false;
    }
    return std::nullopt;
  }
  big_ = big_ || (*frame)->size() > 4 * kReadBytes;
  std::optional<klp::Envelope> envelope(std::in_place);
  if (!envelope->ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size()))) {
    state_ = State::kBroken;
    return std::nullopt;
  }
  return envelope;
}

void KlpLink::leave() {
  state_ = State::kAway;
  socket_.reset();
  decoder_.emplace(kFrameLimit);
  big_ = false;
  unwritable_ = false;
  std::string waiting = outbox_.take_frames();
  waiting += std::exchange(kept_, {});
  FrameDecoder frames(kFrameLimit);
  frames.feed(waiting);
  for (auto frame = frames.next(); frame && *frame; frame = frames.next()) {
    klp::Envelope envelope;
    if (!envelope.ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size()))) continue;
    if (outlives_control(envelope)) keep_frame(frame_of(envelope));
  }
}

void KlpLink::keep_frame(std::string_view frame) {
  if (kept_.size() + frame.size() > kMaxKeptBytes) {
    ++lost_;
  } else {
    kept_ += frame;
  }
}

void KlpLink::replace(Fd socket, const klp::Envelope& greeting) {
  if (!away()) leave();
  socket_ = std::move(socket);
  state_ = State::kGreeting;
  outbox_.add(frame_of(greeting));
}

std::uint64_t KlpLink::release() {
  if (state_ != State::kGreeting) return 0;
  state_ = State::kOpen;
  outbox_.add(std::exchange(kept_, {}));
  return std::exchange(lost_, 0);
}

}  // namespace kai
