#include "supervisor/keeper/keeper.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <utility>

#include "base/unix.h"
#include "supervisor/keeper/check.h"
#include "supervisor/keeper/process_tree.h"

namespace kai::keeper {
namespace {

constexpr std::size_t kMaxRequestBytes = 64 << 10;
constexpr std::size_t kMaxAgents = 4096;
constexpr std::size_t kMaxReplies = 4 * kMaxAgents;
constexpr auto kStopDeadline = std::chrono::seconds(30);  // control's own deadlines are shorter
constexpr auto kSecondThought = std::chrono::seconds(2);
constexpr auto kSetUpDeadline = std::chrono::seconds(10);
constexpr auto kControlWindow = std::chrono::seconds(60);
constexpr std::size_t kControlDeaths = 5;  // in that window: something is broken for good
constexpr int kWatchdogMs = 250;
// New starters are made when no start was asked for in this time: making one takes a millisecond of a cpu, which an
// agent that has just been started needs more.
constexpr auto kRefillDelay = std::chrono::milliseconds(3);

// Agents' id ranges: 1,024 ids each from 0x70000000, above every range that Debian, systemd or containers use, and
// below 2^31, where some programs stop to understand uids.
constexpr std::uint32_t kUidBase = 0x70000000;
constexpr std::uint32_t kUidsPerAgent = 1024;
constexpr std::uint32_t kUidSlots = (0x7FFF0000 - kUidBase) / kUidsPerAgent;

std::string instance_name(const std::string& state_dir) {
  // FNV-1a: a name for groups, not a secret; two kaids on one machine have two state directories.
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : state_dir) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001b3;
  std::array<char, 32> name{};
  std::snprintf(name.data(), name.size(), "kai-%08" PRIx64, hash >> 32);
  return name.data();
}

void say(const std::string& line) {
  std::fprintf(stderr, "kaid: %s\n", line.c_str());
}

}  // namespace

Keeper::Keeper(Config config, Identity identity, Programs programs, Starters starters, sandbox::CgroupTree cgroups)
    : config_(std::move(config)),
      identity_(identity),
      programs_(std::move(programs)),
      starters_(std::move(starters)),
      cgroups_(std::move(cgroups)) {
  if (cgroups_.backend() == sandbox::CgroupTree::Backend::kNone) missing_.emplace_back("cgroup");
  // Without a range of ids an ordinary user's supplementary groups cannot be dropped (user_namespaces(7)).
  if (!identity_.root) missing_.emplace_back("groups");
}

Result<Keeper> Keeper::create(Config config, Identity identity, Programs programs) {
  auto starters = Starters::open(programs.directory + "/kai-agent-host", identity.root);
  if (!starters) return tl::unexpected(starters.error());
  auto cgroups = sandbox::CgroupTree::open(instance_name(config.state_dir), identity.root);
  Keeper keeper(std::move(config), identity, std::move(programs), std::move(*starters), std::move(cgroups));
  if (auto done = keeper.prepare_loop(); !done) return tl::unexpected(done.error());
  return keeper;
}

Result<> Keeper::prepare_loop() {
  sigset_t handled;
  sigemptyset(&handled);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2}) sigaddset(&handled, signal);
  if (sigprocmask(SIG_BLOCK, &handled, nullptr) < 0) return errno_failure("sigprocmask");
  signals_.reset(signalfd(-1, &handled, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) return errno_failure("signalfd");
  epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return errno_failure("epoll_create1");
  epoll_event event{.events = EPOLLIN, .data = {.fd = signals_.get()}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, signals_.get(), &event) < 0) return errno_failure("epoll_ctl");
  return {};
}

int Keeper::run() {
  if (auto started = launch_control(); !started) {
    say(started.error().message());
    return 1;
  }
  std::array<epoll_event, 64> events{};
  while (!finished()) {
    const int count = epoll_wait(epoll_.get(), events.data(), events.size(), next_timeout_ms());
    if (count < 0 && errno != EINTR) {
      say("epoll_wait: " + Error{"", errno, ""}.message());
      kill_all();
      return 1;
    }
    for (int at = 0; at < count; ++at) dispatch(events[static_cast<std::size_t>(at)].data.fd);
    on_tick();
  }
  starters_.end();
  for (auto& group : spare_groups_) (void)group.remove();
  cgroups_.remove();
  return exit_status_;
}

void Keeper::dispatch(int fd) {
  if (fd == signals_.get()) return on_signal();
  if (fd == control_.channel.get()) {
    if (!replies_.empty()) flush_replies();
    return on_control_packet();
  }
  if (fd == control_.pidfd.get()) return on_control_exit();
  // An earlier event of the same round may have released the agent that this descriptor belonged to.
  const auto found = instance_of_.find(fd);
  if (found == instance_of_.end()) return;
  Agent& agent = agents_.at(found->second);
  if (fd == agent.pidfd.get()) return on_agent_exit(agent);
  if (agent.cgroup && fd == agent.cgroup->oom_event_fd()) return on_oom(agent);
  on_report(agent);
}

int Keeper::next_timeout_ms() const {
  if (!dying_groups_.empty() || refill_at_) return static_cast<int>(kRefillDelay.count());
  const bool setting_up =
      std::any_of(agents_.begin(), agents_.end(), [](const auto& entry) { return entry.second.request != 0; });
  const bool watching = cgroups_.backend() == sandbox::CgroupTree::Backend::kNone && !agents_.empty();
  return watching || setting_up || stop_deadline_ ? kWatchdogMs : -1;
}

void Keeper::on_tick() {
  const auto now = Clock::now();
  bool setting_up = false;
  for (auto& [instance, agent] : agents_) {
    if (agent.request == 0) continue;
    setting_up = true;
    if (now - agent.asked < kSetUpDeadline) continue;
    // One at a time: set_up_failed changes the map.
    set_up_failed(agent, "starter", Error{"no answer within 10 s", 0, ""});
    break;
  }
  if (cgroups_.backend() == sandbox::CgroupTree::Backend::kNone) watch_memory();
  remove_groups();
  if (refill_at_ && now >= *refill_at_ && !setting_up && !stop_deadline_) {
    refill_at_.reset();
    refill();
  }
  if (stop_deadline_ && now > *stop_deadline_) {
    if (control_.pidfd || !agents_.empty()) say("control did not end in time; ending it and every agent");
    kill_all();
    if (control_.pidfd) (void)signal_pidfd(control_.pidfd.get(), SIGKILL);
    if (agents_.empty() && !dying_groups_.empty()) {
      say("a control group of an agent cannot be removed: something else stands in it; see " +
          std::string(cgroups_.backend_name()) + " groups named kai-*");
      dying_groups_.clear();
      exit_status_ = 1;
    }
    stop_deadline_ = now + kStopDeadline;
  }
}

// ── control ──

Result<> Keeper::launch_control() {
  auto started = start_control(config_, identity_, programs_);
  if (!started) return tl::unexpected(started.error());
  control_ = std::move(*started);
  control_ready_ = false;
  if (auto done = set_nonblocking(control_.channel.get()); !done) return done;
  for (const int fd : {control_.channel.get(), control_.pidfd.get()}) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0) return errno_failure("epoll_ctl");
  }
  greet_control();
  return {};
}

void Keeper::greet_control() {
  Reply message;
  auto* hello = message.mutable_hello();
  hello->set_root(identity_.root);
  hello->set_state_dir(config_.state_dir);
  hello->set_runtime_dir(config_.runtime_dir);
  hello->set_program_dir(programs_.directory);
  hello->set_sdk_dir(programs_.sdk);
  hello->set_cgroup_backend(cgroups_.backend_name());
  for (const auto& layer : missing_) hello->add_missing(layer);
  hello->set_uid_slots(identity_.root ? kUidSlots : 0);
  hello->set_operator_uid(geteuid());
  hello->set_socket_gid(identity_.control_gid);
  hello->set_config_path(config_.config_path);
  hello->set_keeper_pid(getpid());
  hello->set_log_level(config_.log_level);
  reply(message);
}

// Never blocks: the keeper waits for every agent, and a control that hangs must not keep it from that.
void Keeper::reply(const Reply& message) {
  if (!control_.channel) return;
  replies_.push_back(message.SerializeAsString());
  if (replies_.size() > kMaxReplies) {
    say("control does not read its answers; ending it");
    replies_.clear();
    (void)signal_pidfd(control_.pidfd.get(), SIGKILL);
    return;
  }
  if (replies_.size() == 1) flush_replies();
}

void Keeper::flush_replies() {
  while (!replies_.empty()) {
    auto sent = send_packet(control_.channel.get(), replies_.front());
    if (!sent && sent.error().error_number == EAGAIN) break;
    replies_.pop_front();  // also on EPIPE: on_control_exit is about to be called
  }
  epoll_event event{.events = EPOLLIN | (replies_.empty() ? 0U : EPOLLOUT), .data = {.fd = control_.channel.get()}};
  (void)epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, control_.channel.get(), &event);
}

void Keeper::fail(std::uint64_t request, const std::string& step, const Error& error) {
  Reply message;
  message.set_id(request);
  auto* failed = message.mutable_failed();
  failed->set_step(step);
  failed->set_errno_value(error.error_number);
  failed->set_detail(error.context.empty() ? error.what : error.what + " " + error.context);
  reply(message);
}

void Keeper::on_control_packet() {
  auto packet = receive_packet(control_.channel.get(), kMaxRequestBytes, MSG_DONTWAIT);
  if (!packet && packet.error().error_number == EAGAIN) return;
  if (!packet && packet.error().error_number == ECONNRESET) packet = Packet{};  // it ended with answers unread
  if (!packet) {
    say("request of control: " + packet.error().message());
    (void)signal_pidfd(control_.pidfd.get(), SIGKILL);  // out of its mind; on_control_exit starts another
    return;
  }
  Request request;
  if (packet->bytes.empty() && packet->fds.empty()) {  // it closed its end: about to exit
    (void)epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, control_.channel.get(), nullptr);
    return;
  }
  if (!request.ParseFromString(packet->bytes)) return fail(0, "request", {"not a request", 0, ""});
  switch (request.op_case()) {
    case Request::kSpawn:
      return on_spawn(request.id(), request.spawn(), std::move(packet->fds));
    case Request::kKill: {
      const auto found = agents_.find(request.kill().instance());
      if (found != agents_.end()) kill(found->second);
      Reply done;
      done.set_id(request.id());
      done.mutable_done();
      return reply(done);
    }
    case Request::kUsage:
      return on_usage(request.id(), request.usage().instance());
    case Request::kReady:
      control_ready_ = true;
      service_manager_.notify("READY=1\nSTATUS=serving");
      return;
    default:
      return fail(request.id(), "request", {"unknown request", 0, ""});
  }
}

// Agents do not outlive control yet (adoption comes with the supervision issue): they are ended, and the next control
// starts those that are desired running.
void Keeper::on_control_exit() {
  siginfo_t info{};
  if (waitid(P_PIDFD, static_cast<id_t>(control_.pidfd.get()), &info, WEXITED | WNOHANG | __WALL) < 0) return;
  if (info.si_pid == 0) return;  // an event of the descriptor's former owner
  control_ = {};
  replies_.clear();
  // Nobody waits for these starts any more, and the next control numbers its requests anew.
  for (auto next = agents_.begin(); next != agents_.end();) {
    Agent& agent = (next++)->second;
    if (agent.request != 0) set_up_failed(agent, "request", Error{"control ended", 0, ""});
  }
  kill_all();
  if (stop_deadline_) return;
  const bool configuration = info.si_code == CLD_EXITED && info.si_status == 2;
  const auto now = Clock::now();
  control_deaths_.push_back(now);
  while (now - control_deaths_.front() > kControlWindow) control_deaths_.pop_front();
  say(std::string("control ended unexpectedly (") + (info.si_code == CLD_EXITED ? "exit status " : "signal ") +
      std::to_string(info.si_status) + ")");
  if (configuration || !control_ready_ || control_deaths_.size() >= kControlDeaths) {
    say("giving up: it does not get to serve, or ended " + std::to_string(kControlDeaths) + " times in a minute");
    exit_status_ = configuration ? 2 : 1;
    stop_deadline_ = now + kStopDeadline;
    return;
  }
  if (auto started = launch_control(); !started) {
    say(started.error().message());
    exit_status_ = 1;
    stop_deadline_ = now + kStopDeadline;
  }
}

// ── starting an agent ──

void Keeper::on_spawn(std::uint64_t id, const Spawn& spawn, std::vector<Fd> fds) {
  const auto refuse = [&](const char* why) { fail(id, "request", Error{why, 0, ""}); };
  if (stop_deadline_) return refuse("kaid is stopping");
  if (id == 0 || fds.size() < 5) return refuse("a descriptor is missing");
  if (agents_.size() >= kMaxAgents) return refuse("too many agents");
  if (agents_.contains(spawn.instance())) return refuse("the instance is in use");
  if (identity_.root) {
    const bool taken = std::any_of(agents_.begin(), agents_.end(),
                                   [&](const auto& entry) { return entry.second.uid_slot == spawn.uid_slot(); });
    if (spawn.uid_slot() >= kUidSlots || taken) return refuse("the id range is in use or does not exist");
  }
  Agent& agent = agents_[spawn.instance()];
  agent.instance = spawn.instance();
  agent.request = id;
  agent.uid_slot = spawn.uid_slot();
  agent.asked = Clock::now();
  const Fd spec = std::move(fds[4]);
  std::string step = "request";
  if (auto begun = begin_spawn(agent, spec, std::move(fds), step); !begun) set_up_failed(agent, step, begun.error());
}

Result<> Keeper::use_cgroup(Agent& agent, const spec::SandboxSpec& spec, std::string& step) {
  for (const auto& layer : missing_) {
    const auto& allowed = spec.degrade();
    if (std::find(allowed.begin(), allowed.end(), layer) == allowed.end()) {
      step = layer;
      const std::string why = layer == "cgroup" ? cgroups_.why_none() : "not available to an ordinary user";
      return failure("this machine does not give the layer, and the policy does not let it be missing: " + why);
    }
    agent.degraded.push_back(layer);
  }
  agent.memory_limit = spec.cgroup().memory_bytes();
  if (cgroups_.backend() == sandbox::CgroupTree::Backend::kNone) return {};
  step = "cgroup";
  if (spare_groups_.empty()) {
    if (auto done = add_spare_group(); !done) return done;
  }
  agent.cgroup = std::move(spare_groups_.front());
  spare_groups_.pop_front();
  return agent.cgroup->limit(spec.cgroup());
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
  const auto spec = read_spec(spec_fd);
  if (!spec) return tl::unexpected(spec.error());
  if (auto done = use_cgroup(agent, *spec, step); !done) return done;
  step = "starter";
  auto starter = starters_.take();
  refill_at_ = Clock::now() + kRefillDelay;
  if (!starter) return tl::unexpected(starter.error());
  agent.starter = std::move(*starter);

  starter::Job job;
  std::vector<int> packet = {spec_fd.get(), fds[0].get(), fds[1].get(), fds[2].get(), fds[3].get()};
  if (agent.cgroup) {
    job.set_v2_group(true);
    packet.push_back(agent.cgroup->v2_fd());
    job.set_v1_groups(static_cast<std::uint32_t>(agent.cgroup->v1_tasks().size()));
    for (const Fd& tasks : agent.cgroup->v1_tasks()) packet.push_back(tasks.get());
  }
  for (std::size_t at = 5; at < fds.size(); ++at) packet.push_back(fds[at].get());
  if (identity_.root) {
    job.set_uid_base(kUidBase + agent.uid_slot * kUidsPerAgent);
    job.set_uid_count(kUidsPerAgent);
  }
  job.set_packages_dir(config_.state_dir + "/packages");
  job.set_program_dir(programs_.directory);
  job.set_sdk_dir(programs_.sdk);
  if (auto sent = send_packet(agent.starter.channel.get(), job.SerializeAsString(), packet); !sent) return sent;
  epoll_event event{.events = EPOLLIN, .data = {.fd = agent.starter.channel.get()}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, agent.starter.channel.get(), &event) < 0)
    return errno_failure("epoll_ctl");
  instance_of_[agent.starter.channel.get()] = agent.instance;
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
    case starter::Report::kVerified:
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
  agent.pidfd = std::move(*pidfd);
  epoll_event event{.events = EPOLLIN, .data = {.fd = agent.pidfd.get()}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, agent.pidfd.get(), &event) < 0) {
    return set_up_failed(agent, "starter", Error{"epoll_ctl", errno, ""});
  }
  instance_of_[agent.pidfd.get()] = agent.instance;
  const int oom = agent.cgroup ? agent.cgroup->oom_event_fd() : -1;
  if (oom < 0) return;
  event.data.fd = oom;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, oom, &event) < 0) {
    return set_up_failed(agent, "cgroup", Error{"epoll_ctl", errno, ""});
  }
  instance_of_[oom] = agent.instance;
}

// What is left of a tree that lost a process to its memory limit is not what it believes to be.
void Keeper::on_oom(Agent& agent) {
  const int oom = agent.cgroup->oom_event_fd();
  instance_of_.erase(oom);
  (void)epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, oom, nullptr);
  agent.watchdog_kills = 1;
  kill(agent);
}

void Keeper::on_verified(Agent& agent) {
  if (!agent.pidfd) return set_up_failed(agent, "starter", Error{"verified before it was forked", 0, ""});
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - agent.asked);
  Reply message;
  message.set_id(std::exchange(agent.request, 0));
  auto* spawned = message.mutable_spawned();
  spawned->set_pid(agent.pid);
  for (const auto& layer : agent.degraded) spawned->add_degraded(layer);
  spawned->set_setup_us(static_cast<std::uint32_t>(took.count()));
  reply(message);
  if (agent.cgroup) agent.cgroup->entered();
  stop_watching_starter(agent);
}

void Keeper::stop_watching_starter(Agent& agent) {
  if (!agent.starter.channel) return;
  instance_of_.erase(agent.starter.channel.get());
  (void)epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, agent.starter.channel.get(), nullptr);
  // It has made its agent and exits, or its end is not wanted any more; SIGKILL to a zombie does nothing.
  (void)signal_pidfd(agent.starter.pidfd.get(), SIGKILL);
  siginfo_t info{};
  (void)waitid(P_PIDFD, static_cast<id_t>(agent.starter.pidfd.get()), &info, WEXITED | __WALL);
  agent.starter = {};
}

void Keeper::set_up_failed(Agent& agent, const std::string& step, const Error& error) {
  // Once answered, control hears of the end by AgentExited.
  if (agent.request != 0) fail(std::exchange(agent.request, 0), step, error);
  stop_watching_starter(agent);
  if (agent.pidfd) {
    kill(agent);
    siginfo_t info{};
    (void)waitid(P_PIDFD, static_cast<id_t>(agent.pidfd.get()), &info, WEXITED | __WALL);
  }
  release(agent);
}

// ── agents ──

void Keeper::on_agent_exit(Agent& agent) {
  // What it reported before is waiting on the channel and comes first, one at a time: not waited for, it calls again.
  if (agent.request != 0) return on_report(agent);
  siginfo_t info{};
  if (waitid(P_PIDFD, static_cast<id_t>(agent.pidfd.get()), &info, WEXITED | WNOHANG | __WALL) < 0 || info.si_pid == 0)
    return;
  Reply message;
  auto* exited = message.mutable_exited();
  exited->set_instance(agent.instance);
  exited->set_signaled(info.si_code != CLD_EXITED);
  exited->set_code(info.si_status);
  exited->set_oom_kills(agent.watchdog_kills);
  if (agent.cgroup) {
    const auto usage = agent.cgroup->usage();
    exited->set_oom_kills(std::max(usage.oom_kills, agent.watchdog_kills));
    exited->set_pids_refused(usage.pids_refused);
  }
  release(agent);
  reply(message);
}

void Keeper::release(Agent& agent) {
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

void Keeper::on_usage(std::uint64_t id, std::uint64_t instance) {
  const auto found = agents_.find(instance);
  if (found == agents_.end()) return fail(id, "request", Error{"no such instance", 0, ""});
  Reply message;
  message.set_id(id);
  auto* result = message.mutable_usage();
  const auto fill = [&](const auto& usage) {
    result->set_memory_bytes(usage.memory_bytes);
    result->set_cpu_us(usage.cpu_us);
    result->set_pids(usage.pids);
    result->set_known(true);
  };
  if (found->second.cgroup) {
    fill(found->second.cgroup->usage());
  } else if (found->second.pid != 0) {
    fill(tree_usage(found->second.pid));
  }
  reply(message);
}

void Keeper::watch_memory() {
  for (auto& [instance, agent] : agents_) {
    if (agent.pid == 0 || agent.watchdog_kills > 0) continue;
    if (tree_usage(agent.pid).memory_bytes <= agent.memory_limit) continue;
    if (exact_tree_memory(agent.pid) <= agent.memory_limit) continue;
    agent.watchdog_kills = 1;
    kill(agent);
  }
}

// ── signals and the end ──

void Keeper::on_signal() {
  signalfd_siginfo info{};
  while (read(signals_.get(), &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGUSR1) continue;
    if (info.ssi_signo == SIGUSR2) {
      say("SIGUSR2: replacing the programs while agents run is not in this version; nothing was done");
    } else if (info.ssi_signo == SIGHUP) {
      Reply message;
      message.mutable_reload();
      reply(message);
    } else {
      begin_stop();
    }
  }
}

void Keeper::begin_stop() {
  const auto now = Clock::now();
  if (stop_deadline_) {
    // timeout(1) and a terminal signal twice at once; who asks again later does not want to wait.
    if (now - stop_asked_ < kSecondThought) return;
    say("asked to stop again: ending every agent now");
    kill_all();
    (void)signal_pidfd(control_.pidfd.get(), SIGKILL);
    return;
  }
  stop_asked_ = now;
  stop_deadline_ = now + kStopDeadline;
  refill_at_.reset();
  service_manager_.notify("STOPPING=1");
  Reply message;
  message.mutable_stopping();
  reply(message);
}

bool Keeper::finished() const {
  return stop_deadline_ && !control_.pidfd && agents_.empty() && dying_groups_.empty();
}

}  // namespace kai::keeper
