#include "supervisor/control/health.h"

#include <cstdio>

#include "base/text.h"
#include "supervisor/control/json_check.h"

namespace kai {
namespace {

constexpr std::chrono::milliseconds kInterval{5'000};  // contracts.md, health.interval
constexpr std::int64_t kMisses = 3;                    // contracts.md, health.misses
constexpr std::size_t kMaxReportBytes = 64 << 10;
// A shorter time says too little about cpu usage.
constexpr std::int64_t kShortestMeasureMs = 500;

void append_number(std::string& json, const char* name, double value) {
  std::array<char, 64> text;
  const int length = std::snprintf(text.data(), text.size(), ",\"%s\":%.1f", name, value);
  json.append(text.data(), static_cast<std::size_t>(length));
}

}  // namespace

HealthMonitor::HealthMonitor(EventLoop& loop, Instance& instance)
    : loop_(loop),
      instance_(instance),
      began_at_(loop.now_ms()),
      reported_at_(began_at_),
      began_unix_(unix_ms()),
      measured_at_(began_at_),
      interval_(loop) {
  arm();
}

void HealthMonitor::arm() {
  interval_.start(kInterval, [this] {
    sample();
    arm();
  });
}

void HealthMonitor::sample() {
  if (instance_.channel() != nullptr) instance_.channel()->request_health(++sequence_);
  instance_.usage([this, alive = alive_](const keeper::UsageResult& usage) {
    if (*alive) measured(usage);
  });
}

void HealthMonitor::report(klp::HealthReport&& report) {
  if (report.health_json().size() > kMaxReportBytes || !is_json_object(report.health_json())) return;
  last_report_ = std::move(*report.mutable_health_json());
  reported_at_ = loop_.now_ms();
  for (Question& question : questions_) question.reported |= report.sequence() >= question.sequence;
  answer_complete();
}

void HealthMonitor::measured(const keeper::UsageResult& usage) {
  if (usage.known()) {
    memory_mb_ = static_cast<double>(usage.memory_bytes()) / (1 << 20);
    const std::int64_t elapsed = loop_.now_ms() - measured_at_;
    if (elapsed >= kShortestMeasureMs) {
      cpu_percent_ = static_cast<double>(usage.cpu_us() - cpu_us_) / 10.0 / static_cast<double>(elapsed);
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
  std::string json;
  if (last_report_.empty() || silent > kMisses * kInterval.count()) {
    // It has said nothing (yet, or any more): this is what is known from outside.
    const bool hung = silent > kMisses * kInterval.count();
    json = std::string(R"({"status":")") + (hung ? "critical" : "warning") + R"(","uptime":)" +
           std::to_string(loop_.now_ms() - began_at_) + R"(,"lastActivity":")" +
           iso_time(began_unix_ + reported_at_ - began_at_) + R"(","errors":[)";
    if (hung) {
      json += R"({"type":"hung","count":1,"lastOccurrence":")" + iso_now() +
              R"(","message":"it has not answered a health check for )" + std::to_string(silent / 1000) + R"( s"})";
    }
    json += "]";
  } else {
    json = last_report_.substr(0, last_report_.rfind('}'));
  }
  // Last, so that they stand whatever the agent had said: of two members with one name the last one is taken.
  if (json.find_first_not_of(" \t\r\n", 1) == std::string::npos) json += R"("status":"warning")";
  if (memory_mb_) append_number(json, "memoryUsage", *memory_mb_);
  if (cpu_percent_) append_number(json, "cpuUsage", *cpu_percent_);
  return json + '}';
}

}  // namespace kai
