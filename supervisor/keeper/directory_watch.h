// Measures a directory again and again, while its agent runs: for private data without a file system of its own.
#pragma once

#include <chrono>
#include <optional>
#include <utility>

#include "base/fd.h"
#include "supervisor/keeper/directory_usage.h"

namespace kai::keeper {

class DirectoryWatch {
 public:
  using Clock = std::chrono::steady_clock;

  explicit DirectoryWatch(Fd directory) : directory_(std::move(directory)) {}

  /// One slice, if it is time for one. The next measurement comes after ten times the time that the last one took,
  /// half a second at least: ten percent of a cpu.
  void tick(Clock::time_point now);
  [[nodiscard]] const Fd& directory() const { return directory_; }
  [[nodiscard]] bool measuring() const { return measurement_.has_value(); }
  /// Of the last whole measurement, or of the present one where that has already seen more.
  [[nodiscard]] const DiskUsage& usage() const { return usage_; }
  [[nodiscard]] bool too_deep() const { return too_deep_; }

 private:
  static constexpr std::size_t kSlice = 1000;  ///< entries: some milliseconds

  Fd directory_;
  std::optional<DirectoryMeasurement> measurement_;
  Clock::duration took_{};
  Clock::time_point next_{};
  DiskUsage usage_;
  bool too_deep_ = false;
};

}  // namespace kai::keeper
