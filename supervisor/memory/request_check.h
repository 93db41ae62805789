// What every backend with keys and values (sqlite_store, redis_store) asks of a request before it carries it out, and
// the refusals that they have in common: agents are told the same whichever backend they have.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "proto/memory.pb.h"
#include "supervisor/memory/store.h"

namespace kai {

/// The first thing that is wrong with a get, set, delete or list; nullopt: nothing. A request without any of them is
/// INVALID; what it asks of IndexedDB is not looked at.
std::optional<klp::MemoryError> check_memory_request(const klp::MemoryRequest& request);

/// At most so many keys: of 1 to kMaxMemoryKeys.
std::uint32_t list_limit(const klp::MemoryList& list);
/// The first bytes that sort after every key with this prefix; empty: there are none.
std::string prefix_end(std::string_view prefix);
/// By the ExpiryClock; 0: never. What would be beyond 2^53 ms is 2^53 - 1, which is exact in a double too.
std::int64_t expires_at(const klp::MemoryWrite& write, std::uint64_t default_ttl_ms, std::int64_t now_ms);

/// The condition of this write did not hold. `version` is that of now; 0: there is no such key.
klp::MemoryError memory_conflict(std::string_view key, std::uint64_t version);
/// The answer's keys and values would be more than kMaxMemoryAnswerBytes.
klp::MemoryError answer_too_large();
/// IndexedDB was asked of a backend that has none.
klp::MemoryError indexed_db_not_here();

}  // namespace kai
