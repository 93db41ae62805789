#include "agent-host/rpc_channel.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "agent-host/limits.h"

namespace kai {

bool RpcChannel::send(std::string_view line, std::size_t limit) {
  if (!open()) return false;
  if (outbox_.size() + line.size() > limit) return false;
  outbox_.add(line);
  return true;
}

void RpcChannel::flush() {
  // A runner that is gone is noticed by its end of stream and its exit.
  if (open() && !outbox_.empty() && !outbox_.flush(socket_.get())) outbox_.clear();
}

void RpcChannel::finish_sending() {
  flush();
  if (open()) shutdown(socket_.get(), SHUT_WR);
}

bool RpcChannel::receive() {
  if (!open() || ended_) return false;
  std::array<char, kReadBytes> bytes;
  const ssize_t count = recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return false;
  if (count <= 0) {
    ended_ = true;
    return false;
  }
  decoder_.feed(std::string_view(bytes.data(), static_cast<std::size_t>(count)));
  return true;
}

}  // namespace kai
