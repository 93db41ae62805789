// Bytes on their way into a stream socket whose other end may be slow or hostile. Never blocks; its owner holds its
// size to a limit before adding (agent-host/limits.h).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace kai {

class Outbox {
 public:
  /// The bytes of the whole frame at the beginning of `bytes`.
  using FrameSize = std::size_t (*)(std::string_view bytes);

  Outbox() = default;
  /// Of frames, each added whole: take_frames() gives back those that were not sent to their end.
  explicit Outbox(FrameSize frame_size) : frame_size_(frame_size) {}

  void add(std::string_view bytes);
  /// Sends what the socket takes now. False: the other end is gone.
  bool flush(int socket);
  /// What waits.
  [[nodiscard]] std::size_t size() const { return buffer_.size() - start_; }
  [[nodiscard]] bool empty() const { return size() == 0; }
  void clear();
  /// What waits, from the beginning of a frame of which a part was sent. Nothing waits any more.
  std::string take_frames();

 private:
  void find_frame();

  FrameSize frame_size_ = nullptr;
  std::string buffer_;
  std::size_t start_ = 0;  // sent already
  std::size_t frame_ = 0;  // where the first frame begins that was not sent to its end; without frames: start_
};

}  // namespace kai
