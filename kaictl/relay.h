// kaictl run, while the program runs: streams both ways, signals in, the end out.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "base/fd.h"
#include "kaictl/client.h"
#include "kaictl/terminal_filter.h"

namespace kai {

/// Our ends of the program's standard streams.
struct ProgramStreams {
  Fd input;   ///< written to
  Fd output;  ///< read from
  Fd error;
};

/// One direction: reads from `from` when nothing is pending, writes to `to` when it takes something.
class Flow {
 public:
  /// `escape`: `to` is a terminal, and what a program writes may not drive it.
  Flow(Fd from, Fd to, bool escape);

  [[nodiscard]] bool open() const { return from_.valid() || !pending_.empty(); }
  /// What poll(2) has to wait for; -1 and 0: nothing.
  [[nodiscard]] int poll_fd() const;
  [[nodiscard]] short poll_events() const;
  /// After poll(2) said so: one read, or one write that does not wait.
  void advance();
  /// At the program's end: what was written before it and is still in the pipe, and no more, since others may
  /// hold the pipe and go on writing for ever. Waits for `to`.
  void drain();
  void close();

 private:
  void take(std::string_view bytes);
  void end_of_input();

  Fd from_;
  Fd to_;
  std::string pending_;
  std::optional<TerminalFilter> filter_;
};

/// How a run ended.
struct RunEnd {
  int exit_code = 0;    ///< the program's, 128+N for a signal
  std::string message;  ///< why, where it was not the program's own doing; may be empty
};

/// Relays until the program ended. `signal_fd` is a signalfd; before the program was started a signal ends kaictl and
/// with it the run, later it is passed on. `start_limit` bounds the wait for the start, the run itself has no limit.
Outcome<RunEnd> relay(Client& client, std::uint64_t request_id, ProgramStreams streams, int signal_fd,
                      Milliseconds start_limit);

}  // namespace kai
