#include "sandbox/cgroup.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <memory>
#include <optional>
#include <sstream>
#include <string_view>

#include "base/unix.h"
#include "sandbox/delegated_unit.h"
#include "sandbox/hierarchies.h"

namespace kai::sandbox {
namespace {

// A tenth of the kernel's default: an agent with threads on every cpu holds them for less than this at a time, and who
// shares the machine with it waits no longer.
constexpr std::uint32_t kCpuPeriodUs = 10'000;
constexpr std::size_t kMaxListed = 4096;  // processes of one tree that are looked at one by one
// v1 controllers that carry limits, and cpuacct, which counts the time.
constexpr std::array kV1Controllers = {"memory", "cpu", "cpuacct", "pids"};

// All agents together weigh half of what any other group beside them does (the default is 100; v1: 1024 shares), so
// that the host stays usable when they are busy. Among themselves they are equal, each with its own quota.
constexpr const char* kWeight = "50";
constexpr const char* kShares = "512";

Result<> make_group(const std::string& path) {
  if (mkdir(path.c_str(), 0755) < 0 && errno != EEXIST) return errno_failure("mkdir", path);
  return {};
}

// Groups below `path` that an earlier kaid left: it has ended (the state directory's lock says so), and its agents with
// it.
void sweep(const std::string& path) {
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path.c_str()), closedir);
  if (!directory) return;
  while (const dirent* entry = readdir(directory.get())) {
    if (entry->d_type != DT_DIR || entry->d_name[0] == '.') continue;
    const std::string child = join(path, entry->d_name);
    (void)write_file(child + "/cgroup.kill", "1");  // v1 has none; its processes are in the v2 tree too
    (void)rmdir(child.c_str());
  }
}

bool only_this_process(const std::string& group) {
  const auto processes = read_file(group + "/cgroup.procs");
  return processes && *processes == std::to_string(getpid()) + "\n";
}

bool has_controllers(const std::string& group) {
  const auto list = read_file(group + "/cgroup.controllers");
  if (!list) return false;
  const std::string_view names = std::string_view(*list).substr(0, list->find('\n'));
  return lists(names, "memory", ' ') && lists(names, "cpu", ' ') && lists(names, "pids", ' ');
}

std::uint64_t number(std::string_view text) {
  std::uint64_t value = 0;
  (void)std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::uint64_t read_number(const std::string& path) {
  const auto text = read_file(path);
  return text ? number(*text) : 0;
}

/// The value of `key value` in a flat keyed file.
std::uint64_t read_keyed(const std::string& path, std::string_view key) {
  const auto text = read_file(path);
  std::uint64_t value = 0;
  if (!text) return value;
  for_each_line(*text, [&](std::string_view line) {
    if (line.starts_with(key) && line.size() > key.size() && line[key.size()] == ' ')
      value = number(line.substr(key.size() + 1));
  });
  return value;
}

struct Setting {
  std::string file, value;
  bool of_swap = false;  // a kernel without swap accounting does not have it
};

// /proc/swaps: a heading, then a line for each.
bool host_swaps() {
  const auto swaps = read_file("/proc/swaps");
  return !swaps || std::count(swaps->begin(), swaps->end(), '\n') > 1;
}

// A limit that the kernel does not take is an error. Only that of swap may be left out, where there is no swap at all.
Result<> apply_settings(const std::string& group, const std::vector<Setting>& settings) {
  for (const auto& setting : settings) {
    const std::string path = join(group, setting.file);
    if (setting.of_swap && access(path.c_str(), F_OK) < 0) {
      if (!host_swaps()) continue;
      return failure(
          "the kernel cannot keep an agent from swapping: switch swap accounting on (swapaccount=1), or swap off");
    }
    if (auto done = write_file(path, setting.value); !done) return done;
  }
  return {};
}

// The kernel refuses a quota of less than a millisecond.
std::uint32_t cpu_period(const spec::Cgroup& limits) {
  return limits.cpu_percent() < 10 ? 10 * kCpuPeriodUs : kCpuPeriodUs;
}

std::string cpu_quota(const spec::Cgroup& limits) {
  return std::to_string(limits.cpu_percent() * (cpu_period(limits) / 100));
}

std::vector<Setting> v2_settings(const spec::Cgroup& limits) {
  return {{"memory.max", std::to_string(limits.memory_bytes())},
          {"memory.swap.max", "0", true},
          {"memory.oom.group", "1"},
          {"cpu.max", cpu_quota(limits) + " " + std::to_string(cpu_period(limits))},
          {"pids.max", std::to_string(limits.pids())}};
}

std::vector<Setting> v1_settings(std::string_view controller, const spec::Cgroup& limits) {
  if (controller == "memory") {
    const std::string bytes = std::to_string(limits.memory_bytes());
    // memsw is memory and swap together: the same number is no swap.
    return {{"memory.limit_in_bytes", bytes},
            {"memory.memsw.limit_in_bytes", bytes, true},
            {"memory.swappiness", "0", true}};
  }
  if (controller == "cpu")
    return {{"cpu.cfs_period_us", std::to_string(cpu_period(limits))}, {"cpu.cfs_quota_us", cpu_quota(limits)}};
  if (controller == "pids") return {{"pids.max", std::to_string(limits.pids())}};
  return {};
}

// A *.events file to be polled for EPOLLPRI: quiet from here on, as poll(2) compares with what the last read saw
// (fs/kernfs/file.c, kernfs_generic_poll).
Result<Fd> watch_events(const std::string& path) {
  Fd events(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!events) return errno_failure("open", path);
  char seen[256];
  if (pread(events.get(), seen, sizeof seen, 0) < 0) return errno_failure("read", path);
  return events;
}

/// Whether a disk is scheduled by BFQ, the only scheduler that knows v1's weights.
bool any_disk_has_bfq() {
  const std::unique_ptr<DIR, int (*)(DIR*)> disks(opendir("/sys/block"), closedir);
  if (!disks) return false;
  while (const dirent* entry = readdir(disks.get())) {
    const auto schedulers = read_file("/sys/block/" + std::string(entry->d_name) + "/queue/scheduler");
    if (schedulers && schedulers->find("[bfq]") != std::string::npos) return true;
  }
  return false;
}

// v1's own way to be told (Documentation/admin-guide/cgroup-v1/memory.rst, 10. OOM Control).
Result<Fd> watch_oom(const std::string& group) {
  Fd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) return errno_failure("eventfd");
  const std::string path = group + "/memory.oom_control";
  const Fd control(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!control) return errno_failure("open", path);
  const std::string line = std::to_string(event.get()) + " " + std::to_string(control.get());
  if (auto done = write_file(group + "/cgroup.event_control", line); !done) return tl::unexpected(done.error());
  return event;
}

}  // namespace

CgroupUsage AgentCgroup::usage() const {
  CgroupUsage usage;
  if (v1_paths_.empty()) {
    usage.memory_bytes = read_number(v2_path_ + "/memory.current");
    usage.cpu_us = read_keyed(v2_path_ + "/cpu.stat", "usage_usec");
    usage.pids = static_cast<std::uint32_t>(read_number(v2_path_ + "/pids.current"));
    usage.oom_kills = static_cast<std::uint32_t>(read_keyed(v2_path_ + "/memory.events", "oom_kill"));
    usage.pids_refused = static_cast<std::uint32_t>(read_keyed(v2_path_ + "/pids.events", "max"));
    return usage;
  }
  for (const auto& [controller, path] : v1_paths_) {
    if (controller == "memory") {
      usage.memory_bytes = read_number(path + "/memory.usage_in_bytes");
      usage.oom_kills = static_cast<std::uint32_t>(read_keyed(path + "/memory.oom_control", "oom_kill"));
    } else if (controller == "cpuacct") {
      usage.cpu_us = read_number(path + "/cpuacct.usage") / 1000;
    } else if (controller == "pids") {
      usage.pids = static_cast<std::uint32_t>(read_number(path + "/pids.current"));
      usage.pids_refused = static_cast<std::uint32_t>(read_keyed(path + "/pids.events", "max"));
    }
  }
  return usage;
}

std::vector<pid_t> AgentCgroup::processes() const {
  std::vector<pid_t> processes;
  const auto listed = read_file(v2_path_ + "/cgroup.procs");
  if (!listed) return processes;
  std::istringstream lines(*listed);
  for (pid_t pid = 0; processes.size() < kMaxListed && lines >> pid;) processes.push_back(pid);
  return processes;
}

Result<> AgentCgroup::limit(const spec::Cgroup& limits) const {
  if (v1_paths_.empty()) return apply_settings(v2_path_, v2_settings(limits));
  for (const auto& [controller, path] : v1_paths_) {
    if (auto done = apply_settings(path, v1_settings(controller, limits)); !done) return done;
  }
  return {};
}

Result<> AgentCgroup::open_events() {
  std::string pids = v1_paths_.empty() ? v2_path_ : "";
  for (const auto& [controller, path] : v1_paths_) {
    if (controller == "pids") pids = path;
    if (controller != "memory") continue;
    auto event = watch_oom(path);
    if (!event) return tl::unexpected(event.error());
    oom_event_ = std::move(*event);
  }
  auto events = watch_events(pids + "/pids.events");
  if (!events) return tl::unexpected(events.error());
  pids_event_ = std::move(*events);
  return {};
}

Result<> AgentCgroup::freeze(bool frozen) const {
  return write_file(v2_path_ + "/cgroup.freeze", frozen ? "1" : "0");
}

bool AgentCgroup::frozen() const {
  return read_keyed(v2_path_ + "/cgroup.events", "frozen") == 1;
}

Result<Fd> AgentCgroup::watch_frozen() const {
  return watch_events(v2_path_ + "/cgroup.events");
}

std::vector<std::string> AgentCgroup::places() const {
  std::vector<std::string> places = {v2_path_};
  for (const auto& [controller, path] : v1_paths_) {
    if (std::find(places.begin(), places.end(), path) == places.end()) places.push_back(path);
  }
  return places;
}

Result<> AgentCgroup::kill() const {
  return write_file(v2_path_ + "/cgroup.kill", "1");
}

Result<> AgentCgroup::remove() {
  v2_.reset();
  v1_tasks_.clear();
  oom_event_.reset();
  pids_event_.reset();
  for (const auto& [controller, path] : v1_paths_) {
    if (rmdir(path.c_str()) < 0 && errno != ENOENT) return errno_failure("rmdir", path);
  }
  if (!v2_path_.empty() && rmdir(v2_path_.c_str()) < 0 && errno != ENOENT) return errno_failure("rmdir", v2_path_);
  return {};
}

const char* CgroupTree::backend_name() const {
  constexpr std::array kNames = {"none", "v2", "hybrid"};
  return kNames[static_cast<std::size_t>(places_.backend)];
}

// An own leaf for the keeper where its group is its alone (a delegated unit): processes may only stand in leaves when
// controllers are on. Otherwise, as root, an own group at the top.
Result<> CgroupTree::open_v2(const std::string& name, bool root, const std::string& own, const std::string& unit) {
  const bool at_top = access((own + "/cgroup.type").c_str(), F_OK) < 0;  // the root group has no such file
  const std::string beside = unit.empty() ? "" : join(own.substr(0, own.rfind('/')), unit);
  if (root && !at_top && !beside.empty() && take_delegated_unit(beside)) {
    places_.apart = true;
    places_.v2_base = join(beside, name);
  } else if (!at_top && only_this_process(own)) {
    places_.v2_keeper = join(own, "keeper");
    if (auto done = make_group(places_.v2_keeper); !done) return done;
    if (auto done = write_file(places_.v2_keeper + "/cgroup.procs", "0"); !done) return done;
    places_.v2_base = join(own, name);
  } else if (root) {
    std::string top = own;
    while (access((top + "/cgroup.type").c_str(), F_OK) == 0) top.resize(top.rfind('/'));
    places_.v2_base = join(top, name);
  } else {
    return failure("the group of this process holds other processes and is not delegated:", own);
  }
  if (auto done = make_group(places_.v2_base); !done) return done;
  const std::string parent = places_.v2_base.substr(0, places_.v2_base.rfind('/'));
  if (auto done = write_file(parent + "/cgroup.subtree_control", "+memory +cpu +pids"); !done) return done;
  if (auto done = write_file(places_.v2_base + "/cgroup.subtree_control", "+memory +cpu +pids"); !done) return done;
  if (auto done = write_file(join(places_.v2_base, "cpu.weight"), kWeight); !done) return done;
  // Only where the kernel has it: without, disks are shared by whoever asks.
  (void)write_file(parent + "/cgroup.subtree_control", "+io");
  places_.weighs_io = write_file(join(places_.v2_base, "io.weight"), kWeight).has_value() ||
                      write_file(join(places_.v2_base, "io.bfq.weight"), kWeight).has_value();
  places_.backend = Backend::kV2;
  return {};
}

// One group for all agents, as only their weight together matters.
void CgroupTree::open_v1_io(const std::string& name, const std::string& place) {
  if (!any_disk_has_bfq()) return;
  const std::string base = join(place, name);
  if (!make_group(base)) return;
  places_.weighs_io = write_file(base + "/blkio.bfq.weight", kWeight).has_value();
  if (places_.weighs_io)
    places_.v1_io_base = base;
  else
    (void)rmdir(base.c_str());
}

Result<> CgroupTree::open_v1(const std::string& name) {
  const auto found = find_hierarchies();
  if (!found) return tl::unexpected(found.error());
  if (!found->v2) return failure("no cgroup2 is mounted");
  std::vector<std::pair<std::string, std::string>> bases;
  for (const char* controller : kV1Controllers) {
    const Hierarchy* hierarchy = found->with(controller);
    if (hierarchy == nullptr) return failure("no hierarchy has the controller", controller);
    const std::string base = join(place(*hierarchy), name);
    if (auto done = make_group(base); !done) return done;
    const bool known = std::any_of(bases.begin(), bases.end(), [&](const auto& other) { return other.second == base; });
    // Two controllers in one hierarchy (cpu,cpuacct) share a group; each keeps its own entry for its limits.
    bases.emplace_back(controller, base);
    if (!known) sweep(base);
    if (controller == std::string_view("cpu")) {
      if (auto done = write_file(base + "/cpu.shares", kShares); !done) return done;
    }
  }
  if (const Hierarchy* io = found->with("blkio")) open_v1_io(name, place(*io));
  places_.v2_base = join(place(*found->v2), name);
  if (auto done = make_group(places_.v2_base); !done) return done;
  sweep(places_.v2_base);
  places_.v1_bases = std::move(bases);
  places_.backend = Backend::kHybrid;
  return {};
}

CgroupTree CgroupTree::open(const std::string& name, bool root, const std::string& unit) {
  CgroupTree tree;
  const auto found = find_hierarchies();
  Result<> opened = found ? Result<>{} : tl::unexpected(found.error());
  if (opened && found->v2) {
    std::string top = found->v2->mount;
    opened = has_controllers(top) ? tree.open_v2(name, root, place(*found->v2), unit) : tree.open_v1(name);
    if (opened && tree.places_.backend == Backend::kV2) sweep(tree.places_.v2_base);
  } else if (opened) {
    opened = failure("no cgroup2 is mounted");
  }
  if (!opened) {
    tree.remove();
    tree.places_.backend = Backend::kNone;
    tree.places_.apart = false;
    tree.places_.why_none = opened.error().message();
  }
  return tree;
}

CgroupTree CgroupTree::take_over(Places places) {
  CgroupTree tree;
  tree.places_ = std::move(places);
  return tree;
}

Result<AgentCgroup> CgroupTree::create(const std::string& leaf) const {
  AgentCgroup group;
  const auto build = [&]() -> Result<> {
    group.v2_path_ = join(places_.v2_base, leaf);
    if (mkdir(group.v2_path_.c_str(), 0755) < 0) return errno_failure("mkdir", group.v2_path_);
    for (const auto& [controller, base] : places_.v1_bases) {
      const std::string path = join(base, leaf);
      // Two controllers of one hierarchy share the group; one that was there before is not ours to use.
      const bool shared = std::any_of(group.v1_paths_.begin(), group.v1_paths_.end(),
                                      [&](const auto& other) { return other.second == path; });
      if (!shared && mkdir(path.c_str(), 0755) < 0) return errno_failure("mkdir", path);
      group.v1_paths_.emplace_back(controller, path);
      if (shared) continue;
      group.v1_tasks_.emplace_back(::open((path + "/tasks").c_str(), O_WRONLY | O_CLOEXEC));
      if (!group.v1_tasks_.back()) return errno_failure("open", path + "/tasks");
    }
    if (!places_.v1_io_base.empty()) {
      group.v1_tasks_.emplace_back(::open((places_.v1_io_base + "/tasks").c_str(), O_WRONLY | O_CLOEXEC));
      if (!group.v1_tasks_.back()) return errno_failure("open", places_.v1_io_base + "/tasks");
    }
    if (auto done = group.open_events(); !done) return done;
    group.v2_.reset(::open(group.v2_path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return group.v2_ ? Result<>{} : errno_failure("open", group.v2_path_);
  };
  if (auto done = build(); !done) {
    (void)group.remove();
    return tl::unexpected(done.error());
  }
  return group;
}

Result<AgentCgroup> CgroupTree::reopen(const std::string& leaf) const {
  AgentCgroup group;
  group.v2_path_ = join(places_.v2_base, leaf);
  for (const auto& [controller, base] : places_.v1_bases) group.v1_paths_.emplace_back(controller, join(base, leaf));
  if (auto done = group.open_events(); !done) return tl::unexpected(done.error());
  return group;
}

std::vector<std::string> CgroupTree::others(const std::vector<std::string>& known) const {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(places_.v2_base.c_str()), closedir);
  if (!directory) return names;
  while (const dirent* entry = readdir(directory.get())) {
    if (entry->d_type != DT_DIR || entry->d_name[0] == '.') continue;
    if (std::find(known.begin(), known.end(), entry->d_name) == known.end()) names.emplace_back(entry->d_name);
  }
  return names;
}

void CgroupTree::remove() {
  for (const auto& [controller, path] : places_.v1_bases) (void)rmdir(path.c_str());
  if (!places_.v1_io_base.empty()) (void)rmdir(places_.v1_io_base.c_str());
  if (!places_.v2_base.empty()) (void)rmdir(places_.v2_base.c_str());
  if (!places_.v2_keeper.empty()) {
    // The leaf is empty only when this process has left it, which a group with controllers does not let it.
    const std::string own = places_.v2_keeper.substr(0, places_.v2_keeper.rfind('/'));
    (void)write_file(own + "/cgroup.subtree_control", "-memory -cpu -pids");
    if (write_file(own + "/cgroup.procs", "0")) (void)rmdir(places_.v2_keeper.c_str());
  }
  places_.v1_bases.clear();
  places_.v1_io_base.clear();
  places_.v2_base.clear();
  places_.v2_keeper.clear();
}

}  // namespace kai::sandbox
