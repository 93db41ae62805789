// What is checked of every request before anything is done, and its ranges as half-open intervals.
#include "base/json_check.h"
#include "supervisor/memory/indexed_db_engine.h"

namespace kai::idb {
namespace {

MemoryOutcome<> check_size(std::string_view what, std::string_view bytes, std::size_t limit) {
  if (bytes.size() <= limit) return {};
  return refuse("TOO_LARGE", std::string(what) + " has " + std::to_string(bytes.size()) + " bytes; the most is " +
                                 std::to_string(limit));
}

// Greater than every key, as none is so long.
const std::string& beyond_all() {
  static const std::string bytes(kMaxIdbKeyBytes + 2, '\xff');
  return bytes;
}

}  // namespace

MemoryOutcome<> check_key(std::string_view key) {
  if (key.empty()) return refuse("INVALID", "a key is empty");
  return check_size("a key", key, kMaxIdbKeyBytes);
}

MemoryOutcome<> check_value(std::string_view value) {
  return check_size("the value", value, kMaxMemoryValueBytes);
}

MemoryOutcome<> check_name(std::string_view name) {
  return check_size("a name", name, kMaxIdbNameBytes);
}

MemoryOutcome<> check_key_path(std::string_view json) {
  if (auto sized = check_size("a key path", json, kMaxIdbKeyPathBytes); !sized) return sized;
  if (!is_json(json)) return refuse("INVALID", "a key path is not JSON in UTF-8");
  return {};
}

MemoryOutcome<> check_range(const klp::IdbRange& range) {
  if (auto sized = check_size("the lower bound", range.lower(), kMaxIdbKeyBytes); !sized) return sized;
  return check_size("the upper bound", range.upper(), kMaxIdbKeyBytes);
}

std::string after(const std::string& key) {
  return key + '\0';
}

Interval interval_of(const klp::IdbRange& range) {
  Interval interval{range.lower(), range.upper()};
  if (!range.lower().empty() && range.lower_open()) interval.lower = after(range.lower());
  if (range.upper().empty()) {
    interval.upper = beyond_all();
  } else if (!range.upper_open()) {
    interval.upper = after(range.upper());
  }
  return interval;
}

}  // namespace kai::idb
