// The volatile half of a hybrid memory: values lately read or written, in front of the store that keeps them. It never
// answers with what the store does not have: a write takes its keys out before it is on its way, and what is known of
// it comes in when it is answered.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>

#include "proto/memory.pb.h"

namespace kai {

class MemoryCache {
 public:
  explicit MemoryCache(std::size_t max_bytes) : max_bytes_(max_bytes) {}

  /// The answer, where every key is here and has not expired; `now_ms` is the ExpiryClock's.
  std::optional<klp::MemoryGot> find(const klp::MemoryGet& get, std::int64_t now_ms);

  /// A write of these keys is on its way; until finished() for it nothing of them comes in.
  void begin(const klp::MemoryRequest& write);
  /// It was answered. `expires_ms` tells when a value that was set expires.
  template <typename Expires>
  void finish(const klp::MemoryRequest& write, const klp::MemoryAnswer& answer, Expires expires_ms) {
    const bool written = answer.has_written() && answer.written().versions_size() == write.set().writes_size();
    for (int each = 0; each < write.set().writes_size(); ++each) {
      const klp::MemoryWrite& value = write.set().writes(each);
      if (!end(value.key()) || !written) continue;
      klp::MemoryEntry entry;
      entry.set_key(value.key());
      entry.set_value(value.value());
      entry.set_binary(value.binary());
      entry.set_version(answer.written().versions(each));
      entry.set_expires_ms(expires_ms(value));
      put(std::move(entry));
    }
    if (write.has_delete_()) end(write.delete_().key());
  }
  /// What the store answered to a get.
  void learn(const klp::MemoryGot& got);
  void clear();

  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  using Entries = std::list<klp::MemoryEntry>;
  void put(klp::MemoryEntry entry);
  void drop(const std::string& key);
  bool end(const std::string& key);  // true: no other write of it is on its way

  std::size_t max_bytes_;
  std::size_t bytes_ = 0;
  Entries entries_;  // the last used first
  std::unordered_map<std::string, Entries::iterator> places_;
  std::unordered_map<std::string, std::size_t> writes_;  // on their way, by key
};

}  // namespace kai
