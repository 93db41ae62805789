// The KLP channel to control: whole envelopes in and out of one stream socket.
#pragma once

#include <optional>

#include "agent-host/outbox.h"
#include "base/fd.h"
#include "base/result.h"
#include "proto/frame.h"
#include "proto/klp.pb.h"

namespace kai {

class KlpLink {
 public:
  explicit KlpLink(Fd socket) : socket_(std::move(socket)) {}

  [[nodiscard]] int fd() const { return socket_.get(); }
  /// Control is gone, or what it sent is no KLP: nothing more is read or sent.
  [[nodiscard]] bool closed() const { return closed_; }

  /// Queues one envelope; flush() sends it.
  void send(const klp::Envelope& envelope);
  void flush();
  [[nodiscard]] std::size_t queued() const { return outbox_.size(); }
  /// Waits up to kFlushMs for control to take what is queued: for last words.
  void flush_finally();

  /// Takes what has come, without waiting.
  void receive();
  /// The next envelope of it.
  std::optional<klp::Envelope> next();

 private:
  static constexpr std::size_t kFrameLimit = kMaxFrameBytes + kEnvelopeOverheadBytes;

  Fd socket_;
  std::optional<FrameDecoder> decoder_{kFrameLimit};  // always there; made anew to let go of a big buffer
  bool big_ = false;                                  // the decoder's buffer has grown
  Outbox outbox_;
  bool closed_ = false;
};

}  // namespace kai
