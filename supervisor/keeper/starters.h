// Starters: kai-agent-host processes that stand ready, freshly exec'd (own address layout, nothing of the keeper's
// memory) and already in their network namespace. Each makes one agent, as a child of the keeper, and exits.
#pragma once

#include <sys/types.h>

#include <deque>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace kai::keeper {

/// Descriptor numbers of a starter at its start.
inline constexpr int kStarterChannelFd = 3;

struct Starter {
  Fd channel;  ///< SOCK_SEQPACKET; proto/starter.proto
  Fd pidfd;
};

class Starters {
 public:
  static constexpr std::size_t kReady = 2;  ///< how many stand ready

  /// `program` is the path of kai-agent-host: opened once, so that every agent of this keeper runs the same file.
  static Result<Starters> open(const std::string& program, bool root);
  Starters(Starters&&) = default;
  Starters& operator=(Starters&&) = default;
  /// As end().
  ~Starters();

  /// A starter, the oldest that is ready, else a new one.
  Result<Starter> take();
  /// A new one that stays in the host's network namespace, for agents with the grant hostNetwork or unsandboxed.
  [[nodiscard]] Result<Starter> launch_in_host_network() const { return launch(true); }
  /// Makes the pool full again. Called when no start is under way, as making one costs a millisecond of cpu.
  Result<> refill();
  /// Ends those that stand ready, and waits until they are gone: kaid leaves nothing behind.
  void end();
  [[nodiscard]] bool full() const { return ready_.size() >= kReady; }

 private:
  Starters(Fd program, bool root) : program_(std::move(program)), root_(root) {}
  Result<Starter> launch(bool host_network = false) const;

  Fd program_;
  bool root_;
  std::deque<Starter> ready_;
};

}  // namespace kai::keeper
