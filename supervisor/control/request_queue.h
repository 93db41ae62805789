// Requests that wait because their receiver has as many in flight as it may have: the more urgent ones first, the older
// ones first among equals. Bounded in number and bytes; what is more urgent drives out what is less.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "proto/klp.pb.h"
#include "supervisor/control/failure.h"

namespace kai {

struct QueuedRequest {
  klp::Message message;
  std::int64_t deadline = 0;  ///< monotonic ms: then its sender has its TIMEOUT
  std::int64_t expires = 0;   ///< monotonic ms, by its ttl; 0: it has none
  std::function<void(Outcome<klp::Message>)> answer;

  [[nodiscard]] std::size_t bytes() const { return message.payload().size(); }
  [[nodiscard]] bool expired(std::int64_t now_ms) const { return expires != 0 && expires <= now_ms; }
  [[nodiscard]] std::int64_t ends() const { return expires == 0 ? deadline : std::min(expires, deadline); }
};

class RequestQueue {
 public:
  RequestQueue(std::size_t requests, std::size_t bytes) : max_requests_(requests), max_bytes_(bytes) {}

  /// Returns those for which there is no place any more: nobody, the newest of the least urgent ones, or `request`
  /// itself, where all that wait are as urgent as it is.
  [[nodiscard]] std::vector<QueuedRequest> push(QueuedRequest request);
  /// nullptr: nobody waits.
  [[nodiscard]] const QueuedRequest* front() const { return queue_.empty() ? nullptr : &queue_.begin()->second; }
  /// There must be one.
  QueuedRequest pop();
  /// Those whose deadline or ttl has passed.
  [[nodiscard]] std::vector<QueuedRequest> take_ended(std::int64_t now_ms);
  [[nodiscard]] std::vector<QueuedRequest> take_all();
  /// When the first of them ends; nullopt: nobody waits.
  [[nodiscard]] std::optional<std::int64_t> first_end() const;
  [[nodiscard]] std::size_t size() const { return queue_.size(); }

 private:
  using Place = std::pair<int, std::uint64_t>;  // 0 for the most urgent, then the order of coming
  using Queue = std::map<Place, QueuedRequest>;

  bool make_room(int rank, std::size_t bytes, std::vector<QueuedRequest>& driven_out);
  QueuedRequest take(Queue::iterator place);

  std::size_t max_requests_, max_bytes_;
  std::size_t bytes_ = 0;
  std::uint64_t came_ = 0;
  Queue queue_;
};

}  // namespace kai
