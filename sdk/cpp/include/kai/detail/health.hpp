// The HealthStatus of an agent that does not make its own.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <string>
#include <vector>

#include "kai/message.hpp"

namespace kai::detail {

inline std::string iso_now() {
  using std::chrono::system_clock;
  const auto now = system_clock::now();
  const std::time_t seconds = system_clock::to_time_t(now);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::array<char, 32> date{};
  std::strftime(date.data(), date.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  std::string text = std::to_string(1000 + ms);
  text.front() = '.';
  return date.data() + text + "Z";
}

class Health {
 public:
  /// started: of the process, in nanoseconds of CLOCK_MONOTONIC; a soft upgrade keeps it.
  explicit Health(std::int64_t started) : started_(Clock::duration(started)) {}

  void active() { last_activity_ = iso_now(); }

  void failed(const std::string& type, const std::string& message) {
    ErrorSummary summary{type.substr(0, kMaxText), 1, iso_now(), message.substr(0, kMaxText)};
    const auto known =
        std::find_if(errors_.begin(), errors_.end(), [&](const ErrorSummary& one) { return one.type == summary.type; });
    if (known != errors_.end()) {
      summary.count += known->count;
      errors_.erase(known);
    } else if (errors_.size() >= kMaxTypes) {
      errors_.erase(errors_.begin());
    }
    errors_.push_back(std::move(summary));
  }

  HealthStatus status() {
    HealthStatus status;
    const auto now = Clock::now();
    const std::clock_t cpu = std::clock();
    const double elapsed = std::max(std::chrono::duration<double>(now - asked_).count(), 0.001);
    status.uptime = std::chrono::duration_cast<std::chrono::milliseconds>(now - started_).count();
    status.memory_usage = round(static_cast<double>(resident_bytes()) / (1 << 20));
    status.cpu_usage = round(static_cast<double>(cpu - cpu_) / CLOCKS_PER_SEC / elapsed * 100);
    status.last_activity = last_activity_;
    status.errors = errors_;
    asked_ = now;
    cpu_ = cpu;
    return status;
  }

 private:
  using Clock = std::chrono::steady_clock;
  // Of errors told apart, as many as the supervisor takes; the one that was quiet longest goes first.
  static constexpr std::size_t kMaxTypes = 16;
  static constexpr std::size_t kMaxText = 1024;

  static double round(double value) { return std::round(value * 10) / 10; }

  static long resident_bytes() {
    long total = 0;
    long resident = 0;
    std::ifstream("/proc/self/statm") >> total >> resident;
    return resident * sysconf(_SC_PAGESIZE);
  }

  Clock::time_point started_;
  Clock::time_point asked_ = Clock::now();
  std::clock_t cpu_ = std::clock();
  std::string last_activity_ = iso_now();
  std::vector<ErrorSummary> errors_;  // the latest last
};

}  // namespace kai::detail
