// Entries as a whole: for export, import, clear, and for a change of the policy on encryption.
#include <algorithm>

#include "supervisor/memory/entries.h"
#include "supervisor/memory/request_check.h"
#include "supervisor/memory/reseal.h"

namespace kai {
namespace {

// Exact in JavaScript's numbers.
constexpr std::uint64_t kLastVersion = (std::uint64_t{1} << 53U) - 1;

}  // namespace

Result<> Entries::each(std::int64_t now_ms, const std::function<Result<>(const Entry&)>& visit) const {
  auto select = database_.prepare(
      "SELECT key, value, sealed, binary, version, expires FROM entries WHERE expires = 0 OR expires > ?1 ORDER BY "
      "key");
  if (!select) return tl::unexpected(select.error());
  (*select)->bind(1, now_ms);
  for (;;) {
    const auto row = (*select)->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) return {};
    Entry entry;
    entry.key = (*select)->text(0);
    auto value = open_value(entry.key, (*select)->bytes(1), (*select)->number(2) != 0);
    if (!value) return tl::unexpected(value.error());
    if (!*value) return failure("read a value", "it does not open with the agent's key");
    entry.value = **std::move(value);
    entry.binary = (*select)->number(3) != 0;
    entry.version = static_cast<std::uint64_t>((*select)->number(4));
    entry.expires_ms = (*select)->number(5);
    if (auto visited = visit(entry); !visited) return visited;
  }
}

Result<> Entries::delete_all() {
  if (auto deleted = database_.execute("DELETE FROM entries"); !deleted) return deleted;
  static_cast<void>(
      charge(-static_cast<std::int64_t>(counters_.used.bytes), -static_cast<std::int64_t>(counters_.used.entries)));
  return {};
}

Result<std::optional<klp::MemoryError>> Entries::insert(const Entry& entry) {
  klp::MemoryRequest request;
  klp::MemoryWrite& write_of = *request.mutable_set()->add_writes();
  write_of.set_key(entry.key);
  write_of.set_value(entry.value);
  write_of.set_binary(entry.binary);
  if (auto refused = check_memory_request(request)) return refused;
  if (entry.version == 0 || entry.version > kLastVersion) {
    return memory_error("INVALID", "a version in the file is not a number from 1 to 2^53 - 1");
  }
  auto there = find(entry.key, false);
  if (!there) return tl::unexpected(there.error());
  if (*there) return memory_error("INVALID", "a key is in the file twice");
  if (auto refused = charge(static_cast<std::int64_t>(entry.key.size() + entry.value.size()), 1)) return refused;
  counters_.version = std::max(counters_.version, entry.version);
  if (auto written = write(entry); !written) return tl::unexpected(written.error());
  return std::nullopt;
}

Result<> Entries::convert() {
  return reseal(database_, terms_,
                "SELECT id, sealed, value, key FROM entries WHERE id > ?1 AND sealed <> ?2 ORDER BY id LIMIT 1",
                "UPDATE entries SET value = ?1, sealed = ?2 WHERE id = ?3",
                [](const Statement& row) { return place(row.text(3)); });
}

}  // namespace kai
