#include "supervisor/keeper/keeper.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "base/unix.h"
#include "supervisor/keeper/child.h"

namespace kai::keeper {
namespace {

constexpr auto kSecondThought = std::chrono::seconds(2);
constexpr auto kSetUpDeadline = std::chrono::seconds(10);
constexpr auto kWatchdog = std::chrono::milliseconds(250);
constexpr auto kMeasuring = std::chrono::milliseconds(5);  // between two slices: the agents want the cpu too
constexpr auto kAuditWait = std::chrono::milliseconds(50);

std::string instance_name(const std::string& state_dir) {
  // FNV-1a: a name for groups, not a secret; two kaids on one machine have two state directories.
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : state_dir) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001b3;
  std::array<char, 32> name{};
  std::snprintf(name.data(), name.size(), "kai-%08" PRIx64, hash >> 32);
  return name.data();
}

// Our unit names another one in which the agents' groups are to be (packaging/systemd).
std::string agents_unit() {
  const char* const name = std::getenv("KAI_AGENTS_UNIT");
  return name != nullptr && std::string_view(name).find('/') == std::string_view::npos && name[0] != '.' ? name : "";
}

}  // namespace

Keeper::Keeper(Config config, Identity identity, Programs programs, Starters starters, sandbox::CgroupTree cgroups,
               LoadedPolicies policies, Locks locks)
    : config_(std::move(config)),
      identity_(identity),
      programs_(std::move(programs)),
      starters_(std::move(starters)),
      cgroups_(std::move(cgroups)),
      policies_(std::move(policies)),
      disks_(config_.state_dir, identity_.root),
      egress_(identity_, programs_),
      locks_(std::move(locks)) {
  if (cgroups_.backend() == sandbox::CgroupTree::Backend::kNone) missing_.emplace_back("cgroup");
  // Without a range of ids an ordinary user's supplementary groups cannot be dropped (user_namespaces(7)).
  if (!identity_.root) missing_.emplace_back("groups");
  if (!disks_.exact()) missing_.emplace_back("disk");
  rlimit files{};
  (void)getrlimit(RLIMIT_NOFILE, &files);
  max_descriptors_ = std::max<rlim_t>(files.rlim_cur, kOwnDescriptors) - kOwnDescriptors;
  egress_.use_upstream(config_.upstream_dns);
}

Result<Keeper> Keeper::create(Config config, Identity identity, Programs programs, LoadedPolicies policies, Locks locks,
                              const handover::State* state, std::vector<std::string> useless) {
  auto starters = Starters::open(programs.directory + "/kai-agent-host", identity.root);
  if (!starters) return tl::unexpected(starters.error());
  auto cgroups = state != nullptr
                     ? sandbox::CgroupTree::take_over(places_of(state->groups()))
                     : sandbox::CgroupTree::open(instance_name(config.state_dir), identity.root, agents_unit());
  Keeper keeper(std::move(config), identity, std::move(programs), std::move(*starters), std::move(cgroups),
                std::move(policies), std::move(locks));
  if (auto done = keeper.prepare_loop(); !done) return tl::unexpected(done.error());
  keeper.stores_ = state != nullptr ? state->stored()
                                    : keeper.cgroups_.places().apart && keeper.service_manager_.keeps_descriptors();
  keeper.to_unstore_.assign(useless.begin(), useless.end());
  keeper.store_soon();
  if (auto done = state != nullptr ? keeper.take_over(*state) : Result<>{}; !done) {
    return tl::unexpected(done.error());
  }
  if (identity.root) {
    auto audit = KernelAudit::open();
    if (audit) {
      keeper.audit_ = std::move(*audit);
    } else {
      say("the kernel's audit cannot be read (" + audit.error().message() +
          "): files that agents are refused are refused all the same, and not in the log");
    }
  }
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
  (void)egress_.end();
  starters_.end();
  for (auto& group : spare_groups_) (void)group.remove();
  cgroups_.remove();
  empty_store();
  return exit_status_;
}

void Keeper::dispatch(int fd) {
  if (fd == signals_.get()) return on_signal();
  if (fd == control_.channel.get()) {
    if (!replies_.empty()) flush_replies();
    return on_control_packet();
  }
  if (fd == control_.pidfd.get()) return on_control_exit();
  if (egress_.owns(fd)) return serve_egress();
  if (audit_ && fd == audit_->fd()) return tell(audit_->read(Clock::now()));
  // An earlier event of the same round may have released the agent that this descriptor belonged to.
  const auto found = instance_of_.find(fd);
  if (found == instance_of_.end()) return;  // on_tick looks at starters that ended
  Agent& agent = agents_.at(found->second);
  if (agent.failure) return look_at_failed(agent, Clock::now());
  if (agent.freezing && fd == agent.freezing->events.get()) return look_at_freezing(agent, Clock::now());
  if (fd == agent.pidfd.get()) return on_agent_exit(agent);
  if (agent.cgroup && fd == agent.cgroup->oom_event_fd()) return on_oom(agent);
  on_report(agent);
}

int Keeper::next_timeout_ms() const {
  if (!dying_groups_.empty() || refill_at_) return static_cast<int>(kRefillDelay.count());
  auto wait = std::chrono::milliseconds::max();
  const auto within = [&](bool needed, std::chrono::milliseconds time) {
    if (needed) wait = std::min(wait, time);
  };
  const auto any_agent = [&](auto holds) {
    return std::any_of(agents_.begin(), agents_.end(), [&](const auto& entry) { return holds(entry.second); });
  };
  within(any_agent([](const Agent& agent) { return agent.directory && agent.directory->measuring(); }), kMeasuring);
  within(audit_ && audit_->waiting(), kAuditWait);
  const bool watching = cgroups_.backend() == sandbox::CgroupTree::Backend::kNone && !agents_.empty();
  const auto busy = [](const Agent& agent) { return agent.request != 0 || agent.freezing || agent.check_rules_at; };
  within(watching || stop_deadline_ || any_agent(busy) || !evidence_.empty() || !probing_.empty() || redis_, kWatchdog);
  if (const auto wake = egress_.wake_in(Clock::now())) within(true, *wake);
  const auto next_look = std::chrono::ceil<std::chrono::milliseconds>(next_look_ - Clock::now());
  within(!agents_.empty(), std::max(next_look, std::chrono::milliseconds(0)));
  if (store_at_) {
    const auto store = std::chrono::ceil<std::chrono::milliseconds>(*store_at_ - Clock::now());
    within(true, std::max(store, std::chrono::milliseconds(0)));
  }
  return wait == std::chrono::milliseconds::max() ? -1 : static_cast<int>(wait.count());
}

void Keeper::on_tick() {
  const auto now = Clock::now();
  bool setting_up = false;
  for (auto next = agents_.begin(); next != agents_.end();) {
    Agent& agent = (next++)->second;  // both may release it
    if (agent.failure) {
      look_at_failed(agent, now);
    } else if (agent.request != 0) {
      setting_up = true;
      if (now - agent.asked >= kSetUpDeadline) set_up_failed(agent, "starter", Error{"no answer within 10 s", 0, ""});
    } else if (agent.freezing) {
      look_at_freezing(agent, now);
    }
  }
  for (auto& [instance, agent] : agents_) {
    if (agent.check_rules_at && now >= *agent.check_rules_at) look_at_rules(agent);
  }
  look_at_evidence(now);
  look_at_services(now);
  serve_egress();
  std::erase_if(ending_children_, [](const Fd& pidfd) { return reap(pidfd); });
  if (cgroups_.backend() == sandbox::CgroupTree::Backend::kNone) watch_memory();
  measure_directories();
  if (now >= next_look_) look_at_limits();
  watch_audit();
  remove_groups();
  forget_ended();
  look_at_store(now);
  if (refill_at_ && now >= *refill_at_ && !setting_up && !stop_deadline_) {
    refill_at_.reset();
    refill();
  }
  if (stop_deadline_ && now > *stop_deadline_) {
    if (control_.pidfd) {
      say("control did not end in time; ending it and every agent");
    } else if (!agents_.empty()) {
      say("processes of " + std::to_string(agents_.size()) +
          " agents do not end: the kernel waits for something, as a disk or file system that hangs; see ps, state D");
    }
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

// ── signals and the end ──

void Keeper::on_signal() {
  signalfd_siginfo info{};
  while (read(signals_.get(), &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGUSR1) continue;
    if (info.ssi_signo == SIGUSR2) {
      hand_over();
    } else if (info.ssi_signo == SIGHUP) {
      reload(0);
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
