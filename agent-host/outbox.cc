#include "agent-host/outbox.h"

#include <sys/socket.h>

#include <cerrno>

#include "agent-host/limits.h"

namespace kai {

void Outbox::add(std::string_view bytes) {
  // Sent bytes go before the buffer grows, and only when they are most of it: each byte is moved at most once.
  if (frame_ > buffer_.size() / 2) {
    buffer_.erase(0, frame_);
    start_ -= frame_;
    frame_ = 0;
  }
  buffer_ += bytes;
}

bool Outbox::flush(int socket) {
  while (!empty()) {
    const ssize_t count = send(socket, buffer_.data() + start_, size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const bool full = errno == EAGAIN || errno == EWOULDBLOCK;
      find_frame();
      return full;
    }
    start_ += static_cast<std::size_t>(count);
  }
  clear();
  return true;
}

void Outbox::find_frame() {
  if (frame_size_ == nullptr) {
    frame_ = start_;
    return;
  }
  const std::string_view bytes(buffer_);
  for (std::size_t end = frame_; end <= start_; end = frame_ + frame_size_(bytes.substr(frame_))) frame_ = end;
}

void Outbox::clear() {
  start_ = frame_ = 0;
  buffer_.clear();
  if (buffer_.capacity() > 4 * kReadBytes) std::string().swap(buffer_);  // an assignment would keep the capacity
}

std::string Outbox::take_frames() {
  find_frame();
  std::string frames = buffer_.substr(frame_);
  clear();
  return frames;
}

}  // namespace kai
