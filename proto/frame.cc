#include "proto/frame.h"

namespace kai {

void append_frame(std::string& out, std::string_view body) {
  const auto length = static_cast<std::uint32_t>(body.size());
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(static_cast<std::uint8_t>(length >> shift));
  out += body;
}

void FrameDecoder::feed(std::string_view bytes) {
  if (start_ > 0) {
    buffer_.erase(0, start_);
    start_ = 0;
  }
  buffer_ += bytes;
}

Result<std::optional<std::string_view>> FrameDecoder::next() {
  const std::string_view rest = std::string_view(buffer_).substr(start_);
  if (rest.size() < kFrameHeaderBytes) return std::nullopt;
  std::size_t length = 0;
  for (std::size_t at = 0; at < kFrameHeaderBytes; ++at) length = length << 8 | static_cast<std::uint8_t>(rest[at]);
  if (length > limit_) {
    return failure("frame",
                   std::to_string(length) + " bytes announced, at most " + std::to_string(limit_) + " allowed");
  }
  if (rest.size() < kFrameHeaderBytes + length) return std::nullopt;
  start_ += kFrameHeaderBytes + length;
  return rest.substr(kFrameHeaderBytes, length);
}

}  // namespace kai
