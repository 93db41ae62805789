// The read ends of an instance's standard output and error, on the loop: whatever comes goes into AgentOutput.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "supervisor/control/output.h"
#include "supervisor/loop/event_loop.h"

namespace kai {

class OutputPipes {
 public:
  OutputPipes(EventLoop& loop, Log& log, const std::string& agent, std::uint32_t lines_per_second);

  /// Makes the pipes. Gives what a spawn needs: standard input (/dev/null), output and error, and duplicates of the
  /// reading ends, for the keeper to keep: what is written while there is no control is not lost, and breaks no pipe.
  Result<std::vector<Fd>> open();
  /// Goes on with those that the keeper kept.
  Result<> adopt(Fd output, Fd error);
  /// A record by the SDK's log, out of the same budget.
  void log(LogLevel level, std::string_view message, std::string_view fields_json);
  /// Reads what is left and closes: the writers are dead.
  void finish();

 private:
  struct Pipe {
    AgentOutput::Stream stream = AgentOutput::Stream::kStdout;
    Fd fd;
    std::unique_ptr<Poll> poll;
  };
  Result<> begin(Pipe& pipe, Fd fd);
  bool read_some(Pipe& pipe);
  void arm_report();

  EventLoop& loop_;
  AgentOutput output_;
  std::array<Pipe, 2> pipes_;
  Timer report_timer_;
};

}  // namespace kai
