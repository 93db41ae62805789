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
  /// Measures at once, and asks on an interval. `instance` must outlive it.
  HealthMonitor(EventLoop& loop, Instance& instance, const HealthRules& rules);
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
  void measure();
  void arm();
  void measured(const keeper::UsageResult& usage);
  void answer_complete();
  [[nodiscard]] std::string document() const;

  EventLoop& loop_;
  Instance& instance_;
  HealthRules rules_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::uint64_t sequence_ = 0;
  std::int64_t began_at_, reported_at_;  // loop time
  std::int64_t began_unix_;
  std::optional<klp::HealthReport> last_report_;
  std::optional<double> memory_mb_, cpu_percent_;
  std::int64_t measured_at_;
  std::optional<std::uint64_t> cpu_us_;
  std::list<Question> questions_;
  Timer interval_;
};

}  // namespace kai
