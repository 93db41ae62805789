#include "agent-host/outbox.h"

#include <sys/socket.h>

#include <cerrno>

#include "agent-host/limits.h"

namespace kai {

void Outbox::add(std::string_view bytes) {
  // Sent bytes go before the buffer grows, and only when they are most of it: each byte is moved at most once.
  if (start_ > buffer_.size() / 2) {
    buffer_.erase(0, start_);
    start_ = 0;
  }
  buffer_ += bytes;
}

bool Outbox::flush(int socket) {
  while (!empty()) {
    const ssize_t count = send(socket, buffer_.data() + start_, size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
    if (count < 0) {
      buffer_.clear();
      start_ = 0;
      return false;
    }
    start_ += static_cast<std::size_t>(count);
  }
  start_ = 0;
  buffer_.clear();
  if (buffer_.capacity() > 4 * kReadBytes) std::string().swap(buffer_);  // an assignment would keep the capacity
  return true;
}

}  // namespace kai
