#include "supervisor/memory/request_check.h"

#include <algorithm>
#include <string>
#include <unordered_set>

#include "base/json_check.h"
#include "base/text.h"

namespace kai {

namespace {

constexpr std::int64_t kLastExpiry = (std::int64_t{1} << 53) - 1;

klp::MemoryError invalid(std::string message) {
  return memory_error("INVALID", std::move(message));
}

/// Also of a prefix and of `after`, which may be empty.
std::optional<klp::MemoryError> check_text(std::string_view what, std::string_view key) {
  const std::string name(what);
  if (key.size() > kMaxMemoryKeyBytes)
    return invalid(name + " has " + std::to_string(key.size()) + " bytes; at most " +
                   std::to_string(kMaxMemoryKeyBytes) + " are allowed");
  if (!is_utf8(key)) return invalid(name + " is not UTF-8");
  if (key.find('\0') != key.npos) return invalid(name + " contains a NUL");
  return std::nullopt;
}

std::optional<klp::MemoryError> check_key(std::string_view key) {
  if (key.empty()) return invalid("a key is empty; it has 1 to " + std::to_string(kMaxMemoryKeyBytes) + " bytes");
  return check_text("a key", key);
}

std::optional<klp::MemoryError> check_count(int keys) {
  if (static_cast<std::size_t>(keys) <= kMaxMemoryKeys) return std::nullopt;
  return memory_error("TOO_LARGE", std::to_string(keys) + " keys in one request; at most " +
                                       std::to_string(kMaxMemoryKeys) + " are allowed");
}

std::optional<klp::MemoryError> check_get(const klp::MemoryGet& get) {
  if (auto error = check_count(get.keys_size())) return error;
  for (const auto& key : get.keys())
    if (auto error = check_key(key)) return error;
  return std::nullopt;
}

std::optional<klp::MemoryError> check_write(const klp::MemoryWrite& write) {
  if (auto error = check_key(write.key())) return error;
  if (write.value().size() > kMaxMemoryValueBytes)
    return memory_error("TOO_LARGE", "a value has " + std::to_string(write.value().size()) + " bytes; at most " +
                                         std::to_string(kMaxMemoryValueBytes) + " are allowed");
  if (!write.binary() && !is_json(write.value())) return invalid("a value is not one JSON value in UTF-8");
  if (write.if_absent() && write.has_if_version())
    return invalid("ifAbsent and ifVersion together can never hold; give one of them");
  return std::nullopt;
}

std::optional<klp::MemoryError> check_set(const klp::MemorySet& set) {
  if (auto error = check_count(set.writes_size())) return error;
  std::unordered_set<std::string_view> keys;
  for (const auto& write : set.writes()) {
    if (auto error = check_write(write)) return error;
    if (!keys.insert(write.key()).second) return invalid("a key is twice in one set");
  }
  return std::nullopt;
}

std::optional<klp::MemoryError> check_list(const klp::MemoryList& list) {
  if (auto error = check_text("the prefix", list.prefix())) return error;
  return check_text("the cursor", list.after());
}

}  // namespace

std::optional<klp::MemoryError> check_memory_request(const klp::MemoryRequest& request) {
  switch (request.op_case()) {
    case klp::MemoryRequest::kGet:
      return check_get(request.get());
    case klp::MemoryRequest::kSet:
      return check_set(request.set());
    case klp::MemoryRequest::kDelete:
      return check_key(request.delete_().key());
    case klp::MemoryRequest::kList:
      return check_list(request.list());
    case klp::MemoryRequest::kIndexedDb:
      return std::nullopt;
    case klp::MemoryRequest::OP_NOT_SET:
      break;
  }
  return invalid("the request asks nothing");
}

std::uint32_t list_limit(const klp::MemoryList& list) {
  constexpr auto kMost = static_cast<std::uint32_t>(kMaxMemoryKeys);
  return list.limit() == 0 ? kMost : std::min(list.limit(), kMost);
}

std::string prefix_end(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && end.back() == '\xff') end.pop_back();
  if (!end.empty()) end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

std::int64_t expires_at(const klp::MemoryWrite& write, std::uint64_t default_ttl_ms, std::int64_t now_ms) {
  const std::uint64_t ttl = write.has_ttl() ? write.ttl_ms() : default_ttl_ms;
  if (ttl == 0) return 0;
  if (now_ms >= kLastExpiry || ttl >= static_cast<std::uint64_t>(kLastExpiry - now_ms)) return kLastExpiry;
  return now_ms + static_cast<std::int64_t>(ttl);
}

klp::MemoryError memory_conflict(std::string_view key, std::uint64_t version) {
  std::string details = "{\"key\":";
  append_json_string(details, key);
  details += ",\"version\":" + std::to_string(version) + "}";
  return memory_error("CONFLICT",
                      version == 0 ? "the condition does not hold: there is no such key"
                                   : "the condition does not hold: the key has version " + std::to_string(version),
                      std::move(details));
}

klp::MemoryError answer_too_large() {
  return memory_error("TOO_LARGE", "the keys and values have more than " + std::to_string(kMaxMemoryAnswerBytes) +
                                       " bytes together; ask for fewer keys at once");
}

klp::MemoryError indexed_db_not_here() {
  return memory_error("INVALID",
                      "this agent's memory has no IndexedDB: the manifest's memory.backend is not indexeddb");
}

}  // namespace kai
