#include "supervisor/keeper/limit_watch.h"

#include <sys/resource.h>

namespace kai::keeper {
namespace {

constexpr std::array<const char*, 5> kNamesInPolicy = {"memory", "pids", "disk", "inodes", "nofile"};
constexpr auto kPause = std::chrono::seconds(1);
constexpr std::uint64_t kFull = 64 << 10;

/// Under 95 % of the limit: it has gone down again.
bool well_below(std::uint64_t count, std::uint64_t limit) {
  return count < limit - limit / 20;
}

}  // namespace

LimitWatch::LimitWatch(std::uint64_t instance, const spec::SandboxSpec& spec) : instance_(instance) {
  for (const auto& limit : spec.rlimits()) {
    if (limit.resource() == RLIMIT_NOFILE) open_files_ = limit.soft();
  }
  limits_ = {spec.cgroup().memory_bytes(), spec.cgroup().pids(), spec.disk().size_bytes(), spec.disk().inodes(),
             open_files_};
}

LimitHit& LimitWatch::hit(Name name, Hits& hits) const {
  LimitHit& hit = hits.emplace_back();
  hit.set_instance(instance_);
  hit.set_limit(kNamesInPolicy[name]);
  hit.set_value(limits_[name]);
  return hit;
}

void LimitWatch::count(Name name, std::uint64_t counted, bool last, Clock::time_point now, Hits& hits) {
  Alarm& alarm = alarms_[name];
  if (counted <= alarm.count || (alarm.said && !last && now - alarm.last < kPause)) return;
  alarm = {true, counted, now};
  hit(name, hits).set_count(counted);
}

bool LimitWatch::level(Name name, bool reached, bool below, Clock::time_point now, Hits& hits) {
  Alarm& alarm = alarms_[name];
  if (below) alarm.said = false;
  const bool recently = alarm.count > 0 && now - alarm.last < kPause;
  if (!reached || alarm.said || recently) return false;
  alarm = {true, alarm.count + 1, now};
  hit(name, hits);
  return true;
}

void LimitWatch::look_at_memory(std::uint32_t oom_kills, Clock::time_point now, Hits& hits) {
  count(kMemory, oom_kills, true, now, hits);
}

void LimitWatch::look_at_pids(std::uint32_t refused, bool last, Clock::time_point now, Hits& hits) {
  count(kPids, refused, last, now, hits);
}

void LimitWatch::look_at_space(const Disks::Space& space, Clock::time_point now, Hits& hits) {
  level(kDisk, space.free_bytes < kFull, well_below(space.bytes - space.free_bytes, space.bytes), now, hits);
  level(kInodes, space.free_inodes == 0, well_below(space.inodes - space.free_inodes, space.inodes), now, hits);
}

bool LimitWatch::look_at_directory(const DiskUsage& usage, bool too_deep, Clock::time_point now, Hits& hits) {
  const bool bytes = usage.bytes > limits_[kDisk];
  const bool inodes = too_deep || usage.inodes > limits_[kInodes];
  level(kDisk, bytes, well_below(usage.bytes, limits_[kDisk]), now, hits);
  level(kInodes, inodes, !too_deep && well_below(usage.inodes, limits_[kInodes]), now, hits);
  return bytes || inodes;
}

void LimitWatch::look_at_open_files(std::uint64_t most, const ProcessName& process, Clock::time_point now, Hits& hits) {
  if (!level(kOpenFiles, most >= open_files_, well_below(most, open_files_), now, hits)) return;
  hits.back().set_process(process.comm);
  hits.back().set_pid(process.inner_pid);
}

}  // namespace kai::keeper
