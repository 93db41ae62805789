#include "supervisor/memory/schedule.h"

#include <algorithm>

namespace kai {

bool Schedule::ask(Ticket ticket, klp::IdbMode mode, std::int64_t now_ms) {
  if (waiting_.size() + running_.size() >= kMaxIdbTransactions) return false;
  waiting_.push_back({ticket, mode != klp::READONLY, now_ms});
  return true;
}

bool Schedule::has_turn(const Waiting& next) const {
  return running_.empty() || (!writer_ && !next.writes);
}

std::vector<Schedule::Ticket> Schedule::start(std::int64_t now_ms) {
  std::vector<Ticket> started;
  while (!waiting_.empty() && has_turn(waiting_.front())) {
    writer_ = waiting_.front().writes;
    running_.emplace(waiting_.front().ticket, now_ms);
    started.push_back(waiting_.front().ticket);
    waiting_.pop_front();
  }
  return started;
}

void Schedule::touch(Ticket ticket, std::int64_t now_ms) {
  const auto found = running_.find(ticket);
  if (found != running_.end()) found->second = now_ms;
}

void Schedule::end(Ticket ticket) {
  running_.erase(ticket);
  std::erase_if(waiting_, [ticket](const Waiting& waiting) { return waiting.ticket == ticket; });
  if (running_.empty()) writer_ = false;
}

void Schedule::clear() {
  waiting_.clear();
  running_.clear();
  writer_ = false;
}

std::int64_t Schedule::patience_ends(std::int64_t used_ms) const {
  const std::int64_t since_ms = waiting_.front().since_ms;
  return std::min(std::max(used_ms, since_ms) + kIdbIdleMs, since_ms + kIdbBusyMs);
}

std::vector<Schedule::Ticket> Schedule::overdue(std::int64_t now_ms) const {
  std::vector<Ticket> late;
  if (waiting_.empty()) return late;
  for (const auto& [ticket, used_ms] : running_) {
    if (now_ms >= patience_ends(used_ms)) late.push_back(ticket);
  }
  return late;
}

std::optional<std::int64_t> Schedule::deadline() const {
  if (waiting_.empty() || running_.empty()) return std::nullopt;
  std::int64_t first = patience_ends(running_.begin()->second);
  for (const auto& [ticket, used_ms] : running_) first = std::min(first, patience_ends(used_ms));
  return first;
}

}  // namespace kai
