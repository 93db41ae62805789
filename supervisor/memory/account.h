// The quota of one context: what is used, what may be, and the refusal that says both. The store that it belongs to is
// its only writer, and keeps it in the same transaction as what it counts.
#pragma once

#include <cstdint>
#include <optional>

#include "supervisor/memory/store.h"

namespace kai {

class Account {
 public:
  Account(std::uint64_t max_bytes, MemoryUsage used)
      : max_bytes_(max_bytes), max_entries_(max_bytes / kQuotaBytesPerEntry), used_(used) {}

  /// A change by so many bytes and entries; nullopt: it is taken. What makes it less is always taken.
  std::optional<klp::MemoryError> charge(std::int64_t bytes, std::int64_t entries);
  [[nodiscard]] const MemoryUsage& used() const { return used_; }
  /// Back to what it was: the transaction did not come to be.
  void reset(const MemoryUsage& used) { used_ = used; }

 private:
  std::uint64_t max_bytes_, max_entries_;
  MemoryUsage used_;
};

}  // namespace kai
