// Questions that wait for an answer, each until its deadline (monotonic milliseconds).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <utility>

namespace kai {

inline constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

template <typename Key, typename Value>
class DeadlineTable {
 public:
  void add(Key key, Value value, std::int64_t deadline) {
    entries_.emplace(std::move(key), Entry{std::move(value), deadline});
    earliest_ = std::min(earliest_, deadline);
  }
  /// The entry, which is forgotten.
  std::optional<Value> take(const Key& key) {
    const auto found = entries_.find(key);
    if (found == entries_.end()) return std::nullopt;
    std::optional<Value> value(std::move(found->second.value));
    entries_.erase(found);
    return value;
  }
  /// One whose deadline has passed, which is forgotten; nullopt: there is none.
  std::optional<Value> take_expired(std::int64_t now) {
    if (now < earliest_) return std::nullopt;
    earliest_ = kNever;
    for (auto at = entries_.begin(); at != entries_.end(); ++at) {
      if (at->second.deadline <= now) {
        std::optional<Value> value(std::move(at->second.value));
        entries_.erase(at);
        earliest_ = now;  // there may be more
        return value;
      }
      earliest_ = std::min(earliest_, at->second.deadline);
    }
    return std::nullopt;
  }
  /// Any one, which is forgotten; nullopt: there is none.
  std::optional<Value> take_any() {
    if (entries_.empty()) return std::nullopt;
    std::optional<Value> value(std::move(entries_.begin()->second.value));
    entries_.erase(entries_.begin());
    return value;
  }
  void clear() { entries_.clear(); }
  /// When to look again at the latest. Never late; early where an answered question was the first.
  [[nodiscard]] std::int64_t next_deadline() const { return entries_.empty() ? kNever : earliest_; }
  [[nodiscard]] std::size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    Value value;
    std::int64_t deadline;
  };
  std::map<Key, Entry> entries_;
  std::int64_t earliest_ = kNever;
};

}  // namespace kai
