// The first message of a TLS connection (RFC 8446 4.1.2, RFC 6066 3): whom the client says it means. Pure; its input
// is hostile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace kai::egress {

/// No client needs more; post-quantum key shares bring a hello to some 2 KB.
inline constexpr std::size_t kMaxHelloBytes = 32 << 10;

struct ClientHello {
  enum class State {
    kIncomplete,  ///< more bytes are needed; never after kMaxHelloBytes
    kComplete,
    kMalformed,  ///< `fault` says why: not TLS, or a shape that no honest client sends
  };
  State state = State::kIncomplete;
  const char* fault = nullptr;   ///< completes "the ClientHello …"
  std::string server_name;       ///< the one host_name, as it was sent; empty: there is none
  bool encrypted_inner = false;  ///< extension encrypted_client_hello (RFC 9849): another name may be hidden inside
};

/// Of a connection's first bytes, from the first one on. The hello may be split over records.
ClientHello read_client_hello(std::span<const std::uint8_t> bytes);

}  // namespace kai::egress
