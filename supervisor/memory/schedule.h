// Whose IndexedDB transaction may run: several READONLY at once, a READWRITE or VERSIONCHANGE alone, in the order in
// which they were asked for (a reader that came after a waiting writer waits, so that nobody starves). Pure: it knows
// no store and no time but what it is told. Others who share the file take a turn too: a deletion of a database as
// VERSIONCHANGE, and whoever writes keys and values as READONLY, as only an IndexedDB writer is in the way of those.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "proto/memory.pb.h"

namespace kai {

/// Of one agent, waiting and running together.
inline constexpr std::size_t kMaxIdbTransactions = 256;
/// A transaction that asked for nothing this long is aborted as soon as another has waited for it as long: a hung agent
/// does not block itself for ever.
inline constexpr std::int64_t kIdbIdleMs = 30'000;
/// One that is kept busy is aborted when another has waited this long: keys, shared readers and exports wait behind a
/// writer too.
inline constexpr std::int64_t kIdbBusyMs = 120'000;

class Schedule {
 public:
  using Ticket = std::uint64_t;  ///< the caller's own choice, never used twice

  /// Takes a place at the end of the queue. false: there are kMaxIdbTransactions already.
  bool ask(Ticket ticket, klp::IdbMode mode, std::int64_t now_ms);
  /// Those whose turn has come, first come first; from now on they run.
  std::vector<Ticket> start(std::int64_t now_ms);
  /// It asked for something, or was answered.
  void touch(Ticket ticket, std::int64_t now_ms);
  /// It is over, or no longer wants to run.
  void end(Ticket ticket);
  void clear();

  /// Those who run, have been idle or have run for too long and keep another waiting: to be aborted and ended.
  [[nodiscard]] std::vector<Ticket> overdue(std::int64_t now_ms) const;
  /// When overdue() may have the next one; nullopt: not before something else happens.
  [[nodiscard]] std::optional<std::int64_t> deadline() const;

  [[nodiscard]] bool idle() const { return waiting_.empty() && running_.empty(); }
  [[nodiscard]] bool runs(Ticket ticket) const { return running_.contains(ticket); }

 private:
  struct Waiting {
    Ticket ticket;
    bool writes;
    std::int64_t since_ms;
  };
  [[nodiscard]] bool has_turn(const Waiting& next) const;
  [[nodiscard]] std::int64_t patience_ends(std::int64_t used_ms) const;

  std::deque<Waiting> waiting_;
  std::map<Ticket, std::int64_t> running_;  // and when each was last used
  bool writer_ = false;                     // the only one that runs is a writer
};

}  // namespace kai
