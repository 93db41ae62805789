// What a message costs at the least: the same number of hops between processes, over bare socketpairs.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace kai::bench {

/// A line of processes: this one, relays, and at the end an echo. A message of N bytes goes down and comes back.
class RawChain {
 public:
  /// `processes` beside this one: a round trip has 2 × processes hops.
  static Result<RawChain> make(int processes, std::size_t message_bytes);
  RawChain(RawChain&&) = default;
  RawChain& operator=(RawChain&&) = delete;
  ~RawChain();

  /// One round trip; microseconds.
  Result<double> round_trip();

 private:
  RawChain(Fd socket, std::vector<pid_t> children, std::size_t bytes)
      : socket_(std::move(socket)), children_(std::move(children)), buffer_(bytes, 'x') {}

  Fd socket_;
  std::vector<pid_t> children_;
  std::string buffer_;
};

}  // namespace kai::bench
