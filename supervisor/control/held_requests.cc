#include "supervisor/control/held_requests.h"

#include <algorithm>
#include <utility>

namespace kai {

HeldRequests::HeldRequests(EventLoop& loop, std::string agent)
    : loop_(loop), agent_(std::move(agent)), requests_(kMaxRequests, kMaxBytes), timer_(loop) {}

void HeldRequests::push(QueuedRequest request) {
  ++total_;
  arm(request.ends());
  const auto driven_out = requests_.push(std::move(request));
  for (const QueuedRequest& out : driven_out) {
    out.answer(refuse("BUSY", "agent '" + agent_ + "' is being upgraded, and as many requests wait for it as may",
                      "Try again when it is done: see 'kaictl status " + agent_ + "'"));
  }
}

bool HeldRequests::push_event(const klp::Message& event) {
  const std::size_t bytes = event.payload().size();
  if (events_.size() >= kMaxEvents || event_bytes_ + bytes > kMaxEventBytes) return false;
  event_bytes_ += bytes;
  events_.push_back(event);
  return true;
}

std::optional<QueuedRequest> HeldRequests::pop() {
  if (requests_.front() == nullptr) return std::nullopt;
  return requests_.pop();
}

std::deque<klp::Message> HeldRequests::take_events() {
  event_bytes_ = 0;
  return std::exchange(events_, {});
}

void HeldRequests::fail_all(const Failure& failure) {
  timer_.stop();
  armed_for_ = 0;
  events_.clear();
  event_bytes_ = 0;
  for (const QueuedRequest& request : requests_.take_all()) request.answer(tl::unexpected(failure));
}

void HeldRequests::arm(std::int64_t at_ms) {
  if (armed_for_ != 0 && armed_for_ <= at_ms) return;
  armed_for_ = at_ms;
  timer_.start(std::chrono::milliseconds(std::max<std::int64_t>(at_ms - loop_.now_ms(), 0)), [this] { on_timer(); });
}

void HeldRequests::on_timer() {
  armed_for_ = 0;
  const auto ended = requests_.take_ended(loop_.now_ms());
  if (const auto next = requests_.first_end()) arm(*next);
  for (const QueuedRequest& request : ended) {
    request.expired(loop_.now_ms())
        ? request.answer(refuse("EXPIRED", "its ttl passed while agent '" + agent_ + "' was being upgraded"))
        : request.answer(refuse("TIMEOUT", "agent '" + agent_ + "' was being upgraded until its deadline",
                                "See 'kaictl status " + agent_ + "'"));
  }
}

}  // namespace kai
