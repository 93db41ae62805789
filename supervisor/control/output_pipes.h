// The read ends of an instance's standard output and error, on the loop: whatever comes goes into AgentOutput.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "supervisor/control/event_loop.h"
#include "supervisor/control/output.h"

namespace kai {

class OutputPipes {
 public:
  OutputPipes(EventLoop& loop, Log& log, const std::string& agent, std::uint32_t lines_per_second);

  /// Makes the pipes. Gives what a spawn needs as standard input (/dev/null), output and error.
  Result<std::vector<Fd>> open();
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
  bool read_some(Pipe& pipe);
  void arm_report();

  EventLoop& loop_;
  AgentOutput output_;
  std::array<Pipe, 2> pipes_;
  Timer report_timer_;
};

}  // namespace kai
