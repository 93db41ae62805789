#include "supervisor/control/agents.h"

#include <algorithm>
#include <array>

#include "base/text.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/start_plan.h"

namespace kai {
namespace {

constexpr std::chrono::milliseconds kTryAgain{5'000};

}  // namespace

Failure not_registered(std::string_view id) {
  return {"NOT_FOUND", "no agent '" + std::string(id) + "' is registered", "See 'kaictl list'", {}, false};
}

Result<> Agents::load() {
  auto rows = environment_.registry.list();
  if (!rows) return tl::unexpected(rows.error());
  for (RegisteredAgent& row : *rows) {
    ManifestResult parsed = parse_manifest(row.active.manifest_json);
    const std::string id = row.id;
    environment_.keeper.skip_to(row.ended_instance);
    if (!parsed.manifest) {
      const auto& first = parsed.errors.front();
      environment_.log.write(LogLevel::kError, id, "error",
                             "its registered manifest is not valid for this version of kaid; register it again: " +
                                 first.pointer + " " + first.message);
      continue;
    }
    agents_.emplace(id, std::make_unique<Agent>(environment_, std::move(row), std::move(*parsed.manifest)));
  }
  return {};
}

void Agents::adopt(std::vector<KeeperClient::Adoption> adoptions) {
  // Those that run first: of one that was started anew, the end before may be told once more.
  std::stable_partition(adoptions.begin(), adoptions.end(),
                        [](const KeeperClient::Adoption& adoption) { return !adoption.instance.has_exited(); });
  for (KeeperClient::Adoption& adoption : adoptions) {
    environment_.keeper.skip_to(adoption.instance.instance());
    const std::string id = adoption.instance.agent_id();
    Agent* const agent = find(id);
    const bool ended = adoption.instance.has_exited();
    if (ended && agent != nullptr && agent->row().ended_instance >= adoption.instance.instance()) continue;
    if (agent != nullptr && !ended && !agent->wants(adoption.instance.instance())) {
      environment_.log.write(LogLevel::kInfo, id, "kai.adopted",
                             "a version of it that has no place any more is ended: kaid was interrupted in an upgrade",
                             {{"pid", adoption.instance.pid()}});
      environment_.keeper.kill(adoption.instance.instance());
      continue;
    }
    if (agent != nullptr && agent->instance() == nullptr) {
      agent->adopt(std::move(adoption));
      continue;
    }
    if (ended) continue;
    environment_.log.write(LogLevel::kWarn, id, "kai.adopted",
                           "processes of an agent that is not registered are ended: kaid was interrupted in the middle "
                           "of something",
                           {{"pid", adoption.instance.pid()}});
    environment_.keeper.kill(adoption.instance.instance());
  }
}

void Agents::start_desired(bool again) {
  for (const auto& [id, agent] : agents_) {
    agent->finish_quarantine();
    agent->finish_interrupted_upgrade();
    const bool wanted = agent->row().desired == Desired::kRunning && agent->state() != State::kQuarantined;
    if (wanted && agent->idle() && (!again || agent->was_active())) start_at_boot(id);
  }
}

// What it depends on may come later, and nobody may be there to start it then: it is tried again until it is stopped.
void Agents::start_at_boot(const std::string& id) {
  Agent* const agent = find(id);
  if (agent == nullptr || stopping_ || agent->row().desired != Desired::kRunning || !agent->idle()) return;
  if (!StartPlan::needed(*agent)) return agent->start_at_boot();
  std::make_shared<StartPlan>(
      environment_, *this, id, StartPlan::By::kBoot, agent->policy().deadlines.start,
      [this, id](const Outcome<>& outcome) {
        if (outcome) return;
        waiting_.try_emplace(id, environment_.loop).first->second.start(kTryAgain, [this, id] { start_at_boot(id); });
      })
      ->run();
}

DependencyGraph Agents::dependencies() const {
  DependencyGraph graph;
  for (const auto& [id, agent] : agents_) {
    auto& needs = graph[id];
    for (const Dependency& dependency : agent->manifest().dependencies) {
      if (dependency.type == DependencyType::kAgent) needs.push_back(dependency.name);
    }
  }
  return graph;
}

std::vector<std::string> Agents::dependents(const std::string& id) const {
  std::vector<std::string> found;
  for (const auto& [other, agent] : agents_) {
    const auto& needs = agent->manifest().dependencies;
    const bool depends = std::any_of(needs.begin(), needs.end(), [&](const Dependency& each) {
      return each.type == DependencyType::kAgent && each.required && each.name == id;
    });
    if (depends && !agent->idle() && other != id) found.push_back(other);
  }
  return found;
}

void Agents::shut_down(std::function<void()> done) {
  stopping_ = true;
  waiting_.clear();
  const auto left = std::make_shared<std::size_t>(agents_.size() + 1);
  const auto one_less = [left, done = std::move(done)] {
    if (--*left == 0) done();
  };
  for (const auto& [id, agent] : agents_) shut_down(*agent, one_less);
  one_less();
}

/// Behind those that depend on it.
void Agents::shut_down(Agent& agent, const std::function<void()>& done) {
  const auto before = std::make_shared<std::size_t>(1);
  const auto stop = [this, id = agent.row().id, before, done] {
    if (--*before > 0) return;
    Agent* const stopped = find(id);
    if (stopped == nullptr) return done();
    stopped->shut_down();
    // Longer than the stop deadline and the kill after it; whatever is still there then, the keeper ends.
    stopped->wait(Agent::Goal::kDown, 2 * stopped->policy().deadlines.stop, [done](const Outcome<>&) { done(); });
  };
  for (const auto& [id, other] : agents_) {
    const auto& needs = other->manifest().dependencies;
    const bool depends = std::any_of(needs.begin(), needs.end(), [&](const Dependency& each) {
      return each.type == DependencyType::kAgent && each.name == agent.row().id;
    });
    if (!depends || other->idle() || id == agent.row().id) continue;
    ++*before;
    other->wait(Agent::Goal::kDown, 2 * other->policy().deadlines.stop, [stop](const Outcome<>&) { stop(); });
  }
  stop();
}

std::vector<std::string> Agents::policies_changed() {
  std::vector<std::string> outdated;
  for (const auto& [id, agent] : agents_) {
    if (agent->policies_changed()) outdated.push_back(id);
  }
  return outdated;
}

Agent* Agents::find(std::string_view id) {
  const auto found = agents_.find(id);
  return found == agents_.end() ? nullptr : found->second.get();
}

Result<Agent*> Agents::put(const Manifest& manifest, const RegisteredVersion& version) {
  auto row = environment_.registry.put(manifest.id, version);
  if (!row) return tl::unexpected(row.error());
  if (Agent* known = find(manifest.id); known != nullptr) {
    known->replace(std::move(*row), manifest);
    return known;
  }
  auto added = agents_.emplace(manifest.id, std::make_unique<Agent>(environment_, std::move(*row), manifest));
  return added.first->second.get();
}

Outcome<> Agents::may_unregister(const std::string& id) {
  const Agent* agent = find(id);
  if (agent == nullptr) return tl::unexpected(not_registered(id));
  const Transition decided = transition(agent->state(), Event::kUnregister);
  if (!decided.refused.empty()) {
    return refuse(
        std::string(decided.refused), "agent '" + id + "' is " + std::string(to_string(agent->state())),
        (agent->quarantined() ? "Terminate it first: kaictl terminate " : "Stop it first: kaictl stop ") + id);
  }
  return {};
}

Outcome<> Agents::unregister(const std::string& id, std::uint32_t uid) {
  if (auto may = may_unregister(id); !may) return may;
  const auto removed = environment_.registry.remove(id);
  if (!removed) return refuse("INTERNAL", "the registry could not be written: " + removed.error().message());
  agents_.erase(id);
  environment_.log.write(LogLevel::kInfo, id, "kai.unregistered", "its registration and its data are gone");
  const std::array fields = {LogField("operatorUid", uid)};
  environment_.audit.append(id, "kai.unregistered", fields_json({}, fields));
  return {};
}

}  // namespace kai
