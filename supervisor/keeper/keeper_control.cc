#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <span>
#include <utility>

#include "base/text.h"
#include "base/unix.h"
#include "supervisor/keeper/keeper.h"
#include "supervisor/keeper/process_info.h"
#include "supervisor/keeper/process_tree.h"

namespace kai::keeper {
namespace {

constexpr std::size_t kMaxReplies = 4 * 4096;  // of as many agents as there can be
constexpr auto kControlWindow = std::chrono::seconds(60);
// In that window: something is broken for good. SIGKILL is no fault of its own; only a machine without memory sends
// that many.
constexpr std::ptrdiff_t kControlDeaths = 5;
constexpr std::ptrdiff_t kControlKills = 100;

constexpr std::size_t kMaxErrorText = 4 << 10;  // control reads packets of 16 KiB

std::string bounded(const std::string& text) {
  // Cut, it may end in the middle of a character.
  return text.size() <= kMaxErrorText ? text : escape_for_terminal(std::string_view(text).substr(0, kMaxErrorText / 2));
}

}  // namespace

Result<> Keeper::launch_control() {
  auto started = start_control(config_, identity_, programs_);
  if (!started) return tl::unexpected(started.error());
  control_ = std::move(*started);
  ++controls_;
  control_ready_ = false;
  control_ended_here_ = false;
  if (auto done = set_nonblocking(control_.channel.get()); !done) return done;
  for (const int fd : {control_.channel.get(), control_.pidfd.get()}) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0) return errno_failure("epoll_ctl");
  }
  return greet_control();
}

Result<> Keeper::greet_control() {
  auto policies = policies_memfd(policies_.files, config_.blocked_domains);
  if (!policies) return tl::unexpected(policies.error());
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
  hello->set_again(std::exchange(greeted_, true));
  hello->set_log_level(config_.log_level);
  hello->set_redis_url(config_.redis_url);
  const auto up =
      std::count_if(agents_.begin(), agents_.end(), [](const auto& entry) { return entry.second.adoptable(); });
  hello->set_adoptable(static_cast<std::uint32_t>(static_cast<std::size_t>(up) + ended_.size()));
  std::vector<Fd> beside;
  beside.push_back(std::move(*policies));
  reply(message, std::move(beside));
  offer_ended();
  for (auto& [instance, agent] : agents_) {
    if (agent.adoptable()) offer(agent);
  }
  egress_.join_control();
  serve_egress();
  return {};
}

// Never blocks: the keeper waits for every agent, and a control that hangs must not keep it from that.
void Keeper::reply(const Reply& message, std::vector<Fd> fds) {
  if (!control_.channel) return;
  replies_.push_back({message.SerializeAsString(), std::move(fds)});
  if (replies_.size() > kMaxReplies) {
    replies_.clear();
    return end_control("control does not read its answers");
  }
  if (replies_.size() == 1) flush_replies();
}

void Keeper::flush_replies() {
  while (!replies_.empty()) {
    const Outgoing& next = replies_.front();
    std::vector<int> beside;
    for (const Fd& fd : next.fds) beside.push_back(fd.get());
    auto sent = send_packet(control_.channel.get(), next.bytes, beside);
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
  failed->set_detail(bounded(error.context.empty() ? error.what : error.what + " " + error.context));
  reply(message);
}

void Keeper::done(std::uint64_t request) {
  Reply message;
  message.set_id(request);
  message.mutable_done();
  reply(message);
}

void Keeper::on_control_packet() {
  auto packet = receive_packet(control_.channel.get(), kMaxRequestBytes, MSG_DONTWAIT);
  if (!packet && packet.error().error_number == EAGAIN) return;
  if (!packet && packet.error().error_number == ECONNRESET) packet = Packet{};  // it ended with answers unread
  if (!packet) {
    return end_control("request of control: " + packet.error().message());
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
      return done(request.id());
    }
    case Request::kUsage:
      return on_usage(request.id(), request.usage().instance());
    case Request::kDescribe:
      return on_describe(request.id(), request.describe());
    case Request::kDropData:
      return on_drop_data(request.id(), request.drop_data().agent_id());
    case Request::kFreeze:
      return on_freeze(request.id(), request.freeze());
    case Request::kEvidence:
      return on_evidence(request.id(), request.evidence().instance());
    case Request::kProbeService:
      return on_probe_service(request.id(), request.probe_service().address());
    case Request::kConnectRedis:
      return on_connect_redis(request.id());
    case Request::kSetNetwork:
      return on_set_network(request.id(), request.set_network().instance(), packet->fds);
    case Request::kReadPolicies:
      return reload(request.id());
    case Request::kReady:
      control_ready_ = true;
      service_manager_.notify("READY=1\nSTATUS=serving");
      return;
    default:
      return fail(request.id(), "request", {"unknown request", 0, ""});
  }
}

// All or nothing: with any error the old configuration and policies stay.
Result<Fd> Keeper::read_policies_again(Config& config) {
  auto fresh = reload_config(config_, identity_.root);
  if (!fresh) return tl::unexpected(fresh.error());
  auto policies = load_policies(*fresh, identity_.root);
  if (!policies) return tl::unexpected(policies.error());
  auto memfd = policies_memfd(policies->files, fresh->blocked_domains);
  if (!memfd) return memfd;
  config = std::move(*fresh);
  policies_ = std::move(*policies);
  egress_.use_upstream(config.upstream_dns);
  return memfd;
}

void Keeper::reload(std::uint64_t request) {
  Reply message;
  message.set_id(request);
  auto memfd = read_policies_again(config_);
  if (memfd) expect_new_rules();
  if (!memfd) message.mutable_reload()->set_error(bounded(memfd.error().message()));
  message.mutable_reload()->set_log_level(config_.log_level);
  std::vector<Fd> beside;
  if (memfd) beside.push_back(std::move(*memfd));
  reply(message, std::move(beside));
}

void Keeper::on_describe(std::uint64_t id, const Describe& describe) {
  const auto found = agents_.find(describe.instance());
  if (found == agents_.end()) return fail(id, "request", Error{"no such instance", 0, ""});
  Reply message;
  message.set_id(id);
  auto* process = message.mutable_process();
  if (const auto name = name_process(describe.pid(), found->second.pid)) {
    process->set_name(name->comm);
    process->set_pid(name->inner_pid);
  }
  reply(message);
}

void Keeper::on_drop_data(std::uint64_t id, const std::string& agent_id) {
  if (!is_agent_id(agent_id)) return fail(id, "request", Error{"not an agent id", 0, ""});
  const bool running =
      std::any_of(agents_.begin(), agents_.end(), [&](const auto& entry) { return entry.second.id == agent_id; });
  if (running) return fail(id, "request", Error{"the agent runs", 0, ""});
  if (auto dropped = disks_.drop(agent_id); !dropped) return fail(id, "disk", dropped.error());
  done(id);
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
  const Agent& agent = found->second;
  if (agent.directory) {
    result->set_disk_bytes(agent.directory->usage().bytes);
    result->set_disk_inodes(agent.directory->usage().inodes);
  } else if (const auto space = agent.has_disk ? disks_.space(agent.id) : std::nullopt) {
    result->set_disk_bytes(space->bytes - space->free_bytes);
    result->set_disk_inodes(space->inodes - space->free_inodes);
  }
  reply(message);
}

/// Out of its mind; on_control_exit starts another.
void Keeper::end_control(const std::string& why) {
  say(why + "; ending it");
  control_ended_here_ = true;
  (void)signal_pidfd(control_.pidfd.get(), SIGKILL);
}

/// The exit status of kaid, where another control would fare no better.
std::optional<int> Keeper::give_up(const siginfo_t& end) {
  if (end.si_code == CLD_EXITED && end.si_status == 2) return 2;  // the configuration
  const auto now = Clock::now();
  const bool killed = end.si_code == CLD_KILLED && end.si_status == SIGKILL && !control_ended_here_;
  control_deaths_.push_back({now, killed});
  while (now - control_deaths_.front().when > kControlWindow) control_deaths_.pop_front();
  const auto kills = std::count_if(control_deaths_.begin(), control_deaths_.end(),
                                   [](const ControlDeath& death) { return death.killed; });
  const auto faults = static_cast<std::ptrdiff_t>(control_deaths_.size()) - kills;
  const bool never_serves = !killed && !control_ready_;
  return never_serves || faults >= kControlDeaths || kills >= kControlKills ? std::optional(1) : std::nullopt;
}

// Agents live on (keeper_adoption.cc), unless there is no other control to come.
void Keeper::on_control_exit() {
  siginfo_t info{};
  if (waitid(P_PIDFD, static_cast<id_t>(control_.pidfd.get()), &info, WEXITED | WNOHANG | __WALL) < 0) return;
  if (info.si_pid == 0) return;  // an event of the descriptor's former owner
  control_ = {};
  replies_.clear();
  part_from_control();
  if (stop_deadline_) return kill_all();
  say(std::string("control ended unexpectedly (") + (info.si_code == CLD_EXITED ? "exit status " : "signal ") +
      std::to_string(info.si_status) + "); " + std::to_string(agents_.size()) + " agents go on without it");
  const auto status = give_up(info);
  if (status) {
    say("giving up: control does not get to serve, or ended again and again within a minute; ending every agent");
    exit_status_ = *status;
  } else if (auto started = launch_control(); !started) {
    say(started.error().message());
    exit_status_ = 1;
  } else {
    return;
  }
  kill_all();
  stop_deadline_ = Clock::now() + kStopDeadline;
}

}  // namespace kai::keeper
