// What an agent keeps: its memory is open before it starts, answers its requests, and goes as far as it is volatile.
#include <array>

#include "base/text.h"
#include "supervisor/control/agent.h"
#include "supervisor/control/router.h"

namespace kai {
namespace {

// Between attempts to open a memory that is not there for now: redis is down, the disk is full.
constexpr std::chrono::milliseconds kOpenAgain{2'000};

/// What could change something.
bool writes(const klp::MemoryRequest& request) {
  if (request.has_get() || request.has_list()) return false;
  switch (request.indexed_db().op_case()) {
    case klp::IdbRequest::kBegin:
      return request.indexed_db().begin().mode() != klp::READONLY;
    case klp::IdbRequest::kDatabases:
    case klp::IdbRequest::kDescribe:
    case klp::IdbRequest::kRead:
    case klp::IdbRequest::kCount:
    case klp::IdbRequest::kCommit:
    case klp::IdbRequest::kAbort:
      return false;
    default:
      return true;
  }
}

}  // namespace

void Agent::launch_with_memory() {
  if (state_ != State::kStarting && state_ != State::kUpgrading) return;
  if (!automatic_) memory_.start_by_operator();
  if (memory_.ready() || memory_.config().type == MemoryType::kVolatile) {
    // A volatile one opens at its first use: nothing of it can be damaged that anybody counts on.
    return launch();
  }
  opening_memory_ = true;
  memory_.prepare([this, alive = std::weak_ptr(alive_), life = life_](MemoryOutcome<>&& ready) {
    if (!alive.expired() && life == life_) on_memory_ready(std::move(ready));
  });
}

void Agent::on_memory_ready(MemoryOutcome<>&& ready) {
  if (!opening_memory_) return;  // stopped meanwhile
  if (ready) {
    opening_memory_ = false;
    memory_refusals_ = 0;
    if (state_ == State::kStarting || state_ == State::kUpgrading) launch();
    return;
  }
  const std::string why = "its memory is not there: " + ready.error().message();
  if (!automatic_) memory_.fault_told();
  // An operator who waits is told at once; kaid itself waits until it is back, which is no crash of the agent's.
  if (!ready.error().retryable() || !automatic_) {
    opening_memory_ = false;
    end_unlaunched(why, ready.error().retryable() ? Unlaunched::kForNow : Unlaunched::kRefused);
    return;
  }
  if (++memory_refusals_ == 1) {
    environment_.log.write(LogLevel::kWarn, row_.id, "kai.memory", why + "; its start waits for it");
  }
  memory_timer_.start(kOpenAgain, [this] {
    if (opening_memory_) launch_with_memory();
  });
}

void Agent::on_memory(Instance& from, klp::MemoryRequest&& request) {
  MemoryContext::Answer answer = [this, alive = std::weak_ptr(alive_),
                                  instance = from.number()](klp::MemoryAnswer&& said) {
    if (!alive.expired()) answer_memory(instance, std::move(said));
  };
  if (writes(request) && !may_write(from)) {
    klp::MemoryAnswer refusal;
    refusal.set_id(request.id());
    *refusal.mutable_error() =
        memory_error("CONFLICT", "another version of the agent has its place: this one only reads");
    return answer(std::move(refusal));
  }
  if (!request.agent().empty() && request.agent() != row_.id) {
    speaking_ = &from;
    environment_.router->read_memory(*this, std::move(request), std::move(answer));
    speaking_ = nullptr;
    return;
  }
  memory_.touch();
  memory_.perform(std::move(request), std::move(answer));
}

/// The version whose place another one takes finishes what it was asked; what it kept is the other one's by then.
bool Agent::may_write(const Instance& from) const {
  const Instance* const standby = upgrade_ ? upgrade_->standby() : nullptr;
  if (standby != nullptr) return upgrade_->handed_over() == (&from == standby);
  return &from == instance_.get();
}

void Agent::answer_memory(std::uint64_t number, klp::MemoryAnswer&& said) {
  Instance* const instance = instance_numbered(number);
  if (instance == nullptr || instance->channel() == nullptr) return;
  if (said.has_error()) {
    said.mutable_error()->set_message(environment_.memory.without_paths(said.error().message()));
  }
  // A transaction that its process leaves open would keep the others waiting.
  if (said.indexed_db().has_begun() && instance != instance_.get()) {
    for (Leaving& leaving : leaving_) {
      if (leaving.instance.get() == instance) leaving.transactions.insert(said.indexed_db().begun().transaction());
    }
  }
  instance->channel()->answer_memory(std::move(said));
}

/// It was terminated: whoever waits for that is told when it is done.
void Agent::clear_volatile() {
  clearing_memory_ = true;
  memory_.terminate([this, alive = std::weak_ptr(alive_)](MemoryOutcome<MemoryUsage>&& cleared) {
    if (alive.expired()) return;
    clearing_memory_ = false;
    if (!cleared) {
      report(
          LogLevel::kError, "error",
          "its volatile memory could not be cleared, and goes before it is used again: " + cleared.error().message());
    } else if (cleared->entries > 0) {
      report(LogLevel::kInfo, "kai.purged", "its volatile memory is gone, as it was terminated",
             {{"memoryEntries", cleared->entries}, {"memoryBytes", cleared->bytes}});
    }
    settle();
  });
}

}  // namespace kai
