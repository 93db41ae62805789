// SIGUSR2: the programs on disk take the place of those that run, and the agents live on. Control ends as when it
// crashes; the keeper writes down what it has and becomes its next version, in the same process.
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <utility>

#include "base/unix.h"
#include "supervisor/keeper/child.h"
#include "supervisor/keeper/handover.h"
#include "supervisor/keeper/keeper.h"
#include "supervisor/keeper/process_info.h"

namespace kai::keeper {
namespace {

constexpr auto kControlEnd = std::chrono::seconds(2);

handover::Groups groups_of(const sandbox::CgroupTree::Places& places) {
  handover::Groups groups;
  groups.set_backend(static_cast<std::uint32_t>(places.backend));
  groups.set_why_none(places.why_none);
  groups.set_weighs_io(places.weighs_io);
  groups.set_v1_io_base(places.v1_io_base);
  groups.set_v2_base(places.v2_base);
  groups.set_v2_keeper(places.v2_keeper);
  groups.set_apart(places.apart);
  for (const auto& [name, base] : places.v1_bases) {
    auto* controller = groups.add_v1_bases();
    controller->set_name(name);
    controller->set_base(base);
  }
  return groups;
}

}  // namespace

sandbox::CgroupTree::Places places_of(const handover::Groups& groups) {
  sandbox::CgroupTree::Places places;
  places.backend = static_cast<sandbox::CgroupTree::Backend>(groups.backend());
  places.why_none = groups.why_none();
  places.weighs_io = groups.weighs_io();
  places.v1_io_base = groups.v1_io_base();
  places.v2_base = groups.v2_base();
  places.v2_keeper = groups.v2_keeper();
  places.apart = groups.apart();
  for (const auto& controller : groups.v1_bases()) places.v1_bases.emplace_back(controller.name(), controller.base());
  return places;
}

/// Nothing is touched before everything is known to be in order; from there on only execve(2) itself can fail.
void Keeper::hand_over() {
  if (stop_deadline_) return say("SIGUSR2: kaid is stopping; nothing was replaced");
  const auto refused = [](const Error& why) {
    say("SIGUSR2: nothing was replaced, everything runs on as it was: " + why.message());
  };
  const auto program = own_program();
  if (!program) return refused(program.error());
  if (auto same = reload_config(config_, identity_.root); !same) return refused(same.error());
  if (auto fit = check_next(*program); !fit) return refused(fit.error());

  say("SIGUSR2: replacing keeper, control and egress by the programs in " + program->substr(0, program->rfind('/')) +
      "; " + std::to_string(agents_.size()) + " agents go on");
  leave_control();
  if (Fd left = egress_.end()) ending_children_.push_back(std::move(left));
  starters_.end();
  for (auto& group : spare_groups_) {
    if (!group.remove()) dying_groups_.push_back(std::move(group));
  }
  spare_groups_.clear();
  Inheritance inheritance;
  const Error why = exec_next(*program, state(&inheritance));

  say("SIGUSR2: " + why.message() + "; the old programs go on");
  refill_at_ = Clock::now() + kRefillDelay;
  if (auto started = launch_control(); !started) {
    say(started.error().message());
    exit_status_ = 1;
    kill_all();
    stop_deadline_ = Clock::now() + kStopDeadline;
  }
}

/// It writes down everything before it answers: SIGKILL loses nothing.
void Keeper::leave_control() {
  (void)signal_pidfd(control_.pidfd.get(), SIGKILL);
  if (!reap_within(control_.pidfd, kControlEnd)) ending_children_.push_back(std::move(control_.pidfd));
  control_ = {};
  replies_.clear();
  part_from_control();
}

/// `inheritance` null: without descriptors.
handover::State Keeper::state(Inheritance* inheritance) const {
  const auto number = [&](const Fd& fd) { return inheritance != nullptr ? inheritance->add(fd) : 0; };
  handover::State state;
  state.set_version(kHandoverVersion);
  state.set_state_lock(number(locks_.state));
  state.set_runtime_lock(number(locks_.runtime));
  state.set_notify_socket(service_manager_.socket_path());
  state.set_controls(controls_);
  *state.mutable_groups() = groups_of(cgroups_.places());
  state.set_next_group(next_group_);
  state.set_stored(stores_);
  state.set_stored_states(stored_states_);
  for (const auto& [instance, agent] : agents_) {
    if (agent.starter.pidfd) state.add_ending_children(number(agent.starter.pidfd));
    if (agent.pidfd) {
      *state.add_agents() = state_of(agent, inheritance);
    } else if (agent.cgroup) {
      state.add_dying_groups(agent.cgroup->name());
    }
  }
  for (const Ended& ended : ended_) {
    auto* kept = state.add_ended();
    *kept->mutable_told() = ended.told;
    kept->set_output(number(ended.output[0]));
    kept->set_error(number(ended.output[1]));
  }
  for (const Fd& child : ending_children_) state.add_ending_children(number(child));
  for (const auto& group : dying_groups_) state.add_dying_groups(group.name());
  for (const auto& [agent_id, mounted] : disks_.kept()) {
    auto* disk = state.add_disks();
    disk->set_agent_id(agent_id);
    disk->set_mount(number(mounted.mount));
    disk->set_device(mounted.device);
  }
  return state;
}

handover::Agent Keeper::state_of(const Agent& agent, Inheritance* inheritance) const {
  const auto number = [&](const Fd& fd) { return inheritance != nullptr ? inheritance->add(fd) : 0; };
  handover::Agent kept;
  *kept.mutable_told() = description(agent);
  kept.set_untold(agent.untold || agent.ephemeral || agent.failure.has_value());
  kept.set_pidfd(number(agent.pidfd));
  kept.set_channel(number(agent.channel));
  kept.set_output(number(agent.output[0]));
  kept.set_error(number(agent.output[1]));
  kept.set_listener(number(agent.listener));
  if (agent.directory) kept.set_directory(number(agent.directory->directory()));
  if (agent.cgroup) kept.set_group(agent.cgroup->name());
  *kept.mutable_limits() = agent.held;
  kept.set_has_disk(agent.has_disk);
  kept.set_watchdog_kills(agent.watchdog_kills);
  kept.set_outlives_keeper(agent.outlives_keeper);
  kept.set_stored(agent.stored);
  kept.set_orphan(agent.orphan);
  if (const AgentNetwork* const network = egress_.find(agent.instance)) {
    for (const Fd& fd : network->descriptors) kept.add_network(number(fd));
    kept.set_rules(network->rules);
  }
  return kept;
}

Result<> Keeper::take_over(const handover::State& state) {
  greeted_ = true;
  controls_ = state.controls();
  next_group_ = state.next_group();
  stored_states_ = state.stored_states();
  for (const auto& disk : state.disks()) {
    if (disk.mount() != 0) disks_.keep(disk.agent_id(), {inherited(disk.mount()), disk.device()});
  }
  for (const std::int32_t child : state.ending_children()) {
    ending_children_.push_back(inherited(child));
    wake_at_end(ending_children_.back());
  }
  for (const std::string& name : state.dying_groups()) {
    auto group = cgroups_.reopen(name);
    if (group) dying_groups_.push_back(std::move(*group));
  }
  for (const auto& kept : state.ended()) {
    ended_.push_back({kept.told(), {inherited(kept.output()), inherited(kept.error())}, Clock::now()});
  }
  for (const auto& kept : state.agents()) {
    auto taken = take_over(kept);
    if (!taken && !kept.orphan()) return taken;
    if (taken) continue;
    say(kept.told().agent_id() + " cannot be taken up again (" + taken.error().message() + "); ending it");
    Agent& agent = agents_.at(kept.told().instance());
    agent.untold = true;
    kill(agent);
  }
  if (cgroups_.places().apart) end_unknown_groups();
  for (auto next = agents_.begin(); next != agents_.end();) {
    Agent& agent = (next++)->second;  // on_agent_exit releases it
    if (agent.orphan && end_of(agent)) on_agent_exit(agent);
  }
  return {};
}

Result<> Keeper::take_over(const handover::Agent& kept) {
  Agent& agent = agents_[kept.told().instance()];
  agent.instance = kept.told().instance();
  agent.id = kept.told().agent_id();
  agent.uid_slot = kept.told().uid_slot();
  agent.pid = kept.told().pid();
  agent.degraded.assign(kept.told().degraded().begin(), kept.told().degraded().end());
  agent.setup_us = kept.told().setup_us();
  agent.verified_ms = kept.told().spawned_ms();
  agent.frozen = kept.told().frozen();
  agent.untold = kept.untold();
  agent.pidfd = inherited(kept.pidfd());
  agent.channel = inherited(kept.channel());
  agent.output = {inherited(kept.output()), inherited(kept.error())};
  agent.listener = inherited(kept.listener());
  if (Fd directory = inherited(kept.directory())) agent.directory.emplace(std::move(directory));
  agent.held = kept.limits();
  agent.memory_limit = agent.held.cgroup().memory_bytes();
  agent.limits = LimitWatch(agent.instance, agent.held);
  agent.has_disk = kept.has_disk();
  agent.watchdog_kills = kept.watchdog_kills();
  agent.pid_namespace = pid_namespace(agent.pid);
  agent.outlives_keeper = kept.outlives_keeper();
  agent.stored = kept.stored();
  agent.orphan = kept.orphan();
  if (auto done = watch(agent, agent.pidfd.get(), EPOLLIN); !done) return done;
  if (auto done = take_over_group(agent, kept); !done) return done;
  if (auto done = take_over_network(agent, kept); !done) return done;
  if (agent.orphan && agent.has_disk && disks_.exact()) {
    if (auto done = disks_.keep_attached(agent.id); !done) return done;
  }
  return {};
}

Result<> Keeper::take_over_network(Agent& agent, const handover::Agent& kept) {
  if (kept.network_size() == 0) return {};
  AgentNetwork network{.descriptors = {}, .rules = kept.rules()};
  for (const std::int32_t fd : kept.network()) {
    network.descriptors.push_back(inherited(fd));
    if (!network.descriptors.back()) return failure("a descriptor of its network is missing");
  }
  egress_.take_over();
  egress_.add(agent.instance, std::move(network));
  look_at_rules(agent);
  return {};
}

Result<> Keeper::take_over_group(Agent& agent, const handover::Agent& kept) {
  if (kept.group().empty()) return {};
  auto group = cgroups_.reopen(kept.group());
  if (!group) return tl::unexpected(group.error());
  agent.cgroup = std::move(*group);
  if (auto done = watch(agent, agent.cgroup->oom_event_fd(), EPOLLIN); !done) return done;
  // Nobody was told while the event had no descriptor.
  if (agent.cgroup->oom_event_fd() >= 0 && agent.cgroup->usage().oom_kills > 0) on_oom(agent);
  return {};
}

}  // namespace kai::keeper
