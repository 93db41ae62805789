#include "supervisor/control/health.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/text.h"

namespace kai {
namespace {

constexpr int kMaxErrors = 32;
constexpr std::size_t kMaxTextBytes = 4096;
constexpr std::size_t kMaxWhyBytes = 256;  // in a line of the log
// A shorter time says too little about cpu usage.
constexpr std::int64_t kShortestMeasureMs = 500;

using Json = nlohmann::json;

const char* status_name(klp::HealthReport::Status status) {
  switch (status) {
    case klp::HealthReport::HEALTHY:
      return "healthy";
    case klp::HealthReport::CRITICAL:
      return "critical";
    default:
      return "warning";
  }
}

Json summary(std::string_view type, std::uint64_t count, std::int64_t last_unix_ms, std::string_view message) {
  return {{"type", type.substr(0, kMaxTextBytes)},
          {"count", count},
          {"lastOccurrence", iso_time(last_unix_ms)},
          {"message", message.substr(0, kMaxTextBytes)}};
}

double one_decimal(double value) {
  return std::round(value * 10) / 10;
}

}  // namespace

HealthMonitor::HealthMonitor(EventLoop& loop, Instance& instance, const HealthRules& rules, Findings findings)
    : loop_(loop),
      instance_(instance),
      rules_(rules),
      findings_(std::move(findings)),
      began_at_(loop.now_ms()),
      reported_at_(began_at_),
      began_unix_(unix_ms()),
      measured_at_(began_at_),
      interval_(loop),
      silence_(loop) {
  measure();
  arm();
  arm_silence();
}

HealthMonitor::~HealthMonitor() {
  *alive_ = false;
  for (const Question& question : questions_) question.answer({});
}

void HealthMonitor::arm() {
  interval_.start(rules_.interval, [this] {
    sample();
    check_ = sequence_;
    ++unanswered_;
    arm();
  });
}

// From its last word on, so that one which hangs right after it is found within that many intervals. One interval alone
// could end before an answer had time to come.
void HealthMonitor::arm_silence() {
  silence_.start(rules_.interval * std::max(rules_.misses, 2U), [this] { on_silence(); });
}

void HealthMonitor::on_silence() {
  // A control that stood still itself (stopped, or starved) has not asked, and has not read what was answered.
  if (unanswered_ + 1 < std::max(rules_.misses, 2U)) return arm_silence();
  interval_.stop();
  findings_.hung("it has not answered a health check for " + std::to_string((loop_.now_ms() - reported_at_) / 1000) +
                 " s (health.misses: " + std::to_string(rules_.misses) +
                 "): its event loop is blocked, or its process is stopped");
}

void HealthMonitor::judge_report() {
  const auto status = last_report_->status();
  std::string why = "no error is named";
  if (last_report_->errors_size() > 0) {
    const klp::ErrorSummary& last = last_report_->errors(last_report_->errors_size() - 1);
    why = std::string(clip_utf8(last.type(), kMaxWhyBytes)) + " (" + std::to_string(last.count()) +
          " times): " + std::string(clip_utf8(last.message(), kMaxWhyBytes));
  }
  const bool bad = status == klp::HealthReport::WARNING || status == klp::HealthReport::CRITICAL;
  if (bad && !std::exchange(warned_, true)) findings_.warning(why);
  if (!bad && std::exchange(warned_, false)) findings_.healthy();
  criticals_ = status == klp::HealthReport::CRITICAL ? criticals_ + 1 : 0;
  if (criticals_ < critical_checks_) return;
  interval_.stop();
  silence_.stop();
  findings_.critical("it said on " + std::to_string(criticals_) +
                     " checks running that its health is critical: " + why);
}

void HealthMonitor::sample() {
  if (instance_.channel() != nullptr) instance_.channel()->request_health(++sequence_);
  measure();
}

void HealthMonitor::measure() {
  instance_.usage([this, alive = alive_](const keeper::UsageResult& usage) {
    if (*alive) measured(usage);
  });
}

void HealthMonitor::report(klp::HealthReport&& report) {
  last_report_ = std::move(report);
  reported_at_ = loop_.now_ms();
  unanswered_ = 0;
  arm_silence();
  for (Question& question : questions_) question.reported |= last_report_->sequence() >= question.sequence;
  answer_complete();
  if (check_ == 0 || last_report_->sequence() < check_) return;
  check_ = 0;
  judge_report();
}

void HealthMonitor::measured(const keeper::UsageResult& usage) {
  if (usage.known()) {
    memory_mb_ = static_cast<double>(usage.memory_bytes()) / (1 << 20);
    const std::int64_t elapsed = loop_.now_ms() - measured_at_;
    // The first one is where counting begins: what the start cost is not what the agent uses.
    if (cpu_us_ && elapsed >= kShortestMeasureMs) {
      cpu_percent_ = static_cast<double>(usage.cpu_us() - *cpu_us_) / 10.0 / static_cast<double>(elapsed);
    }
    if (!cpu_us_ || elapsed >= kShortestMeasureMs) {
      cpu_us_ = usage.cpu_us();
      measured_at_ = loop_.now_ms();
    }
  }
  for (Question& question : questions_) question.measured = true;
  answer_complete();
}

void HealthMonitor::ask(std::chrono::milliseconds deadline, std::function<void(std::string)> answer) {
  Question& question = questions_.emplace_back(sequence_ + 1, std::move(answer), loop_);
  question.timer.start(deadline, [this, &question] {
    question.reported = question.measured = true;
    answer_complete();
  });
  sample();
}

void HealthMonitor::answer_complete() {
  for (auto question = questions_.begin(); question != questions_.end();) {
    if (!question->reported || !question->measured) {
      ++question;
      continue;
    }
    const auto answer = std::move(question->answer);
    question = questions_.erase(question);
    answer(document());
  }
}

std::string HealthMonitor::document() const {
  const std::int64_t silent = loop_.now_ms() - reported_at_;
  const bool hung = silent > std::max(rules_.misses, 2U) * rules_.interval.count();
  Json health;
  Json errors = Json::array();
  if (!last_report_ || hung) {
    // It has said nothing (yet, or any more): this is what is known from outside.
    health["status"] = hung ? "critical" : "warning";
    health["uptime"] = loop_.now_ms() - began_at_;
    health["lastActivity"] = iso_time(began_unix_ + reported_at_ - began_at_);
    if (hung) {
      errors.push_back(summary("hung", 1, unix_ms(),
                               "it has not answered a health check for " + std::to_string(silent / 1000) + " s"));
    }
  } else {
    health["status"] = status_name(last_report_->status());
    health["uptime"] = last_report_->uptime_ms();
    health["lastActivity"] = iso_time(last_report_->last_activity_unix_ms());
    for (const auto& error : last_report_->errors()) {
      if (errors.size() == kMaxErrors) break;
      errors.push_back(summary(error.type(), error.count(), error.last_occurrence_unix_ms(), error.message()));
    }
  }
  if (memory_mb_) health["memoryUsage"] = one_decimal(*memory_mb_);
  if (cpu_percent_) health["cpuUsage"] = one_decimal(*cpu_percent_);
  health["errors"] = std::move(errors);
  return health.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace kai
