#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <utility>

#include "base/text.h"
#include "supervisor/keeper/keeper.h"
#include "supervisor/keeper/process_info.h"
#include "supervisor/keeper/process_tree.h"

namespace kai::keeper {
namespace {

constexpr auto kLook = std::chrono::seconds(1);
constexpr std::size_t kOpenFilesBudget = 4096;  // processes and descriptors of all agents a look: some milliseconds

// Read and not waited for: on v1 the kernel wakes nobody, and a bomb would wake the keeper all the time.
std::uint32_t refused_forks(const sandbox::AgentCgroup& group) {
  constexpr std::string_view kKey = "max ";
  std::array<char, 256> text{};
  const ssize_t length = pread(group.pids_event_fd(), text.data(), text.size(), 0);
  std::uint32_t count = 0;
  if (length > 0 && std::string_view(text.data(), static_cast<std::size_t>(length)).starts_with(kKey)) {
    (void)std::from_chars(text.data() + kKey.size(), text.data() + length, count);
  }
  return count;
}

}  // namespace

void Keeper::watch_memory() {
  for (auto& [instance, agent] : agents_) {
    if (agent.pid == 0 || agent.failure || agent.watchdog_kills > 0) continue;
    if (tree_usage(agent.pid).memory_bytes <= agent.memory_limit) continue;
    if (exact_tree_memory(agent.pid) <= agent.memory_limit) continue;
    agent.watchdog_kills = 1;
    look_at_end(agent);
    kill(agent);
  }
}

// The last chance to tell: the counters go with the groups.
void Keeper::look_at_end(Agent& agent) {
  LimitWatch::Hits hits;
  const auto now = Clock::now();
  const auto usage = agent.cgroup ? agent.cgroup->usage() : sandbox::CgroupUsage{};
  agent.limits.look_at_memory(std::max(usage.oom_kills, agent.watchdog_kills), now, hits);
  agent.limits.look_at_pids(usage.pids_refused, true, now, hits);
  if (const auto space = agent.has_disk ? disks_.space(agent.id) : std::nullopt) {
    agent.limits.look_at_space(*space, now, hits);
  }
  tell(hits);
}

// Once a second, of what nothing tells by itself.
void Keeper::look_at_limits() {
  const auto now = Clock::now();
  LimitWatch::Hits hits;
  for (auto& [instance, agent] : agents_) {
    if (!agent.runs()) continue;
    if (agent.cgroup) agent.limits.look_at_pids(refused_forks(*agent.cgroup), false, now, hits);
    if (const auto space = agent.has_disk ? disks_.space(agent.id) : std::nullopt) {
      agent.limits.look_at_space(*space, now, hits);
    }
  }
  look_at_open_files(now, hits);
  tell(hits);
  if (const std::uint32_t lost = audit_ ? audit_->take_lost(now) : 0; lost > 0) {
    say("the kernel's audit sends more than is read: " + std::to_string(lost) +
        " records lost; some refused files are not shown. Agents are held just the same");
  }
  next_look_ = Clock::now() + kLook;
}

// Every agent once, beginning where the last round stopped, as far as the budget of this second goes.
void Keeper::look_at_open_files(Clock::time_point now, LimitWatch::Hits& hits) {
  std::size_t budget = kOpenFilesBudget;
  auto next = agents_.lower_bound(next_open_files_);
  for (std::size_t left = agents_.size(); left > 0 && budget > 0; --left, ++next) {
    if (next == agents_.end()) next = agents_.begin();
    Agent& agent = next->second;
    next_open_files_ = agent.instance + 1;
    if (!agent.runs()) continue;
    if (!agent.open_files) {
      agent.open_files.emplace(agent.cgroup ? agent.cgroup->processes() : process_tree(agent.pid),
                               agent.limits.open_files(), kernel_counts_open_files());
    }
    if (!agent.open_files->step(budget)) return;  // goes on when its turn comes again
    const std::uint64_t most = agent.open_files->most();
    const bool reached = most >= agent.limits.open_files();
    const auto name = reached ? name_process(agent.open_files->holder(), agent.pid) : std::nullopt;
    agent.limits.look_at_open_files(most, name.value_or(ProcessName{}), now, hits);
    agent.open_files.reset();
  }
}

void Keeper::measure_directories() {
  const auto now = Clock::now();
  LimitWatch::Hits hits;
  for (auto& [instance, agent] : agents_) {
    if (!agent.directory || !agent.runs()) continue;
    agent.directory->tick(now);
    if (agent.limits.look_at_directory(agent.directory->usage(), agent.directory->too_deep(), now, hits)) kill(agent);
  }
  tell(hits);
}

void Keeper::tell(LimitWatch::Hits& hits) {
  for (LimitHit& hit : hits) {
    Reply message;
    *message.mutable_limit() = std::move(hit);
    reply(message);
  }
}

void Keeper::watch_audit() {
  if (!audit_) return;
  tell(audit_->take_overdue(Clock::now()));
  const bool wanted = !audit_->paused();
  if (wanted == audit_watched_) return;
  epoll_event event{.events = EPOLLIN, .data = {.fd = audit_->fd()}};
  if (epoll_ctl(epoll_.get(), wanted ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, audit_->fd(), &event) == 0) {
    audit_watched_ = wanted;
  }
}

void Keeper::tell(const std::vector<LandlockDenial>& denials) {
  for (const LandlockDenial& denial : denials) {
    // Of a domain whose record was lost: who was refused tells whose it is.
    const ino_t space = denial.agent == 0 ? pid_namespace(denial.pid) : 0;
    const auto found = std::find_if(agents_.begin(), agents_.end(), [&](const auto& entry) {
      const Agent& agent = entry.second;
      return denial.agent != 0 ? agent.pid == denial.agent : space != 0 && agent.pid_namespace == space;
    });
    if (found == agents_.end()) continue;
    Agent& agent = found->second;
    if (!agent.audit.take(Clock::now())) continue;
    Reply message;
    auto* told = message.mutable_file_denied();
    told->set_instance(agent.instance);
    told->set_access(escape_for_terminal(denial.access));
    told->set_path(escape_for_terminal(denial.path));
    told->set_process(escape_for_terminal(denial.comm));
    if (const auto name = name_process(denial.pid, agent.pid)) told->set_pid(name->inner_pid);
    told->set_dropped(agent.audit.take_dropped());
    reply(message);
  }
}

}  // namespace kai::keeper
