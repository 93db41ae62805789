#include "supervisor/egress/control_link.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "base/unix.h"

namespace kai::egress {
namespace {

constexpr std::size_t kMaxQueryBytes = 1024;

}  // namespace

Result<> ControlLink::use(Fd socket) {
  drop();
  if (auto done = set_nonblocking(socket.get()); !done) return done;
  auto watch = reactor_.watch(socket.get(), EPOLLIN | EPOLLOUT, [this](std::uint32_t) { on_ready(); });
  if (!watch) return tl::unexpected(watch.error());
  socket_ = std::move(socket);
  watch_ = std::move(*watch);
  flush();
  return {};
}

void ControlLink::drop() {
  watch_.stop();
  socket_.reset();
}

void ControlLink::tell(const Event& event) {
  if (waiting_.size() >= kMaxWaiting) {
    ++lost_;
    return;
  }
  waiting_.push_back(event.SerializeAsString());
  flush();
}

void ControlLink::flush() {
  while (socket_ && !waiting_.empty()) {
    if (auto sent = send_packet(socket_.get(), waiting_.front()); !sent) {
      const int why = sent.error().error_number;
      if (why == EAGAIN) return;
      const bool of_this_one = why == EMSGSIZE || why == ENOBUFS || why == ENOMEM;
      if (!of_this_one) return drop();
      ++lost_;  // nobody would bring another link as long as this process lives
    }
    waiting_.pop_front();
    if (!waiting_.empty() || lost_ == 0) continue;
    Event event;
    event.mutable_lost()->set_events(std::exchange(lost_, 0));
    waiting_.push_back(event.SerializeAsString());
  }
}

void ControlLink::on_ready() {
  flush();
  while (socket_) {
    auto packet = receive_packet(socket_.get(), kMaxQueryBytes, MSG_DONTWAIT);
    if (!packet && packet.error().error_number == EAGAIN) return;
    Query query;
    if (!packet || packet->bytes.empty() || !query.ParseFromString(packet->bytes)) return drop();
    on_query_(query);
  }
}

}  // namespace kai::egress
