// Quarantine's part of the keeper: an agent stands still, and what it is at that moment is written down.
#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "base/unix.h"
#include "supervisor/keeper/keeper.h"
#include "supervisor/keeper/process_tree.h"

namespace kai::keeper {
namespace {

// A process that the kernel holds (state D) freezes when the kernel lets it go.
constexpr auto kFreezePatience = std::chrono::seconds(2);
constexpr std::size_t kMostEvidence = 4;  // at the same time: the agents want the cpu too

}  // namespace

void Keeper::on_freeze(std::uint64_t id, const Freeze& freeze) {
  const auto found = agents_.find(freeze.instance());
  if (found == agents_.end() || !found->second.runs()) return fail(id, "request", Error{"no such instance", 0, ""});
  Agent& agent = found->second;
  if (!agent.cgroup) return fail(id, "cgroup", Error{"this machine gives no control group to freeze", 0, ""});
  if (agent.freezing) {
    fail(agent.freezing->request, "request", Error{"another Freeze came", 0, ""});
    end_freezing(agent);
  }
  if (auto done = agent.cgroup->freeze(freeze.frozen()); !done) return fail(id, "cgroup", done.error());
  agent.frozen = freeze.frozen();
  auto events = agent.cgroup->watch_frozen();
  if (!events) return fail(id, "cgroup", events.error());
  agent.freezing = Freezing{id, std::move(*events), Clock::now() + kFreezePatience};
  // Where that fails (out of watches), the ticks see it.
  (void)watch(agent, agent.freezing->events.get(), EPOLLPRI);
  look_at_freezing(agent, Clock::now());
}

void Keeper::look_at_freezing(Agent& agent, Clock::time_point now) {
  std::array<char, 256> seen{};
  const ssize_t again = pread(agent.freezing->events.get(), seen.data(), seen.size(), 0);
  static_cast<void>(again);  // quiet until the next change
  const std::uint64_t request = agent.freezing->request;
  if (agent.cgroup->frozen() == agent.frozen) {
    end_freezing(agent);
    return done(request);
  }
  if (now < agent.freezing->deadline) return;
  end_freezing(agent);
  fail(request, "cgroup", Error{"a process of it does not stop: the kernel holds it", ETIMEDOUT, ""});
}

void Keeper::end_freezing(Agent& agent) {
  if (!agent.freezing) return;
  unwatch(agent.freezing->events.get());
  agent.freezing.reset();
}

void Keeper::on_evidence(std::uint64_t id, std::uint64_t instance) {
  if (evidence_waiting_.size() >= kMaxAgents) return fail(id, "evidence", Error{"too many at the same time", 0, ""});
  evidence_waiting_.emplace_back(id, instance);
  look_at_evidence(Clock::now());
}

void Keeper::begin_evidence(std::uint64_t id, std::uint64_t instance) {
  const auto found = agents_.find(instance);
  if (found == agents_.end() || !found->second.runs()) return fail(id, "request", Error{"no such instance", 0, ""});
  const Agent& agent = found->second;
  auto look = agent.cgroup ? EvidenceLook::begin(agent.cgroup->processes(), agent.cgroup->places())
                           : EvidenceLook::begin(process_tree(agent.pid), {});
  if (!look) return fail(id, "evidence", look.error());
  wake_at_end(look->pidfd());
  evidence_.emplace_back(id, std::move(*look));
}

void Keeper::look_at_evidence(Clock::time_point now) {
  for (auto next = evidence_.begin(); next != evidence_.end();) {
    if (!next->second.finished(now)) {
      ++next;
      continue;
    }
    tell_evidence(next->first, next->second.take());
    next = evidence_.erase(next);
  }
  while (evidence_.size() < kMostEvidence && !evidence_waiting_.empty()) {
    const auto [id, instance] = evidence_waiting_.front();
    evidence_waiting_.pop_front();
    begin_evidence(id, instance);
  }
}

void Keeper::tell_evidence(std::uint64_t id, Result<EvidenceLook::Text> text) {
  if (!text) return fail(id, "evidence", text.error());
  if (text->child) ending_children_.push_back(std::move(text->child));
  Reply message;
  message.set_id(id);
  message.mutable_evidence()->set_processes(text->processes);
  message.mutable_evidence()->set_truncated(text->truncated);
  std::vector<Fd> beside;
  beside.push_back(std::move(text->memfd));
  reply(message, std::move(beside));
}

}  // namespace kai::keeper
