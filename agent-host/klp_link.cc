#include "agent-host/klp_link.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "agent-host/limits.h"
#include "base/text.h"

namespace kai {

void KlpLink::send(const klp::Envelope& envelope) {
  if (closed_) return;
  std::string body;
  envelope.SerializeToString(&body);
  std::string frame;
  frame.reserve(kFrameHeaderBytes + body.size());
  append_frame(frame, body);
  outbox_.add(frame);
}

void KlpLink::flush() {
  if (!closed_ && !outbox_.flush(socket_.get())) closed_ = true;
}

void KlpLink::flush_finally() {
  const std::int64_t until = monotonic_ms() + kFlushMs;
  for (flush(); !closed_ && !outbox_.empty(); flush()) {
    const std::int64_t left = until - monotonic_ms();
    pollfd writable{socket_.get(), POLLOUT, 0};
    if (left <= 0 || poll(&writable, 1, static_cast<int>(left)) == 0) return;
  }
}

void KlpLink::receive() {
  if (closed_) return;
  std::array<char, kReadBytes> bytes;
  const ssize_t count = recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
  if (count <= 0) {
    closed_ = true;
    return;
  }
  decoder_->feed(std::string_view(bytes.data(), static_cast<std::size_t>(count)));
}

std::optional<klp::Envelope> KlpLink::next() {
  if (closed_) return std::nullopt;
  const auto frame = decoder_->next();
  if (!frame) {
    closed_ = true;
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
    closed_ = true;
    return std::nullopt;
  }
  return envelope;
}

}  // namespace kai
