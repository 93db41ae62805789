#include "supervisor/control/memory_cache.h"

namespace kai {
namespace {

std::size_t size_of(const klp::MemoryEntry& entry) {
  constexpr std::size_t kOverhead = 256;  // list, table and message, about
  return entry.key().size() + entry.value().size() + kOverhead;
}

}  // namespace

std::optional<klp::MemoryGot> MemoryCache::find(const klp::MemoryGet& get, std::int64_t now_ms) {
  klp::MemoryGot got;
  std::size_t bytes = 0;
  for (const std::string& key : get.keys()) {
    const auto place = places_.find(key);
    if (place == places_.end()) return std::nullopt;
    const klp::MemoryEntry& entry = *place->second;
    if (entry.expires_ms() != 0 && entry.expires_ms() <= now_ms) return std::nullopt;
    // What is too much for one answer is the store's to refuse.
    bytes += entry.value().size();
    if (bytes > max_bytes_) return std::nullopt;
    *got.add_entries() = entry;
  }
  for (const std::string& key : get.keys()) entries_.splice(entries_.begin(), entries_, places_.find(key)->second);
  return got;
}

void MemoryCache::begin(const klp::MemoryRequest& write) {
  const auto leave = [this](const std::string& key) {
    drop(key);
    ++writes_[key];
  };
  for (const klp::MemoryWrite& each : write.set().writes()) leave(each.key());
  if (write.has_delete_()) leave(write.delete_().key());
}

bool MemoryCache::end(const std::string& key) {
  const auto count = writes_.find(key);
  if (count == writes_.end() || --count->second > 0) return count == writes_.end();
  writes_.erase(count);
  return true;
}

void MemoryCache::learn(const klp::MemoryGot& got) {
  for (const klp::MemoryEntry& entry : got.entries()) {
    if (!writes_.contains(entry.key())) put(entry);
  }
}

void MemoryCache::clear() {
  entries_.clear();
  places_.clear();
  bytes_ = 0;
}

void MemoryCache::put(klp::MemoryEntry entry) {
  drop(entry.key());
  bytes_ += size_of(entry);
  entries_.push_front(std::move(entry));
  places_[entries_.front().key()] = entries_.begin();
  while (bytes_ > max_bytes_ && !entries_.empty()) drop(std::string(entries_.back().key()));
}

void MemoryCache::drop(const std::string& key) {
  const auto place = places_.find(key);
  if (place == places_.end()) return;
  bytes_ -= size_of(*place->second);
  entries_.erase(place->second);
  places_.erase(place);
}

}  // namespace kai
