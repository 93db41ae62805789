// What the resolver found out, for as long as it holds; the entry that was not asked for the longest makes room.
#pragma once

#include <list>
#include <string>
#include <string_view>
#include <unordered_map>

#include "supervisor/egress/resolver.h"

namespace kai::egress {

class ResolverCache {
 public:
  explicit ResolverCache(std::size_t most) : most_(most) {}

  /// nullptr: unknown, or not any more. Valid until the next call.
  const Resolved* find(const std::string& name, Clock::time_point now);
  void put(const std::string& name, Resolved resolved, Clock::time_point until);
  void clear();
  [[nodiscard]] std::size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    std::string name;
    Resolved resolved;
    Clock::time_point until;
  };
  void erase(std::list<Entry>::iterator entry);

  std::size_t most_;
  std::list<Entry> entries_;  // the last used first
  std::unordered_map<std::string_view, std::list<Entry>::iterator> by_name_;
};

}  // namespace kai::egress
