#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/unix.h"
#include "supervisor/keeper/check.h"
#include "supervisor/keeper/child.h"
#include "supervisor/keeper/keeper.h"
#include "supervisor/keeper/process_info.h"

namespace kai::keeper {
namespace {

// Of a Spawn, before those of DESCRIPTOR mounts.
constexpr std::size_t kOutputAt = 5;  // the reading ends, but for an ephemeral one
constexpr std::size_t fixed_descriptors(bool ephemeral) {
  return ephemeral ? kOutputAt : kOutputAt + 2;
}
constexpr const char* kTooFewDescriptors =
    "kaid may not open enough descriptors for one more agent (RLIMIT_NOFILE): raise LimitNOFILE of its unit, or "
    "ulimit -n";
constexpr auto kFailurePatience = std::chrono::seconds(1);

bool is_pipe(const Fd& fd) {
  struct stat status {};
  return fstat(fd.get(), &status) == 0 && S_ISFIFO(status.st_mode);
}

}  // namespace

void Keeper::on_spawn(std::uint64_t id, const Spawn& spawn, std::vector<Fd> fds) {
  const auto refuse = [&](const char* why) { fail(id, "request", Error{why, 0, ""}); };
  if (stop_deadline_) return refuse("kaid is stopping");
  if (id == 0 || fds.size() < fixed_descriptors(spawn.ephemeral())) return refuse("a descriptor is missing");
  if (agents_.size() >= kMaxAgents) return refuse("too many agents");
  if (!has_descriptors(kDescriptorsPerAgent)) return refuse(kTooFewDescriptors);
  // What is kept here is closed here, which must not wait for anybody.
  if (!spawn.ephemeral() && !(is_pipe(fds[kOutputAt]) && is_pipe(fds[kOutputAt + 1]))) {
    return refuse("the reading ends of its output are no pipes");
  }
  if (agents_.contains(spawn.instance())) return refuse("the instance is in use");
  if (identity_.root && spawn.uid_slot() >= kUidSlots) return refuse("the id range does not exist");
  Agent& agent = agents_[spawn.instance()];
  agent.instance = spawn.instance();
  agent.request = id;
  agent.uid_slot = spawn.uid_slot();
  agent.ephemeral = spawn.ephemeral();
  agent.asked = Clock::now();
  const Fd spec = std::move(fds[4]);
  std::string step = "request";
  if (auto begun = begin_spawn(agent, spec, std::move(fds), step); !begun) set_up_failed(agent, step, begun.error());
}

/// An id range is one agent's alone. Two instances of it may be there at a time, while one version takes the place of
/// another.
bool Keeper::may_use_slot(const Agent& agent) const {
  if (!identity_.root) return true;
  std::size_t own = 0;
  for (const auto& [instance, other] : agents_) {
    if (instance == agent.instance || other.uid_slot != agent.uid_slot) continue;
    if (other.id != agent.id || other.ephemeral || agent.ephemeral || ++own > 1) return false;
  }
  return true;
}

/// What the machine does not give and this agent needs: let off by its policy, or no start.
Result<> Keeper::take_layers(Agent& agent, const spec::SandboxSpec& spec, std::string& step) {
  for (const auto& layer : missing_) {
    if (layer == "disk" && !spec.has_disk()) continue;
    const auto& allowed = spec.degrade();
    if (std::find(allowed.begin(), allowed.end(), layer) == allowed.end()) {
      step = layer;
      const std::string why = layer == "cgroup" ? cgroups_.why_none()
                              : layer == "disk" ? disks_.why_not()
                                                : "not available to an ordinary user";
      return failure("this machine does not give the layer " + layer + " (" + why +
                     "); see 'kaictl doctor', or let the operator's policy list it under degrade");
    }
    agent.degraded.push_back(layer);
  }
  return {};
}

Result<> Keeper::use_cgroup(Agent& agent, const spec::SandboxSpec& spec) {
  agent.memory_limit = spec.cgroup().memory_bytes();
  if (cgroups_.backend() == sandbox::CgroupTree::Backend::kNone) return {};
  if (spare_groups_.empty()) {
    if (auto done = add_spare_group(); !done) return done;
  }
  agent.cgroup = std::move(spare_groups_.front());
  spare_groups_.pop_front();
  return agent.cgroup->limit(spec.cgroup());
}

Result<PrivateData> Keeper::open_private_data(Agent& agent, const spec::SandboxSpec& spec) {
  if (!spec.has_disk()) return PrivateData{};
  auto data = disks_.open(agent.id, spec.disk());
  if (!data) return data;
  agent.has_disk = true;
  if (data->readable) agent.directory.emplace(std::move(data->readable));
  return data;
}

Result<> Keeper::add_spare_group() {
  auto group = cgroups_.create("agent-" + std::to_string(getpid()) + "-" + std::to_string(next_group_++));
  if (!group) return tl::unexpected(group.error());
  spare_groups_.push_back(std::move(*group));
  return {};
}

// What a start needs and can be had before it is asked for.
void Keeper::refill() {
  Result<> done = starters_.refill();
  const bool groups = cgroups_.backend() != sandbox::CgroupTree::Backend::kNone;
  while (done && groups && spare_groups_.size() < Starters::kReady) done = add_spare_group();
  if (!done) say("cannot prepare the next start: " + done.error().message());
}

Result<> Keeper::begin_spawn(Agent& agent, const Fd& spec_fd, std::vector<Fd> fds, std::string& step) {
  const std::size_t fixed = fixed_descriptors(agent.ephemeral);
  const auto spec = read_spec(spec_fd, {policies_.parsed, fds.size() - fixed});
  if (!spec) return tl::unexpected(spec.error());
  agent.id = spec->agent_id();
  if (!may_use_slot(agent)) return failure("the id range is in use");
  *agent.held.mutable_cgroup() = spec->cgroup();
  if (spec->has_disk()) *agent.held.mutable_disk() = spec->disk();
  *agent.held.mutable_rlimits() = spec->rlimits();
  agent.limits = LimitWatch(agent.instance, agent.held);
  if (auto done = take_layers(agent, *spec, step); !done) return done;
  step = "cgroup";
  if (auto done = use_cgroup(agent, *spec); !done) return done;
  step = "disk";
  const auto data = open_private_data(agent, *spec);
  if (!data) return tl::unexpected(data.error());
  step = "starter";
  const bool host_network = spec->host_network() || spec->unsandboxed();
  auto starter = host_network ? starters_.launch_in_host_network() : starters_.take();
  refill_at_ = Clock::now() + kRefillDelay;
  if (!starter) return tl::unexpected(starter.error());
  agent.starter = std::move(*starter);

  starter::Job job;
  prepare_network(agent, *spec, job);
  if (!has_descriptors(agent.network_size)) return failure(kTooFewDescriptors);
  std::vector<int> packet = {spec_fd.get(), fds[0].get(), fds[1].get(), fds[2].get(), fds[3].get()};
  if (agent.cgroup) {
    job.set_v2_group(true);
    packet.push_back(agent.cgroup->v2_fd());
    job.set_v1_groups(static_cast<std::uint32_t>(agent.cgroup->v1_tasks().size()));
    for (const Fd& tasks : agent.cgroup->v1_tasks()) packet.push_back(tasks.get());
  }
  job.set_private_data(data->kind);
  if (data->fd) packet.push_back(data->fd.get());
  for (std::size_t at = fixed; at < fds.size(); ++at) packet.push_back(fds[at].get());
  if (identity_.root) {
    job.set_uid_base(kUidBase + agent.uid_slot * kUidsPerAgent);
    job.set_uid_count(kUidsPerAgent);
  }
  agent.outlives_keeper = outlives(agent);
  job.set_outlives_keeper(agent.outlives_keeper);
  job.set_packages_dir(config_.state_dir + "/packages");
  job.set_program_dir(programs_.directory);
  job.set_sdk_dir(programs_.sdk);
  if (auto sent = send_packet(agent.starter.channel.get(), job.SerializeAsString(), packet); !sent) return sent;
  if (!agent.ephemeral) agent.output = {std::move(fds[kOutputAt]), std::move(fds[kOutputAt + 1])};
  return watch(agent, agent.starter.channel.get(), EPOLLIN);
}

Result<> Keeper::watch(Agent& agent, int fd, std::uint32_t events) {
  if (fd < 0) return {};  // not of this cgroup backend
  epoll_event event{.events = events, .data = {.fd = fd}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0) return errno_failure("epoll_ctl");
  instance_of_[fd] = agent.instance;
  return {};
}

void Keeper::on_report(Agent& agent) {
  auto packet = receive_packet(agent.starter.channel.get(), kMaxRequestBytes, MSG_DONTWAIT);
  if (!packet && packet.error().error_number == EAGAIN) return;
  starter::Report report;
  if (!packet || packet->bytes.empty()) {
    return set_up_failed(agent, "starter", Error{"the process ended without saying why", 0, ""});
  }
  if (!report.ParseFromString(packet->bytes)) return set_up_failed(agent, "starter", Error{"not a report", 0, ""});
  switch (report.kind_case()) {
    case starter::Report::kForked:
      return on_forked(agent, report.forked());
    case starter::Report::kNetwork:
      return on_network(agent, std::move(packet->fds));
    case starter::Report::kListener:
      if (packet->fds.size() != 1) return set_up_failed(agent, "seccomp", Error{"a listener without itself", 0, ""});
      agent.listener = std::move(packet->fds[0]);
      return;
    case starter::Report::kVerified:
      for (const auto& layer : report.degraded()) {
        const auto& known = agent.degraded;
        if (std::find(known.begin(), known.end(), layer) == known.end()) agent.degraded.push_back(layer);
      }
      return on_verified(agent);
    default:
      return set_up_failed(agent, report.failure().step(),
                           Error{report.failure().detail(), report.failure().errno_value(), ""});
  }
}

// The pid is a child of the keeper that nobody has waited for: it cannot be another process's.
void Keeper::on_forked(Agent& agent, pid_t pid) {
  siginfo_t info{};
  auto pidfd = open_pidfd(pid);
  if (!pidfd || waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0) {
    return set_up_failed(agent, "starter", Error{"the new process is not a child of the keeper", 0, ""});
  }
  agent.pid = pid;
  agent.pid_namespace = pid_namespace(pid);
  agent.pidfd = std::move(*pidfd);
  if (auto done = watch(agent, agent.pidfd.get(), EPOLLIN); !done) return set_up_failed(agent, "starter", done.error());
  if (!agent.cgroup) return;
  if (auto done = watch(agent, agent.cgroup->oom_event_fd(), EPOLLIN); !done) {
    set_up_failed(agent, "cgroup", done.error());
  }
}

void Keeper::on_verified(Agent& agent) {
  if (!agent.pidfd) return set_up_failed(agent, "starter", Error{"verified before it was forked", 0, ""});
  Fd listener(agent.listener ? fcntl(agent.listener.get(), F_DUPFD_CLOEXEC, 0) : -1);
  // Without it nobody would answer, and the first refused call would wait for ever.
  if (agent.listener && !listener) return set_up_failed(agent, "seccomp", Error{"fcntl F_DUPFD_CLOEXEC", errno, ""});
  const auto now = Clock::now();
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(now - agent.asked);
  agent.setup_us = static_cast<std::uint32_t>(took.count());
  agent.verified_ms =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count());
  Reply message;
  message.set_id(std::exchange(agent.request, 0));
  auto* spawned = message.mutable_spawned();
  spawned->set_pid(agent.pid);
  for (const auto& layer : agent.degraded) spawned->add_degraded(layer);
  spawned->set_setup_us(agent.setup_us);
  std::vector<Fd> beside;
  if (listener) beside.push_back(std::move(listener));
  reply(message, std::move(beside));
  if (agent.cgroup) agent.cgroup->entered();
  keep_channel(agent);
  end_starter(agent);
  if (!reap(agent.starter.pidfd)) ending_children_.push_back(std::move(agent.starter.pidfd));
  agent.starter = {};
  store_soon();
}

void Keeper::unwatch(int fd) {
  instance_of_.erase(fd);
  (void)epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

/// on_tick sees the end of this child. Where that fails (out of watches), a later tick does.
void Keeper::wake_at_end(const Fd& pidfd) {
  epoll_event event{.events = EPOLLIN, .data = {.fd = pidfd.get()}};
  (void)epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, pidfd.get(), &event);
}

/// From here on its other end is the agent's: nothing is read from it, and nothing waits for it.
void Keeper::keep_channel(Agent& agent) {
  unwatch(agent.starter.channel.get());
  agent.channel = std::move(agent.starter.channel);
  (void)shutdown(agent.channel.get(), SHUT_RD);
  (void)set_nonblocking(agent.channel.get());
}

/// It has made its agent and exits, or its end is not wanted any more; SIGKILL to a zombie does nothing.
void Keeper::end_starter(Agent& agent) {
  if (!agent.starter.pidfd) return;
  if (agent.starter.channel) unwatch(agent.starter.channel.get());
  agent.starter.channel.reset();
  (void)signal_pidfd(agent.starter.pidfd.get(), SIGKILL);
  wake_at_end(agent.starter.pidfd);
}

void Keeper::set_up_failed(Agent& agent, const std::string& step, const Error& error) {
  if (agent.failure) return;
  agent.failure = {step, error, Clock::now()};
  end_starter(agent);
  kill(agent);
  if (agent.cgroup) unwatch(agent.cgroup->oom_event_fd());
  look_at_failed(agent, agent.failure->since);
}

/// Its ids, groups and data are free again when the kernel has let go of every process of it, and not before. Control
/// hears of the failure then, so that it can use them; of a process that hangs in the kernel, after a moment.
void Keeper::look_at_failed(Agent& agent, Clock::time_point now) {
  for (Fd* const pidfd : {&agent.starter.pidfd, &agent.pidfd}) {
    if (!*pidfd || !reap(*pidfd)) continue;
    unwatch(pidfd->get());
    pidfd->reset();
  }
  const bool gone = !agent.starter.pidfd && !agent.pidfd;
  if (!gone && now - agent.failure->since < kFailurePatience) return;
  if (agent.request != 0) fail(std::exchange(agent.request, 0), agent.failure->step, agent.failure->error);
  if (gone) release(agent);
}

}  // namespace kai::keeper
