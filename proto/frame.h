// Frames on a stream: 4 bytes big-endian length, then that many bytes (one protobuf message). Hostile lengths cost
// nothing: a length over the limit is an error before a byte of the body is stored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace kai {

inline constexpr std::size_t kFrameHeaderBytes = 4;
/// Default limit of klp.md for one frame's body.
inline constexpr std::size_t kMaxFrameBytes = 1 << 20;
/// What rides on top of a payload of kMaxFrameBytes: the fields of the envelope.
inline constexpr std::size_t kEnvelopeOverheadBytes = 16 << 10;

/// Appends header and body to `out`.
void append_frame(std::string& out, std::string_view body);

/// Takes bytes in any pieces, gives whole frames. After an error the stream is out of step for good: close it.
class FrameDecoder {
 public:
  explicit FrameDecoder(std::size_t limit = kMaxFrameBytes) : limit_(limit) {}

  /// Adds bytes as they came.
  void feed(std::string_view bytes);
  /// The next whole frame's body; nullopt: more bytes are needed. The view holds until the next feed() or next().
  Result<std::optional<std::string_view>> next();
  /// Whether part of a frame is waiting: its sender owes the rest within a deadline.
  [[nodiscard]] bool mid_frame() const { return buffer_.size() > start_; }

 private:
  std::size_t limit_;
  std::string buffer_;
  std::size_t start_ = 0;  // of what next() has not given out yet
};

}  // namespace kai
