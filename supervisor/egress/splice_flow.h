// A flow that looks at nothing: splice(2) from socket to pipe to socket, so that no byte is copied. Whoever does not
// read costs what one pipe holds, and the sender waits.
#pragma once

#include "supervisor/egress/flow.h"
#include "supervisor/egress/pipes.h"

namespace kai::egress {

class SpliceFlow final : public Flow {
 public:
  explicit SpliceFlow(PipePool& pipes) : pipes_(pipes) {}
  Step move(Side& from, Side& to, std::uint64_t most) override;

 private:
  bool fill(Side& from, std::uint64_t most, Step& step);
  bool drain(Side& to, Step& step);

  PipePool& pipes_;
  Pipe pipe_;               // valid while bytes are in it
  std::uint64_t held_ = 0;  // bytes in it
  bool end_ = false;        // `from` has ended
};

}  // namespace kai::egress
