// The first bytes of a connection: any, as they come one segment after the other. What was decided once stays decided,
// and a name is one that a host can have.
#include "supervisor/egress/client_hello.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace {

using kai::egress::ClientHello;

void require(bool holds) {
  if (!holds) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::span<const std::uint8_t> bytes(data + 1, size - 1);
  const std::size_t piece = 1 + data[0];  // the first byte says how large the segments are
  ClientHello before;
  for (std::size_t end = 0;; end = std::min(end + piece, bytes.size())) {
    ClientHello hello = kai::egress::read_client_hello(bytes.first(end));
    require((hello.state == ClientHello::State::kMalformed) == (hello.fault != nullptr));
    require(hello.state != ClientHello::State::kIncomplete || end < kai::egress::kMaxHelloBytes);
    require(hello.state == ClientHello::State::kComplete || (hello.server_name.empty() && !hello.encrypted_inner));
    require(hello.server_name.size() <= 255);
    require(std::all_of(hello.server_name.begin(), hello.server_name.end(),
                        [](char byte) { return byte > 0x20 && byte < 0x7f; }));
    if (before.state != ClientHello::State::kIncomplete) {
      require(hello.state == before.state && hello.server_name == before.server_name);
    }
    before = std::move(hello);
    if (end == bytes.size()) return 0;
  }
}
