// Agents that outlive the keeper: what it needs to take them up again is in the service manager's store, a moment after
// each start and end.
#include <signal.h>

#include <algorithm>
#include <utility>

#include "base/unix.h"
#include "supervisor/keeper/handover.h"
#include "supervisor/keeper/keeper.h"
#include "supervisor/keeper/store.h"

namespace kai::keeper {
namespace {

// After an answer, so that no start waits for it; many at once are one state. An agent that began within this time
// before the keeper was killed is killed by the next one.
constexpr auto kStoreDelay = std::chrono::milliseconds(3);
constexpr auto kStoreAgain = std::chrono::milliseconds(50);  // the service manager is behind

}  // namespace

bool Keeper::outlives(const Agent& agent) const {
  return stores_ && agent.cgroup && !agent.ephemeral;
}

void Keeper::store_soon() {
  if (stores_ && !store_at_) store_at_ = Clock::now() + kStoreDelay;
}

Result<> Keeper::store_descriptors(Agent& agent) const {
  const std::array<const Fd*, kAllKept.size()> kept = {
      &agent.pidfd,     &agent.channel,  &agent.output[0],
      &agent.output[1], &agent.listener, agent.directory ? &agent.directory->directory() : nullptr};
  for (std::size_t at = 0; at < kept.size(); ++at) {
    if (kept[at] == nullptr || !*kept[at]) continue;
    if (auto done = service_manager_.store(stored_name(agent.instance, kAllKept[at]), *kept[at]); !done) return done;
  }
  if (const AgentNetwork* const network = egress_.find(agent.instance)) {
    for (std::size_t at = 0; at < network->descriptors.size(); ++at) {
      const std::string name = stored_network_name(agent.instance, at);
      if (auto done = service_manager_.store(name, network->descriptors[at]); !done) return done;
    }
  }
  agent.stored = true;
  return {};
}

/// Descriptors come before the state that counts on them, which comes before the old one goes.
Result<> Keeper::store() {
  while (!to_unstore_.empty()) {
    if (auto done = service_manager_.unstore(to_unstore_.front()); !done) return done;
    to_unstore_.pop_front();
  }
  for (auto& [instance, agent] : agents_) {
    if (agent.stored || !agent.outlives_keeper || !agent.adoptable()) continue;
    if (auto done = store_descriptors(agent); !done) return done;
  }
  const auto memfd = sealed_memfd("state", stored_state().SerializeAsString());
  if (!memfd) return tl::unexpected(memfd.error());
  if (auto done = service_manager_.store(stored_state_name(stored_states_ + 1), *memfd); !done) return done;
  to_unstore_.push_back(stored_state_name(stored_states_++));
  if (service_manager_.unstore(to_unstore_.back())) to_unstore_.pop_back();
  return {};
}

handover::State Keeper::stored_state() const {
  handover::State state = this->state(nullptr);
  state.clear_ended();
  state.clear_ending_children();
  state.clear_dying_groups();
  state.clear_notify_socket();
  state.set_stored_states(stored_states_ + 1);
  auto* agents = state.mutable_agents();
  for (int at = 0; at < agents->size();) {
    const bool kept = agents_.at(agents->Get(at).told().instance()).stored && !agents->Get(at).untold();
    if (kept) {
      ++at;
    } else {
      agents->DeleteSubrange(at, 1);
    }
  }
  return state;
}

void Keeper::look_at_store(Clock::time_point now) {
  if (!store_at_ || now < *store_at_) return;
  store_at_.reset();
  if (!store()) store_at_ = now + kStoreAgain;
}

/// Nothing is left for a next start.
void Keeper::empty_store() {
  if (!stores_) return;
  to_unstore_.push_back(stored_state_name(stored_states_));
  while (!to_unstore_.empty() && service_manager_.unstore(to_unstore_.front())) to_unstore_.pop_front();
}

void Keeper::unstore(const Agent& agent) {
  if (!agent.stored) return;
  for (const Kept what : kAllKept) to_unstore_.push_back(stored_name(agent.instance, what));
  const AgentNetwork* const network = egress_.find(agent.instance);
  for (std::size_t at = 0; network != nullptr && at < network->descriptors.size(); ++at) {
    to_unstore_.push_back(stored_network_name(agent.instance, at));
  }
  store_soon();
}

/// What a keeper that was killed began and did not write down.
void Keeper::end_unknown_groups() {
  std::vector<std::string> known;
  for (const auto& [instance, agent] : agents_) {
    if (agent.cgroup) known.push_back(agent.cgroup->name());
  }
  for (const std::string& name : cgroups_.others(known)) {
    auto group = cgroups_.reopen(name);
    if (!group) continue;
    (void)group->kill();
    dying_groups_.push_back(std::move(*group));
  }
}

}  // namespace kai::keeper
