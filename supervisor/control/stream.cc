#include "supervisor/control/stream.h"

#include <sys/socket.h>

#include <cstring>

#include "base/unix.h"

namespace kai {
namespace {

// A peer that never stops sending gives way to the others after this many reads.
constexpr int kReadsPerRound = 4;
// Written bytes are cut off the front of the queue only when they are worth a copy.
constexpr std::size_t kCompactBytes = 256 << 10;

}  // namespace

FrameStream::FrameStream(EventLoop& loop, Fd socket, const StreamLimits& limits, Handlers handlers)
    : loop_(loop),
      socket_(std::move(socket)),
      limits_(limits),
      handlers_(std::make_shared<const Handlers>(std::move(handlers))),
      decoder_(limits.frame_bytes),
      frame_timer_(loop),
      write_timer_(loop) {
  static_cast<void>(set_nonblocking(socket_.get()));
  poll_ = std::make_unique<Poll>(loop_, socket_.get(), [this](int ready) {
    const auto alive = alive_;
    if ((ready & UV_WRITABLE) != 0) flush();
    if (!*alive || !open() || (ready & UV_READABLE) == 0) return;
    for (int reads = 0; reads < kReadsPerRound; ++reads) {
      if (read_some() != Read::kFull) return;
    }
  });
  watch();
}

FrameStream::~FrameStream() {
  *alive_ = false;
  close();
}

void FrameStream::watch() {
  if (!open()) return;
  poll_->watch((finishing_ ? 0 : UV_READABLE) | (blocked_ ? UV_WRITABLE : 0));
}

void FrameStream::close() {
  poll_.reset();
  frame_timer_.stop();
  write_timer_.stop();
  socket_.reset();
  descriptors_.clear();
}

void FrameStream::fail(const std::string& reason, bool by_peer) {
  if (!open()) return;
  close();
  const auto handlers = handlers_;
  if (handlers->closed) handlers->closed(reason, by_peer);
}

FrameStream::Read FrameStream::read_some() {
  const ssize_t count = receive();
  if (count < 0) {
    if (errno == EINTR) return Read::kFull;
    if (errno != EAGAIN) fail(std::string("receiving failed: ") + std::strerror(errno), true);
    return Read::kNothing;
  }
  if (count == 0) {
    fail(decoder_.mid_frame() ? "the other side closed the connection in the middle of a message"
                              : "the other side closed the connection",
         true);
    return Read::kNothing;
  }
  if (limits_.descriptors > 0 && descriptors_.size() > limits_.descriptors) {
    fail("more than " + std::to_string(limits_.descriptors) + " descriptors sent");
    return Read::kNothing;
  }
  decoder_.feed({loop_.scratch().data(), static_cast<std::size_t>(count)});
  if (!deliver_frames()) return Read::kNothing;
  return static_cast<std::size_t>(count) == loop_.scratch().size() ? Read::kFull : Read::kSome;
}

ssize_t FrameStream::receive() {
  auto& buffer = loop_.scratch();
  if (limits_.descriptors == 0) return recv(socket_.get(), buffer.data(), buffer.size(), 0);
  iovec iov{buffer.data(), buffer.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxPacketFds)> control;
  msghdr message{};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t count = recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
  if (count < 0) return count;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t at = CMSG_LEN(0); at + sizeof(int) <= header->cmsg_len; at += sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + (at - CMSG_LEN(0)), sizeof fd);
      descriptors_.emplace_back(fd);
    }
  }
  return count;
}

bool FrameStream::deliver_frames() {
  const auto alive = alive_;
  const auto handlers = handlers_;
  bool completed = false;
  for (;;) {
    const auto frame = decoder_.next();
    if (!frame) {
      fail("broken framing: " + frame.error().context);
      return false;
    }
    if (!*frame) break;
    completed = true;
    handlers->frame(**frame);
    if (!*alive || !open()) return false;
    if (finishing_) return false;
  }
  if (!decoder_.mid_frame()) {
    frame_timer_.stop();
  } else if (completed || !frame_timer_.active()) {
    frame_timer_.start(limits_.frame_deadline, [this] {
      fail("a message was not complete " + std::to_string(limits_.frame_deadline.count()) + " ms after its first byte");
    });
  }
  return true;
}

void FrameStream::send(std::string_view body) {
  if (!open() || finishing_) return;
  if (out_frames_.size() >= limits_.queue_messages || queued_bytes() + body.size() > limits_.queue_bytes) {
    fail("it does not read: " + std::to_string(queued_bytes()) + " bytes in " + std::to_string(out_frames_.size()) +
         " messages wait for it");
    return;
  }
  append_frame(out_, body);
  out_frames_.push_back(kFrameHeaderBytes + body.size());
  if (flush_deferred_ || blocked_) return;
  flush_deferred_ = true;
  loop_.defer([this, alive = alive_] {
    if (!*alive) return;
    flush_deferred_ = false;
    flush();
  });
}

void FrameStream::flush() {
  if (!open()) return;
  while (queued_bytes() > 0) {
    const ssize_t count = ::send(socket_.get(), out_.data() + out_start_, queued_bytes(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) {
      if (!write_timer_.active()) {
        write_timer_.start(limits_.write_deadline, [this] {
          fail("it did not read for " + std::to_string(limits_.write_deadline.count()) + " ms");
        });
      }
      blocked_ = true;
      watch();
      return;
    }
    if (count < 0) {
      // What the peer said before it closed is still there to be read; the end is reported by reading.
      if (errno == EPIPE && !finishing_) {
        out_.clear();
        out_start_ = 0;
        out_frames_.clear();
        break;
      }
      fail(std::string("sending failed: ") + std::strerror(errno), true);
      return;
    }
    written(static_cast<std::size_t>(count));
  }
  write_timer_.stop();
  blocked_ = false;
  if (finishing_) {
    fail("finished", true);
    return;
  }
  watch();
  const auto handlers = handlers_;
  if (handlers->drained) handlers->drained();
}

void FrameStream::written(std::size_t count) {
  write_timer_.stop();
  out_start_ += count;
  first_frame_written_ += count;
  while (!out_frames_.empty() && first_frame_written_ >= out_frames_.front()) {
    first_frame_written_ -= out_frames_.front();
    out_frames_.pop_front();
  }
  if (out_start_ == out_.size()) {
    out_.clear();
    out_start_ = 0;
  } else if (out_start_ >= kCompactBytes) {
    out_.erase(0, out_start_);
    out_start_ = 0;
  }
}

void FrameStream::finish() {
  if (!open() || finishing_) return;
  frame_timer_.stop();
  flush_deferred_ = true;  // no further flush is queued beside this one
  finishing_ = true;
  loop_.defer([this, alive = alive_] {
    if (*alive) flush();
  });
}

void FrameStream::drain() {
  while (open() && read_some() != Read::kNothing) {
  }
}

}  // namespace kai
