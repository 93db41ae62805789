// When an agent is at one of its limits, for the log: said once until the count has gone down again, or has gone up
// where the kernel counts; at most once a second each. Reads nothing itself.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <vector>

#include "proto/keeper.pb.h"
#include "proto/sandbox_spec.pb.h"
#include "sandbox/cgroup.h"
#include "supervisor/keeper/directory_usage.h"
#include "supervisor/keeper/disks.h"
#include "supervisor/keeper/process_info.h"

namespace kai::keeper {

class LimitWatch {
 public:
  using Clock = std::chrono::steady_clock;
  using Hits = std::vector<LimitHit>;

  LimitWatch() = default;
  LimitWatch(std::uint64_t instance, const spec::SandboxSpec& spec);

  /// What the kernel counted: processes ended for memory, which ends the agent,
  void look_at_memory(std::uint32_t oom_kills, Clock::time_point now, Hits& hits);
  /// and forks refused. `last`: the agent has ended, nothing comes later that would tell it.
  void look_at_pids(std::uint32_t refused, bool last, Clock::time_point now, Hits& hits);
  /// A file system of its own: full is less than 64 KiB free, which no program can still use in any quantity.
  void look_at_space(const Disks::Space& space, Clock::time_point now, Hits& hits);
  /// A measured directory. True: it is over its limit, and nothing but its end can hold it.
  bool look_at_directory(const DiskUsage& usage, bool too_deep, Clock::time_point now, Hits& hits);
  /// The process with the most descriptors.
  void look_at_open_files(std::uint64_t most, const ProcessName& process, Clock::time_point now, Hits& hits);

  [[nodiscard]] std::uint64_t open_files() const { return open_files_; }

 private:
  enum Name : std::size_t { kMemory, kPids, kDisk, kInodes, kOpenFiles, kNames };
  struct Alarm {
    bool said = false;
    std::uint64_t count = 0;
    Clock::time_point last{};
  };

  void count(Name name, std::uint64_t counted, bool last, Clock::time_point now, Hits& hits);
  bool level(Name name, bool reached, bool below, Clock::time_point now, Hits& hits);
  LimitHit& hit(Name name, Hits& hits) const;

  std::uint64_t instance_ = 0;
  std::uint64_t open_files_ = 0;
  std::array<std::uint64_t, kNames> limits_{};
  std::array<Alarm, kNames> alarms_{};
};

}  // namespace kai::keeper
