// Whose turn it is to move bytes: turns go round among the connections of one agent, each of few bytes, so that one
// connection cannot starve another; and an agent has a budget in each round of the loop, so that its bulk does not
// stand before another agent's byte. Connections that find the agent's token bucket empty wait in line for one timer.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <memory>

#include "supervisor/egress/reactor.h"
#include "supervisor/egress/shaper.h"

namespace kai::egress {

enum class Way : std::uint8_t { kSent, kReceived };  ///< from the agent, to the agent

/// One direction of one connection, as something that has turns.
class Lane {
 public:
  explicit Lane(Way way) : way_(way) {}
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;
  virtual ~Lane() = default;

  struct Step {
    std::uint64_t bytes = 0;  ///< that were taken in
    std::uint64_t cost = 0;   ///< other work, as so many bytes
    bool more = false;        ///< it would go on at once; else somebody wakes it
  };
  /// Takes in at most `most` bytes; 0: what was taken in before may still go out.
  virtual Step move(std::uint64_t most) = 0;

 private:
  friend class Turns;
  const Way way_;
  std::list<Lane*>* line_ = nullptr;  // that it stands in, at place_
  std::list<Lane*>::iterator place_;
};

/// Of one agent.
class Turns {
 public:
  static constexpr std::uint64_t kTurnBytes = 256 << 10;
  static constexpr std::int64_t kRoundBytes = 256 << 10;
  static constexpr std::int64_t kTurnCost = 8 << 10;  ///< of a turn's system calls, whatever they move

  Turns(Reactor& reactor, std::uint64_t bytes_per_second);
  Turns(const Turns&) = delete;
  Turns& operator=(const Turns&) = delete;
  ~Turns() = default;
  void use(std::uint64_t bytes_per_second);

  /// The lane has something to do: now, if nobody waits before it, else when its turn comes.
  void wake(Lane& lane);
  /// It has no turns any more. A lane that is destroyed has to have left.
  void leave(Lane& lane);

 private:
  TokenBucket& bucket(const Lane& lane) { return buckets_[static_cast<std::size_t>(lane.way_)]; }
  std::list<Lane*>& waiting(const Lane& lane) { return waiting_[static_cast<std::size_t>(lane.way_)]; }
  bool budget_left();
  void join(std::list<Lane*>& line, Lane& lane);
  void give(Lane& lane);
  void serve();
  void serve_later();
  void arm();

  Reactor& reactor_;
  std::array<TokenBucket, 2> buckets_;
  std::array<std::list<Lane*>, 2> waiting_;  // for tokens of that way
  std::list<Lane*> ready_;                   // for the next round
  Reactor::Timer timer_;                     // armed while somebody waits for tokens
  std::uint64_t round_ = 0;
  std::int64_t budget_ = 0;  // bytes left in this round
  bool serve_later_ = false;
  std::shared_ptr<Turns*> self_;  // what serve_later() left with the reactor finds out by it that this is gone
};

}  // namespace kai::egress
