// The channel to the keeper, after the start: how an agent-host whose control died comes to the next one.
#pragma once

#include <optional>

#include "base/fd.h"

namespace kai {

class KeeperLink {
 public:
  /// `socket` is the SOCK_SEQPACKET pair's end that the starter had; an invalid one has ended.
  explicit KeeperLink(Fd socket) : socket_(std::move(socket)) {}

  /// -1 once it has ended.
  [[nodiscard]] int fd() const { return socket_.get(); }
  /// The keeper is gone.
  [[nodiscard]] bool ended() const { return !socket_.valid(); }

  /// Takes one packet, without waiting. The new KLP socket, if it is a starter.Reconnect with exactly that; whatever
  /// else comes is dropped, with its descriptors. `hung_up`: poll(2) said that the other end is closed.
  std::optional<Fd> receive(bool hung_up);

 private:
  Fd socket_;
};

/// Frees the agent's processes whose refused system call a dead control was asked about (proto/reserved_call.h). In a
/// child process: the call waits for the new control, which may itself die.
void answer_lost_calls();

}  // namespace kai
