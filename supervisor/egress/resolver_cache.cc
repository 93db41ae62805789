#include "supervisor/egress/resolver_cache.h"

#include <utility>

namespace kai::egress {

const Resolved* ResolverCache::find(const std::string& name, Clock::time_point now) {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return nullptr;
  const auto entry = found->second;
  if (entry->until <= now) {
    erase(entry);
    return nullptr;
  }
  entries_.splice(entries_.begin(), entries_, entry);
  return &entry->resolved;
}

void ResolverCache::put(const std::string& name, Resolved resolved, Clock::time_point until) {
  if (const auto found = by_name_.find(name); found != by_name_.end()) erase(found->second);
  if (entries_.size() >= most_) erase(std::prev(entries_.end()));
  entries_.push_front({.name = name, .resolved = std::move(resolved), .until = until});
  by_name_.emplace(entries_.front().name, entries_.begin());
}

void ResolverCache::clear() {
  by_name_.clear();
  entries_.clear();
}

void ResolverCache::erase(std::list<Entry>::iterator entry) {
  by_name_.erase(entry->name);
  entries_.erase(entry);
}

}  // namespace kai::egress
