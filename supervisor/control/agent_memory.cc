// What an agent keeps: its memory is open before it starts, answers its requests, and goes as far as it is volatile.
#include <array>

#include "base/text.h"
#include "supervisor/control/agent.h"
#include "supervisor/control/router.h"

namespace kai {
namespace {

// Between attempts to open a memory that is not there for now: redis is down, the disk is full.
constexpr std::chrono::milliseconds kOpenAgain{2'000};

}  // namespace

void Agent::launch_with_memory() {
  if (state_ != State::kStarting) return;
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
    if (state_ == State::kStarting) launch();
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

void Agent::on_memory(klp::MemoryRequest&& request) {
  MemoryContext::Answer answer = [this, alive = std::weak_ptr(alive_), life = life_](klp::MemoryAnswer&& said) {
    if (alive.expired() || life != life_ || !instance_ || instance_->channel() == nullptr) return;
    if (said.has_error()) {
      said.mutable_error()->set_message(environment_.memory.without_paths(said.error().message()));
    }
    instance_->channel()->answer_memory(std::move(said));
  };
  if (!request.agent().empty() && request.agent() != row_.id) {
    return environment_.router->read_memory(*this, std::move(request), std::move(answer));
  }
  memory_.touch();
  memory_.perform(std::move(request), std::move(answer));
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
