// What Landlock refused, as the kernel's audit tells it (Linux 6.15; root with CAP_AUDIT_READ; only while audit is
// enabled on the host, which kaid leaves to the operator).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "supervisor/keeper/audit_record.h"

namespace kai::keeper {

/// One refusal.
struct LandlockDenial {
  pid_t agent = 0;                 ///< who made the domain: the first process of an agent's sandbox; 0: not known
  std::string access, path, comm;  ///< raw bytes
  pid_t pid = 0;                   ///< who was refused, on the host; 0: not told
};

class KernelAudit {
 public:
  using Clock = std::chrono::steady_clock;
  /// How many records are read a second; what comes beyond waits, and is lost when the socket is full: a flood costs
  /// the keeper no more than this.
  static constexpr int kRecordsPerSecond = 2000;

  /// `socket`: non-blocking, one record a packet.
  explicit KernelAudit(Fd socket) : socket_(std::move(socket)) {}
  /// Subscribes to the multicast group of audit, with a filter that lets only the needed types pass.
  static Result<KernelAudit> open();

  [[nodiscard]] int fd() const { return socket_.get(); }
  /// Reads what is there, as far as this second's share goes. The records of one event come one after another: a denial
  /// is given out when all of it is known, or by `take_overdue`.
  std::vector<LandlockDenial> read(Clock::time_point now);
  std::vector<LandlockDenial> take_overdue(Clock::time_point now);
  [[nodiscard]] bool waiting() const { return !pending_.empty() || paused_; }
  /// This second's share is used up: do not watch fd() until take_overdue has been called in the next.
  [[nodiscard]] bool paused() const { return paused_; }
  /// How many records the kernel dropped, as the socket was full, since this was last said: at most once a minute.
  std::uint32_t take_lost(Clock::time_point now);

 private:
  struct Pending {
    std::uint64_t serial = 0;
    std::uint64_t domain = 0;
    LandlockDenial denial;
    Clock::time_point since;
  };

  void take(AuditRecord record, Clock::time_point now, std::vector<LandlockDenial>& done);
  void give_out(Pending pending, std::vector<LandlockDenial>& done) const;

  Fd socket_;
  std::deque<Pending> pending_;            // that wait for their domain's or their process's record
  std::map<std::uint64_t, pid_t> agents_;  // by domain
  Clock::time_point second_;
  int read_in_second_ = 0;
  bool paused_ = false;
  std::uint32_t lost_said_ = 0;  // of all that were ever lost
  std::optional<Clock::time_point> lost_said_at_;
};

/// How many of something an agent may have told a second; the rest is counted.
class Budget {
 public:
  explicit Budget(double per_second) : per_second_(per_second), tokens_(per_second) {}
  bool take(std::chrono::steady_clock::time_point now);
  /// Refused since this was last asked.
  [[nodiscard]] std::uint32_t take_dropped() { return std::exchange(dropped_, 0); }

 private:
  double per_second_, tokens_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
  std::uint32_t dropped_ = 0;
};

}  // namespace kai::keeper
