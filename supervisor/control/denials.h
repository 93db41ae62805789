// What an agent was refused, as the operator sees it: one line of the log each, limited in number, with the rest
// counted. Kinds: a system call (the filter's notification), a file (Landlock, by the kernel's audit), a limit, a
// message, a connection (egress).
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>

#include "base/text.h"
#include "proto/egress.pb.h"
#include "proto/keeper.pb.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/log.h"
#include "supervisor/control/output.h"
#include "supervisor/control/policies.h"
#include "supervisor/loop/event_loop.h"

namespace kai {

struct Denial {
  enum class Kind { kSyscall, kFile, kLimit, kMessage, kNetwork };

  Kind kind = Kind::kSyscall;
  std::string what;           ///< "unshare", "/proc/self/oom_score_adj", "limits.processes", an address
  std::string detail;         ///< "unshare(CLONE_NEWUSER)", "fs.write_file", "128 processes": with arguments or values
  std::string reason;         ///< a sentence
  std::string rule;           ///< what refused it: "base.yaml:88", "10-calendar.yaml:14", "builtin"
  std::string error;          ///< EPERM, as the agent got it; may be empty
  std::string process;        ///< what the process calls itself; may be empty
  int pid = 0;                ///< as the agent sees it; 0: not known
  std::string name, address;  ///< of a connection, where known
  std::uint32_t port = 0;
  std::uint64_t more = 0;  ///< of the same that were not told one by one
};

/// What the keeper saw of a limit, with the policy's rule that set it.
Denial limit_denial(const keeper::LimitHit& hit, const Policy& policy);

/// What egress refused, or the agent's own kernel because egress does not listen there.
Denial network_denial(const egress::Refused& refused);

class DenialLog {
 public:
  /// `mostly_limits`: more than half of them were limits, not refusals.
  using Threshold = std::function<void(bool mostly_limits)>;
  static constexpr std::size_t kRecent = 50;

  /// `threshold` is called when the policy's quarantine.denials were met within quarantine.denialWindow, once a window.
  DenialLog(EventLoop& loop, Log& log, AuditLog& audit, std::string agent, Threshold threshold = nullptr);

  /// A new life begins, under this policy: its denials are counted anew.
  void use(PolicyRef policy);
  void write(const Denial& denial);
  /// Takes a line ahead, for a denial that something has to be asked about first. false: count() it instead.
  [[nodiscard]] bool reserve() { return budget_.take(monotonic_ms()); }
  void write_reserved(const Denial& denial);
  /// Refused like the ones before it, and not worth a line of its own.
  void count(std::uint64_t denials);
  /// The agent ended: what was dropped is said now.
  void finish();

  [[nodiscard]] std::uint64_t total() const { return total_; }
  /// The last kRecent that had a line of their own, as JSON objects, oldest first.
  [[nodiscard]] const std::deque<std::string>& recent() const { return recent_; }

 private:
  void note(std::uint64_t denials, Denial::Kind kind);
  void drop(std::uint64_t denials);
  void tell(const Denial& denial);
  void report(bool at_end);

  Log& log_;
  AuditLog& audit_;
  std::string agent_;
  Threshold threshold_;
  PolicyRef policy_;
  std::uint64_t total_ = 0;
  std::uint64_t window_limits_ = 0;  // of those in the window: limits that were met
  std::deque<std::string> recent_;
  std::uint64_t window_count_ = 0;
  std::int64_t window_began_ = 0;
  LogBudget budget_;
  Timer report_timer_;
};

}  // namespace kai
