// Connects to a Unix socket of the host. A child of the keeper does it: the file system that a path leads to may not
// answer, and the keeper waits for nobody.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "base/fd.h"
#include "base/result.h"

namespace kai::keeper {

class SocketProbe {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr auto kPatience = std::chrono::seconds(2);

  /// `path` is absolute. Links on the way to the socket are followed; the socket itself may not be one.
  static Result<SocketProbe> begin(const std::string& path);

  /// Never blocks. 0: somebody took the connection; else why not, as errno: ETIMEDOUT after kPatience. nullopt: not
  /// known yet.
  std::optional<int> outcome(Clock::time_point now);
  /// After outcome 0, once: the connection, non-blocking. Closed with this object otherwise.
  [[nodiscard]] Fd take_connection() { return std::move(connection_); }
  /// The child is no more. One that the kernel holds goes on for longer than its outcome is waited for.
  [[nodiscard]] bool gone() const { return !child_; }
  [[nodiscard]] const Fd& pidfd() const { return child_; }
  /// Nobody wants to know any more: the child, killed and still to be reaped.
  Fd end();

 private:
  SocketProbe(Fd child, Fd connection) : child_(std::move(child)), connection_(std::move(connection)) {}

  Fd child_;
  Fd connection_;  // the child's too: it is connected where that says so
  Clock::time_point deadline_ = Clock::now() + kPatience;
};

}  // namespace kai::keeper
