// Health of one running instance: what the agent says of itself (HealthReport), with memory and cpu as the keeper
// measures them, not as the agent has it.
#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include "supervisor/control/instance.h"

namespace kai {

class HealthMonitor {
 public:
  /// What it finds, each with a sentence. The instance may be ended in `hung` and `critical`, which are called once.
  struct Findings {
    std::function<void(const std::string& why)> warning;   ///< it says so, and did not at the check before
    std::function<void()> healthy;                         ///< again
    std::function<void(const std::string& why)> critical;  ///< on kCriticalChecks checks running
    std::function<void(const std::string& why)> hung;      ///< no answer for `misses` intervals
  };
  static constexpr std::uint32_t kCriticalChecks = 3;
  /// On probation one is enough.
  void watch_closely(bool closely) { critical_checks_ = closely ? 1 : kCriticalChecks; }

  /// Measures at once, and asks on an interval. `instance` must outlive it.
  HealthMonitor(EventLoop& loop, Instance& instance, const HealthRules& rules, Findings findings);
  /// Questions that are open are answered with nothing: there is no health any more.
  ~HealthMonitor();
  HealthMonitor(const HealthMonitor&) = delete;
  HealthMonitor& operator=(const HealthMonitor&) = delete;

  void report(klp::HealthReport&& report);

  /// The spec's HealthStatus as JSON, fresh, or after `deadline` the last that is known.
  void ask(std::chrono::milliseconds deadline, std::function<void(std::string json)> answer);

 private:
  struct Question {
    Question(std::uint64_t number, std::function<void(std::string)> action, EventLoop& loop)
        : sequence(number), answer(std::move(action)), timer(loop) {}
    std::uint64_t sequence;
    bool reported = false, measured = false;
    std::function<void(std::string)> answer;
    Timer timer;
  };

  void sample();
  void judge_report();
  void arm_silence();
  void on_silence();
  void measure();
  void arm();
  void measured(const keeper::UsageResult& usage);
  void answer_complete();
  [[nodiscard]] std::string document() const;

  EventLoop& loop_;
  Instance& instance_;
  HealthRules rules_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  Findings findings_;
  std::uint64_t sequence_ = 0;
  std::uint64_t check_ = 0;       // sequence of the interval's last question that is not judged yet; 0: none
  std::uint32_t unanswered_ = 0;  // questions of the interval since the last report
  std::uint32_t criticals_ = 0;   // checks running
  std::uint32_t critical_checks_ = kCriticalChecks;
  bool warned_ = false;
  std::int64_t began_at_, reported_at_;  // loop time
  std::int64_t began_unix_;
  std::optional<klp::HealthReport> last_report_;
  std::optional<double> memory_mb_, cpu_percent_;
  std::int64_t measured_at_;
  std::optional<std::uint64_t> cpu_us_;
  std::list<Question> questions_;
  Timer interval_, silence_;
};

}  // namespace kai
