#include "supervisor/control/pending_requests.h"

#include <algorithm>

namespace kai {
namespace {

// Of payloads that wait, together: a few of the largest.
constexpr std::size_t kMaxQueuedBytes = 4 << 20;

}  // namespace

PendingRequests::PendingRequests(EventLoop& loop, std::string agent, std::size_t in_flight, Wire wire)
    : loop_(loop),
      agent_(std::move(agent)),
      max_in_flight_(in_flight),
      wire_(std::move(wire)),
      queue_(in_flight, kMaxQueuedBytes),
      timer_(loop) {}

void PendingRequests::add(klp::Message message, std::chrono::milliseconds deadline, Answer answer) {
  QueuedRequest request;
  request.deadline = loop_.now_ms() + deadline.count();
  const std::uint32_t ttl = message.metadata().ttl_seconds();
  if (ttl != 0) request.expires = loop_.now_ms() + std::int64_t{ttl} * 1000;
  request.message = std::move(message);
  request.answer = std::move(answer);
  arm(request.ends());
  auto driven_out = queue_.push(std::move(request));
  pump();
  for (const QueuedRequest& out : driven_out) out.answer(tl::unexpected(busy()));
}

void PendingRequests::pump() {
  while (queue_.front() != nullptr && in_flight_.size() < max_in_flight_ && wire_.has_room(queue_.front()->bytes())) {
    QueuedRequest request = queue_.pop();
    if (request.ends() <= loop_.now_ms()) {
      request.answer(tl::unexpected(ended(request)));
    } else {
      send(std::move(request));
    }
  }
}

void PendingRequests::send(QueuedRequest request) {
  const auto [place, added] = in_flight_.try_emplace(request.message.id(), InFlight{request.deadline, {}});
  // Ids are their senders' own: what the agent owes to one sender is not answered to another.
  if (!added) return request.answer(refuse("REPLAY", "a request with this id is with agent '" + agent_ + "' already"));
  place->second.answer = std::move(request.answer);
  request.message.set_deadline_ms(static_cast<std::uint32_t>(request.deadline - loop_.now_ms()));
  wire_.send(request.message);
}

void PendingRequests::answer(const std::string& id, Outcome<klp::Message> outcome) {
  const auto found = in_flight_.find(id);
  if (found == in_flight_.end()) return;
  const Answer answer = std::move(found->second.answer);
  in_flight_.erase(found);
  pump();
  answer(std::move(outcome));
  look_whether_drained();
}

void PendingRequests::when_drained(std::function<void()> action) {
  drained_ = std::move(action);
  look_whether_drained();
}

void PendingRequests::look_whether_drained() {
  if (!drained_ || !in_flight_.empty()) return;
  std::exchange(drained_, nullptr)();
}

void PendingRequests::arm(std::int64_t at_ms) {
  if (armed_for_ != 0 && armed_for_ <= at_ms) return;
  armed_for_ = at_ms;
  timer_.start(std::chrono::milliseconds(std::max<std::int64_t>(at_ms - loop_.now_ms(), 0)), [this] { on_timer(); });
}

void PendingRequests::on_timer() {
  // The request that the timer was set for may be answered long since: it is not moved for each answer.
  armed_for_ = 0;
  const std::vector<QueuedRequest> waited = queue_.take_ended(loop_.now_ms());
  std::vector<Answer> late;
  for (auto entry = in_flight_.begin(); entry != in_flight_.end();) {
    if (entry->second.deadline <= loop_.now_ms()) {
      late.push_back(std::move(entry->second.answer));
      entry = in_flight_.erase(entry);
    } else {
      arm((entry++)->second.deadline);
    }
  }
  if (const auto next = queue_.first_end()) arm(*next);
  pump();
  for (const QueuedRequest& request : waited) request.answer(tl::unexpected(ended(request)));
  for (const Answer& answer : late) answer(tl::unexpected(timed_out()));
  look_whether_drained();
}

void PendingRequests::fail_waiting(const Failure& failure) {
  for (const QueuedRequest& request : queue_.take_all()) request.answer(tl::unexpected(failure));
}

void PendingRequests::fail_all(const Failure& failure) {
  timer_.stop();
  armed_for_ = 0;
  const auto in_flight = std::exchange(in_flight_, {});
  fail_waiting(failure);
  drained_ = nullptr;  // it ended, which is not what was waited for
  for (const auto& [id, entry] : in_flight) entry.answer(tl::unexpected(failure));
}

Failure PendingRequests::busy() const {
  return refuse("BUSY",
                "agent '" + agent_ + "' has " + std::to_string(in_flight_.size()) + " requests in flight and " +
                    std::to_string(queue_.size()) + " waiting, as many as it may have",
                "Try again when it has answered some")
      .value();
}

Failure PendingRequests::ended(const QueuedRequest& request) const {
  if (!request.expired(loop_.now_ms())) return timed_out();
  return refuse("EXPIRED", "its ttl of " + std::to_string(request.message.metadata().ttl_seconds()) +
                               " s passed while it waited for agent '" + agent_ + "'")
      .value();
}

Failure PendingRequests::timed_out() const {
  return refuse("TIMEOUT", "agent '" + agent_ + "' did not answer in time",
                "Give it longer with --timeout, or see what it does with 'kaictl logs " + agent_ + "'")
      .value();
}

}  // namespace kai
