// Frames (proto/frame.h) over a non-blocking AF_UNIX stream socket: kaictl's connections and the agents' KLP channels.
// Whoever is at the other end may be hostile: what it can make us hold is bounded in bytes, messages and time.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "proto/frame.h"
#include "supervisor/loop/event_loop.h"

namespace kai {

struct StreamLimits {
  std::size_t frame_bytes = kMaxFrameBytes + kEnvelopeOverheadBytes;
  std::size_t queue_bytes = 8U << 20;  ///< written by us, not yet read by the peer
  std::size_t queue_messages = 1024;
  std::size_t descriptors = 0;                       ///< waiting to be taken; 0: the kernel drops what is sent
  std::chrono::milliseconds frame_deadline{10'000};  ///< from a frame's first byte to its last
  std::chrono::milliseconds write_deadline{30'000};  ///< without a byte read by the peer while some wait
};

class FrameStream {
 public:
  struct Handlers {
    /// The body holds during the call. The stream may be destroyed in it.
    std::function<void(std::string_view body)> frame;
    /// Once, and the last call. `by_peer`: it closed or died; else it broke a limit.
    std::function<void(const std::string& reason, bool by_peer)> closed;
    /// Everything queued is written. May be absent.
    std::function<void()> drained;
  };

  FrameStream(EventLoop& loop, Fd socket, const StreamLimits& limits, Handlers handlers);
  ~FrameStream();
  FrameStream(const FrameStream&) = delete;
  FrameStream& operator=(const FrameStream&) = delete;

  /// Queues one frame; everything queued in one round of the loop goes out in one write. A full queue closes the
  /// stream.
  void send(std::string_view body);
  /// Closes once everything queued is written; nothing more is read.
  void finish();
  /// Closes now; `closed` is not called.
  void close();
  /// Reads what the socket holds, to its end: for a peer that is known to have died. Not from within a handler, and its
  /// handlers must not destroy the stream.
  void drain();

  /// Descriptors that came with the frames so far, in order; the caller owns them from now on.
  std::vector<Fd> take_descriptors() { return std::exchange(descriptors_, {}); }
  [[nodiscard]] bool open() const { return socket_.valid(); }
  [[nodiscard]] std::size_t queued_bytes() const { return out_.size() - out_start_; }
  [[nodiscard]] std::size_t queued_messages() const { return out_frames_.size(); }
  [[nodiscard]] int fd() const { return socket_.get(); }

 private:
  enum class Read {
    kNothing,  // no more now, or the stream is closed or destroyed
    kSome,
    kFull,  // as much as there was room for: there may be more
  };
  Read read_some();
  bool deliver_frames();
  ssize_t receive();
  void flush();
  void written(std::size_t count);
  void fail(const std::string& reason, bool by_peer = false);
  void watch();

  EventLoop& loop_;
  Fd socket_;
  StreamLimits limits_;
  std::shared_ptr<const Handlers> handlers_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  FrameDecoder decoder_;
  std::vector<Fd> descriptors_;
  std::string out_;
  std::size_t out_start_ = 0;
  std::deque<std::size_t> out_frames_;  // sizes of the frames in out_, the first one perhaps partly written
  std::size_t first_frame_written_ = 0;
  bool flush_deferred_ = false;
  bool blocked_ = false;
  bool finishing_ = false;
  Timer frame_timer_, write_timer_;
  std::unique_ptr<Poll> poll_;  // last: it stops before the socket closes
};

}  // namespace kai
