// The frame codec against hostile streams: any bytes, cut anywhere. What it gives out must frame back to what came in.
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "proto/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view stream(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::size_t piece = 1 + data[0] % 64;  // the first byte says how the stream is cut
  constexpr std::size_t kLimit = 4096;
  kai::FrameDecoder decoder(kLimit);
  std::string again;
  for (std::size_t at = 0; at < stream.size(); at += piece) {
    decoder.feed(stream.substr(at, piece));
    for (;;) {
      auto frame = decoder.next();
      if (!frame) return 0;  // out of step: the connection is closed
      if (!*frame) break;
      if ((*frame)->size() > kLimit) __builtin_trap();
      kai::append_frame(again, **frame);
    }
  }
  if (stream.substr(0, again.size()) != again) __builtin_trap();
  if (decoder.mid_frame() != (again.size() < stream.size())) __builtin_trap();
  return 0;
}
