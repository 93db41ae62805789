// What an agent says first on a connection whose protocol has to be checked. It is looked at where it lies in the
// socket, before anything is dialled: nothing reaches a server before.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "supervisor/egress/flow.h"

namespace kai::egress {

/// TLS is known by its first byte (RFC 8446 5.1: a record of type handshake); no HTTP request begins with it.
inline constexpr std::uint8_t kTlsHandshake = 22;

struct FirstBytes {
  enum class State {
    kWaits,
    kRight,
    kWrong,  ///< `reason`
    kEnded,  ///< the agent closed or reset the connection before it had said enough
  };
  State state = State::kWaits;
  std::size_t looked_at = 0;
  std::string reason;
};

/// Before the first look: a byte that was urgent when it was looked at, and so left out, could be ordinary when the
/// rest is passed on, and the server would read another hello (SO_OOBINLINE).
Result<> keep_urgent_data_in_place(int socket);

/// The first byte alone: kRight with it.
struct FirstByte {
  FirstBytes::State state = FirstBytes::State::kWaits;
  std::uint8_t byte = 0;
};
FirstByte look_at_first_byte(Side& agent);

/// Whether a ClientHello comes whose server_name is `name`. Empty: the agent named an address, and with it nothing but
/// the shape of the hello is checked: RFC 6066 has no address as server_name.
FirstBytes look_at_hello(Side& agent, const std::string& name);

}  // namespace kai::egress
