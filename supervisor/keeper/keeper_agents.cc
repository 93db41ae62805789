#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <utility>

#include "base/unix.h"
#include "supervisor/keeper/keeper.h"

namespace kai::keeper {

// What is left of a tree that lost a process to its memory limit is not what it believes to be.
void Keeper::on_oom(Agent& agent) {
  unwatch(agent.cgroup->oom_event_fd());
  agent.watchdog_kills = 1;
  look_at_end(agent);
  kill(agent);
}

std::optional<Keeper::End> Keeper::end_of(const Agent& agent) {
  if (agent.orphan) {
    pollfd ended{.fd = agent.pidfd.get(), .events = POLLIN, .revents = 0};
    if (poll(&ended, 1, 0) != 1) return std::nullopt;
    return End{.unknown = true, .signaled = false, .code = 0};
  }
  siginfo_t info{};
  if (waitid(P_PIDFD, static_cast<id_t>(agent.pidfd.get()), &info, WEXITED | WNOHANG | __WALL) < 0 || info.si_pid == 0)
    return std::nullopt;
  return End{.unknown = false, .signaled = info.si_code != CLD_EXITED, .code = info.si_status};
}

void Keeper::on_agent_exit(Agent& agent) {
  // What it reported before is waiting on the channel and comes first, one at a time: not waited for, it calls again.
  if (agent.request != 0) return on_report(agent);
  const auto end = end_of(agent);
  if (!end) return;
  look_at_end(agent);
  Reply message;
  auto* exited = message.mutable_exited();
  exited->set_instance(agent.instance);
  exited->set_unknown(end->unknown);
  exited->set_signaled(end->signaled);
  exited->set_code(end->code);
  exited->set_oom_kills(agent.watchdog_kills);
  if (agent.cgroup) {
    const auto usage = agent.cgroup->usage();
    exited->set_oom_kills(std::max(usage.oom_kills, agent.watchdog_kills));
    exited->set_pids_refused(usage.pids_refused);
  }
  const bool told = !agent.untold;
  if (told && !agent.ephemeral) remember(agent, *exited, std::move(agent.output));
  release(agent);
  if (told) reply(message);
}

void Keeper::release(Agent& agent) {
  unstore(agent);
  egress_.remove(agent.instance);
  serve_egress();  // before anybody hears of its end
  end_freezing(agent);
  if (agent.pidfd) instance_of_.erase(agent.pidfd.get());
  if (agent.cgroup) instance_of_.erase(agent.cgroup->oom_event_fd());
  if (agent.cgroup && !agent.cgroup->remove()) dying_groups_.push_back(std::move(*agent.cgroup));
  agents_.erase(agent.instance);
}

void Keeper::kill(const Agent& agent) {
  // PID 1 of its namespace: the kernel ends everything in it too.
  if (agent.pidfd) (void)signal_pidfd(agent.pidfd.get(), SIGKILL);
}

void Keeper::kill_all() {
  for (auto& [instance, agent] : agents_) {
    kill(agent);
    if (agent.starter.pidfd) (void)signal_pidfd(agent.starter.pidfd.get(), SIGKILL);
  }
}

void Keeper::remove_groups() {
  std::erase_if(dying_groups_, [](auto& group) { return group.remove().has_value(); });
}

}  // namespace kai::keeper
