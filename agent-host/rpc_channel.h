// Descriptor 3 from the other side: whole lines in and out of the runner's socket. A program without the runner
// protocol has a channel that was never open.
#pragma once

#include <optional>
#include <string_view>

#include "agent-host/json_rpc.h"
#include "agent-host/outbox.h"
#include "base/fd.h"

namespace kai {

class RpcChannel {
 public:
  explicit RpcChannel(Fd socket) : socket_(std::move(socket)) {}

  [[nodiscard]] int fd() const { return socket_.get(); }
  [[nodiscard]] bool open() const { return socket_.valid(); }
  /// The runner closed its end.
  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] bool overlong() const { return decoder_.overlong(); }

  /// Queues a line if it stays within `limit` queued bytes; flush() sends it. False: it was not taken.
  bool send(std::string_view line, std::size_t limit);
  void flush();
  [[nodiscard]] std::size_t queued() const { return outbox_.size(); }
  /// The runner sees the end of its input; its answers are still read.
  void finish_sending();

  /// Takes what has come, without waiting; false: there was nothing.
  bool receive();
  std::optional<std::string_view> next() { return decoder_.next(); }

 private:
  Fd socket_;
  LineDecoder decoder_;
  Outbox outbox_;
  bool ended_ = false;
};

}  // namespace kai
