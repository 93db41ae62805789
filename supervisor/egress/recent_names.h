// Texts that came by lately, each with a time; the one that was not looked at for the longest makes room.
#pragma once

#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "supervisor/egress/reactor.h"

namespace kai::egress {

class RecentNames {
 public:
  explicit RecentNames(std::size_t most) : most_(most) {}

  /// nullopt: it is not here (any more).
  std::optional<Clock::time_point> time_of(std::string_view name) {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) return std::nullopt;
    names_.splice(names_.begin(), names_, found->second);
    return found->second->second;
  }
  void put(std::string_view name, Clock::time_point time) {
    if (time_of(name)) {
      names_.front().second = time;
      return;
    }
    if (names_.size() >= most_) {
      by_name_.erase(names_.back().first);
      names_.pop_back();
    }
    names_.emplace_front(name, time);
    by_name_.emplace(names_.front().first, names_.begin());
  }

 private:
  using Names = std::list<std::pair<std::string, Clock::time_point>>;
  std::size_t most_;
  Names names_;
  std::unordered_map<std::string_view, Names::iterator> by_name_;
};

}  // namespace kai::egress
