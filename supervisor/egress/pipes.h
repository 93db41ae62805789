// Pipes for splice(2), shared by all connections: one holds a pipe only while bytes of it are under way, so that a
// thousand idle connections hold none.
#pragma once

#include <cstddef>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace kai::egress {

struct Pipe {
  Fd read, write;
  std::size_t places = 0;  ///< each for one piece of a page at most, be it one byte long
};

class PipePool {
 public:
  static constexpr int kPipeBytes =
      256 << 10;  ///< F_SETPIPE_SZ; the kernel's default where the user's pages are used up
  static constexpr std::size_t kMaxSpare = 64;

  /// An empty one.
  Result<Pipe> take();
  /// Back, empty; one that is not empty is to be closed instead.
  void give_back(Pipe pipe);

 private:
  std::vector<Pipe> spare_;
};

}  // namespace kai::egress
