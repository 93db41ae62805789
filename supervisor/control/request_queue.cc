#include "supervisor/control/request_queue.h"

#include <algorithm>

namespace kai {
namespace {

int rank_of(klp::Priority priority) {
  switch (priority) {
    case klp::URGENT:
      return 0;
    case klp::HIGH:
      return 1;
    case klp::LOW:
      return 3;
    default:
      return 2;
  }
}

}  // namespace

QueuedRequest RequestQueue::take(Queue::iterator place) {
  bytes_ -= place->second.bytes();
  QueuedRequest request = std::move(place->second);
  queue_.erase(place);
  return request;
}

// Nobody is driven out for a request that does not fit in afterwards either.
bool RequestQueue::make_room(int rank, std::size_t bytes, std::vector<QueuedRequest>& driven_out) {
  std::size_t requests_left = queue_.size();
  std::size_t bytes_left = bytes_;
  auto first_out = queue_.end();
  while (requests_left >= max_requests_ || bytes_left + bytes > max_bytes_) {
    if (first_out == queue_.begin()) return false;
    const auto next = std::prev(first_out);
    if (next->first.first <= rank) return false;
    first_out = next;
    --requests_left;
    bytes_left -= next->second.bytes();
  }
  while (first_out != queue_.end()) driven_out.push_back(take(first_out++));
  return true;
}

std::vector<QueuedRequest> RequestQueue::push(QueuedRequest request) {
  std::vector<QueuedRequest> driven_out;
  const int rank = rank_of(request.message.metadata().priority());
  if (!make_room(rank, request.bytes(), driven_out)) {
    driven_out.push_back(std::move(request));
    return driven_out;
  }
  bytes_ += request.bytes();
  queue_.emplace(Place{rank, ++came_}, std::move(request));
  return driven_out;
}

QueuedRequest RequestQueue::pop() {
  return take(queue_.begin());
}

std::vector<QueuedRequest> RequestQueue::take_ended(std::int64_t now_ms) {
  std::vector<QueuedRequest> ended;
  for (auto place = queue_.begin(); place != queue_.end();) {
    const auto here = place++;
    if (here->second.ends() <= now_ms) ended.push_back(take(here));
  }
  return ended;
}

std::vector<QueuedRequest> RequestQueue::take_all() {
  std::vector<QueuedRequest> all;
  while (!queue_.empty()) all.push_back(pop());
  return all;
}

std::optional<std::int64_t> RequestQueue::first_end() const {
  std::optional<std::int64_t> first;
  for (const auto& [place, request] : queue_) first = std::min(first.value_or(request.ends()), request.ends());
  return first;
}

}  // namespace kai
