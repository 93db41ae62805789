#include "supervisor/egress/turns.h"

#include <algorithm>
#include <utility>

namespace kai::egress {

Turns::Turns(Reactor& reactor, std::uint64_t bytes_per_second)
    : reactor_(reactor),
      buckets_{TokenBucket(bytes_per_second), TokenBucket(bytes_per_second)},
      timer_(reactor, [this] { serve(); }),
      self_(std::make_shared<Turns*>(this)) {}

void Turns::use(std::uint64_t bytes_per_second) {
  for (TokenBucket& bucket : buckets_) bucket.use(bytes_per_second);
  arm();
}

bool Turns::budget_left() {
  if (std::exchange(round_, reactor_.round()) != reactor_.round()) budget_ = kRoundBytes;
  return budget_ > 0;
}

void Turns::join(std::list<Lane*>& line, Lane& lane) {
  lane.place_ = line.insert(line.end(), &lane);
  lane.line_ = &line;
}

void Turns::leave(Lane& lane) {
  if (lane.line_ != nullptr) std::exchange(lane.line_, nullptr)->erase(lane.place_);
}

void Turns::wake(Lane& lane) {
  if (lane.line_ != nullptr) return;
  if (!waiting(lane).empty()) return join(waiting(lane), lane);
  if (budget_left()) return give(lane);
  join(ready_, lane);
  serve_later();
}

void Turns::give(Lane& lane) {
  const std::uint64_t most = bucket(lane).available(reactor_.now(), kTurnBytes);
  const Lane::Step step = lane.move(most);
  bucket(lane).take(step.bytes);
  budget_ -= static_cast<std::int64_t>(step.bytes + step.cost) + kTurnCost;
  if (!step.more) return;
  if (bucket(lane).available(reactor_.now(), 1) == 0) {
    join(waiting(lane), lane);
    if (!timer_.armed()) arm();
  } else {
    join(ready_, lane);
    serve_later();
  }
}

void Turns::serve() {
  for (std::size_t way = 0; way < waiting_.size(); ++way) {
    while (!waiting_[way].empty() && buckets_[way].available(reactor_.now(), 1) > 0 && budget_left()) {
      Lane& lane = *waiting_[way].front();
      leave(lane);
      give(lane);
    }
  }
  while (!ready_.empty() && budget_left()) {
    Lane& lane = *ready_.front();
    leave(lane);
    give(lane);
  }
  if (!ready_.empty()) serve_later();
  arm();
}

void Turns::serve_later() {
  if (std::exchange(serve_later_, true)) return;
  reactor_.later([self = std::weak_ptr(self_)] {
    const auto turns = self.lock();
    if (turns == nullptr) return;
    (*turns)->serve_later_ = false;
    (*turns)->serve();
  });
}

void Turns::arm() {
  auto when = Clock::time_point::max();
  for (std::size_t way = 0; way < waiting_.size(); ++way) {
    if (!waiting_[way].empty()) when = std::min(when, buckets_[way].next(reactor_.now()));
  }
  if (when == Clock::time_point::max()) {
    timer_.stop();
  } else {
    timer_.arm(when);
  }
}

}  // namespace kai::egress
