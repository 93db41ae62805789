// Bytes on their way from one socket to the other: what one direction of a connection does with its turns.
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "supervisor/egress/reactor.h"

namespace kai::egress {

/// One of a connection's two sockets, and what its edge-triggered watch last said. What is true may have become false;
/// only EAGAIN tells.
struct Side {
  Fd socket;
  Reactor::Watch watch;
  bool readable = true, writable = true;
  bool hung_up = false;  ///< its peer sends nothing more (EPOLLRDHUP) or is gone: read on until its end
};

class Flow {
 public:
  Flow() = default;
  Flow(const Flow&) = delete;
  Flow& operator=(const Flow&) = delete;
  virtual ~Flow() = default;

  enum class State {
    kWaits,   ///< for `from` to be readable or `to` to be writable
    kMore,    ///< `most` has been reached
    kEnded,   ///< `from` has ended, and everything before was passed on
    kBroken,  ///< see Step::broken; nothing more will pass
  };
  struct Step {
    State state = State::kWaits;
    std::uint64_t bytes = 0;       ///< read
    const Side* broken = nullptr;  ///< whose peer reset the connection; nullptr: `fault` says what is wrong
    std::string fault;
  };
  /// Moves until something is missing, or `most` bytes were read.
  virtual Step move(Side& from, Side& to, std::uint64_t most) = 0;
};

}  // namespace kai::egress
