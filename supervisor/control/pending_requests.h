// The requests that one agent has been sent and owes answers to, and those that wait until it may be sent them. Each is
// answered exactly once: by the agent, by its deadline or ttl, because there is no place for it, or because the agent
// goes.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "supervisor/control/request_queue.h"
#include "supervisor/loop/event_loop.h"

namespace kai {

class PendingRequests {
 public:
  using Answer = std::function<void(Outcome<klp::Message>)>;
  struct Wire {
    std::function<bool(std::size_t bytes)> has_room;  ///< for a payload of that size; else pump() is called when it has
    std::function<void(const klp::Message&)> send;
  };

  /// At most `in_flight` at a time are with the agent, as many again wait.
  PendingRequests(EventLoop& loop, std::string agent, std::size_t in_flight, Wire wire);

  /// `message` has an id. Its ttl counts from now, as its deadline does.
  void add(klp::Message message, std::chrono::milliseconds deadline, Answer answer);
  /// An answer to the request `id`. Of one that nobody waits for any more it is dropped.
  void answer(const std::string& id, Outcome<klp::Message> outcome);
  /// Those that were not sent yet.
  [[nodiscard]] std::vector<QueuedRequest> take_waiting() { return queue_.take_all(); }
  /// One more would be sent at once.
  [[nodiscard]] bool has_place() const { return in_flight_.size() < max_in_flight_ && queue_.size() == 0; }
  [[nodiscard]] std::size_t in_flight() const { return in_flight_.size(); }
  /// `action` once nothing is in flight, now or later.
  void when_drained(std::function<void()> action);
  /// Sends what may be sent now.
  void pump();
  /// Those that were not sent yet fail like this.
  void fail_waiting(const Failure& failure);
  void fail_all(const Failure& failure);

 private:
  struct InFlight {
    std::int64_t deadline;
    Answer answer;
  };

  void send(QueuedRequest request);
  void look_whether_drained();
  void arm(std::int64_t at_ms);
  void on_timer();
  [[nodiscard]] Failure busy() const;
  [[nodiscard]] Failure ended(const QueuedRequest& request) const;
  [[nodiscard]] Failure timed_out() const;

  EventLoop& loop_;
  std::string agent_;
  std::size_t max_in_flight_;
  Wire wire_;
  RequestQueue queue_;
  std::unordered_map<std::string, InFlight> in_flight_;  // by request id
  std::function<void()> drained_;
  std::int64_t armed_for_ = 0;  // 0: the timer is off
  Timer timer_;
};

}  // namespace kai
