// The KLP channel to control: whole envelopes in and out of one stream socket, and out of the next one when control has
// died and was started again.
//
//   open ──end of file──► away ──replace()──► greeting ──release()──► open
//
// Away and greeting: of what is sent, what a new control can use is kept whole and in order (log records and events,
// up to kMaxKeptBytes); release() sends it. A frame that had gone out in part goes again whole: never does half of one
// reach a new socket.
#pragma once

#include <optional>
#include <string>

#include "agent-host/outbox.h"
#include "base/fd.h"
#include "base/result.h"
#include "proto/frame.h"
#include "proto/klp.pb.h"

namespace kai {

class KlpLink {
 public:
  explicit KlpLink(Fd socket);

  /// -1 while away.
  [[nodiscard]] int fd() const { return socket_.get(); }
  /// Control closed its end: it has died, or the keeper ended it.
  [[nodiscard]] bool away() const { return state_ == State::kAway; }
  /// What it sent is no KLP: nothing more is read or sent, for good.
  [[nodiscard]] bool broken() const { return state_ == State::kBroken; }

  /// Queues one envelope; flush() sends it.
  void send(const klp::Envelope& envelope);
  void flush();
  /// What waits for a control that is slow to read.
  [[nodiscard]] std::size_t queued() const { return unwritable_ ? 0 : outbox_.size(); }
  /// Waits up to kFlushMs for control to take what is queued: for last words.
  void flush_finally();

  /// Takes what has come, without waiting; false: nothing had, or there is nobody any more.
  bool receive();
  /// The next envelope of it.
  std::optional<klp::Envelope> next();

  /// `socket` takes the place of one whose control is gone, as `greeting` (Hello, or Resume) is the first to say.
  void replace(Fd socket, const klp::Envelope& greeting);
  /// Control has answered the greeting. Returns how many log records and events did not fit and are lost.
  std::uint64_t release();

 private:
  enum class State { kOpen, kAway, kGreeting, kBroken };
  static constexpr std::size_t kFrameLimit = kMaxFrameBytes + kEnvelopeOverheadBytes;

  void leave();
  void keep_frame(std::string_view frame);

  State state_ = State::kOpen;
  Fd socket_;
  std::optional<FrameDecoder> decoder_{kFrameLimit};  // always there; made anew to let go of a big buffer
  bool big_ = false;                                  // the decoder's buffer has grown
  Outbox outbox_;
  bool unwritable_ = false;  // EPIPE: what control had said before it went is still to be read
  std::string kept_;         // whole frames
  std::uint64_t lost_ = 0;   // frames that did not fit into it
};

}  // namespace kai
