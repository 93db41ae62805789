// Requests and events that wait while an agent changes its version or is saved: each is delivered afterwards or, at its
// deadline, answered with TIMEOUT. Bounded; what finds no place is answered with BUSY, an event is lost.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "supervisor/control/request_queue.h"
#include "supervisor/loop/event_loop.h"

namespace kai {

class HeldRequests {
 public:
  static constexpr std::size_t kMaxRequests = 4096;
  static constexpr std::size_t kMaxBytes = 16 << 20;
  static constexpr std::size_t kMaxEvents = 1024;
  static constexpr std::size_t kMaxEventBytes = 4 << 20;

  HeldRequests(EventLoop& loop, std::string agent);

  void push(QueuedRequest request);
  /// false: it is lost.
  [[nodiscard]] bool push_event(const klp::Message& event);
  [[nodiscard]] bool empty() const { return requests_.size() == 0 && events_.empty(); }
  /// The most urgent, the oldest first among equals.
  std::optional<QueuedRequest> pop();
  std::deque<klp::Message> take_events();
  void fail_all(const Failure& failure);
  /// How many requests have waited here since this was asked.
  [[nodiscard]] std::uint64_t take_count() { return std::exchange(total_, 0); }

 private:
  void arm(std::int64_t at_ms);
  void on_timer();

  EventLoop& loop_;
  std::string agent_;
  RequestQueue requests_;
  std::deque<klp::Message> events_;
  std::size_t event_bytes_ = 0;
  std::uint64_t total_ = 0;
  std::int64_t armed_for_ = 0;  // 0: the timer is off
  Timer timer_;
};

}  // namespace kai
