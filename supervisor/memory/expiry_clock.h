// The time that keys expire by. It goes on with CLOCK_BOOTTIME, so that a jump of the wall clock neither ends nor
// prolongs a key; what it showed is kept in a file, so that it goes on from there when kaid is started again. Over a
// boot of the machine nothing else than the wall clock can tell how much time has passed: a clock that was set back
// then counts as no time.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace kai {

/// What the kernel says now; of its own, so that tests can say it.
struct MachineTime {
  std::string boot_id;             ///< /proc/sys/kernel/random/boot_id
  std::int64_t since_boot_ms = 0;  ///< CLOCK_BOOTTIME
  std::int64_t wall_ms = 0;        ///< CLOCK_REALTIME, Unix
};
Result<MachineTime> machine_time();

class ExpiryClock {
 public:
  /// Goes on from what `path` has; a file that is not there begins at 1. `now` is what machine_time() says.
  static Result<ExpiryClock> load(std::string path, const MachineTime& now);

  /// Milliseconds, never less than before. Safe from any thread.
  [[nodiscard]] std::int64_t now_ms() const;
  /// `since_boot_ms` in the place of the kernel's.
  [[nodiscard]] std::int64_t at(std::int64_t since_boot_ms) const;
  /// Keeps what it shows: now and then, and at the end. What is not kept before a power failure is time that was not
  /// counted.
  Result<> save(const MachineTime& now) const;

 private:
  ExpiryClock(std::string path, std::int64_t offset_ms) : path_(std::move(path)), offset_ms_(offset_ms) {}
  std::string path_;
  std::int64_t offset_ms_;  // over CLOCK_BOOTTIME
};

}  // namespace kai
