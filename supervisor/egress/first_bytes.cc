#include "supervisor/egress/first_bytes.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <span>

#include "base/text.h"
#include "policies/domains.h"
#include "supervisor/egress/client_hello.h"

namespace kai::egress {
namespace {

/// recv(2) with MSG_PEEK: how many bytes; 0: `state` says why.
std::size_t peek(Side& agent, std::span<std::uint8_t> into, FirstBytes::State& state) {
  const ssize_t got = recv(agent.socket.get(), into.data(), into.size(), MSG_PEEK | MSG_DONTWAIT);
  if (got > 0) return static_cast<std::size_t>(got);
  agent.readable = false;
  state = got < 0 && (errno == EAGAIN || errno == EINTR) ? FirstBytes::State::kWaits : FirstBytes::State::kEnded;
  return 0;
}

std::string shown(const std::string& server_name) {
  constexpr std::size_t kLongestName = 255;  // RFC 1035 2.3.4
  return escape_for_terminal(clip_utf8(server_name, kLongestName));
}

std::string hello_fault(const ClientHello& hello, const std::string& name) {
  if (hello.state == ClientHello::State::kMalformed) {
    return std::string("only TLS is allowed here, and the ClientHello ") + hello.fault;
  }
  if (name.empty()) return {};
  if (hello.encrypted_inner) {
    return "the ClientHello is for " + shown(hello.server_name) +
           " and has encrypted_client_hello, which can hide another name: switch ECH off in the client";
  }
  if (hello.server_name.empty()) {
    return "the ClientHello has no server_name (SNI), so that nobody knows whether it is for " + name;
  }
  if (canonical_host(hello.server_name) == name) return {};
  return "the ClientHello is for " + shown(hello.server_name) + ", and the connection was made to " + name;
}

}  // namespace

Result<> keep_urgent_data_in_place(int socket) {
  constexpr int kOn = 1;
  if (setsockopt(socket, SOL_SOCKET, SO_OOBINLINE, &kOn, sizeof kOn) < 0) return errno_failure("setsockopt");
  return {};
}

FirstByte look_at_first_byte(Side& agent) {
  FirstByte first;
  if (peek(agent, {&first.byte, 1}, first.state) == 1) first.state = FirstBytes::State::kRight;
  return first;
}

FirstBytes look_at_hello(Side& agent, const std::string& name) {
  FirstBytes looked;
  std::array<std::uint8_t, kMaxHelloBytes> bytes;  // not initialised: what recv fills is all that is looked at
  looked.looked_at = peek(agent, bytes, looked.state);
  if (looked.looked_at == 0) return looked;
  const ClientHello hello = read_client_hello(std::span(bytes).first(looked.looked_at));
  if (hello.state == ClientHello::State::kIncomplete) {
    agent.readable = false;  // until there is more
    if (agent.hung_up) looked.state = FirstBytes::State::kEnded;
    return looked;
  }
  looked.reason = hello_fault(hello, name);
  looked.state = looked.reason.empty() ? FirstBytes::State::kRight : FirstBytes::State::kWrong;
  return looked;
}

}  // namespace kai::egress
