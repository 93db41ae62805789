#include "supervisor/memory/account.h"

#include <array>
#include <cstdio>
#include <string>

namespace kai {
namespace {

std::string megabytes(std::uint64_t bytes) {
  std::array<char, 32> text{};
  const int size = std::snprintf(text.data(), text.size(), "%.2f", static_cast<double>(bytes) / (1 << 20));
  return {text.data(), static_cast<std::size_t>(size)};
}

// What is used after a change; a sum below nothing would be a fault of ours, and is held at nothing.
std::uint64_t after(std::uint64_t used, std::int64_t change) {
  if (change >= 0) return used + static_cast<std::uint64_t>(change);
  const std::uint64_t less = std::uint64_t{0} - static_cast<std::uint64_t>(change);
  return used > less ? used - less : 0;
}

std::string details(std::uint64_t used, std::uint64_t limit, std::int64_t needed, const char* suffix) {
  const auto member = [suffix](const char* name, const std::string& number) {
    return '"' + std::string(name) + suffix + "\":" + number;
  };
  return "{" + member("used", std::to_string(used)) + "," + member("limit", std::to_string(limit)) + "," +
         member("needed", std::to_string(needed)) + "}";
}

}  // namespace

std::optional<klp::MemoryError> Account::charge(std::int64_t bytes, std::int64_t entries) {
  const MemoryUsage then{after(used_.bytes, bytes), after(used_.entries, entries)};
  if (bytes > 0 && then.bytes > max_bytes_) {
    return memory_error("QUOTA_EXCEEDED",
                        "memory is full: " + megabytes(used_.bytes) + " MB of " + megabytes(max_bytes_) +
                            " MB are used (" + std::to_string(used_.bytes) + " of " + std::to_string(max_bytes_) +
                            " bytes) and this needs " + std::to_string(bytes) +
                            " bytes more; delete keys, or give the agent a greater memory.maxSize",
                        details(used_.bytes, max_bytes_, bytes, ""));
  }
  if (entries > 0 && then.entries > max_entries_) {
    return memory_error("QUOTA_EXCEEDED",
                        "memory has too many keys: " + std::to_string(used_.entries) + " of " +
                            std::to_string(max_entries_) + " and this needs " + std::to_string(entries) + " more (" +
                            megabytes(used_.bytes) + " MB of " + megabytes(max_bytes_) +
                            " MB are used; there may be one key for each " + std::to_string(kQuotaBytesPerEntry) +
                            " bytes); keep more in one value, or give the agent a greater memory.maxSize",
                        details(used_.entries, max_entries_, entries, "Entries"));
  }
  used_ = then;
  return {};
}

}  // namespace kai
