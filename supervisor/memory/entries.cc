#include "supervisor/memory/entries.h"

#include <algorithm>

#include "supervisor/memory/request_check.h"

namespace kai {
namespace {

// `size` is the value's as the agent wrote it: what is sealed is longer.
constexpr const char* kTables = R"(
CREATE TABLE counters(version INTEGER NOT NULL, bytes INTEGER NOT NULL, entries INTEGER NOT NULL);
INSERT INTO counters VALUES(0, 0, 0);
CREATE TABLE entries(
  id INTEGER PRIMARY KEY,
  key BLOB NOT NULL UNIQUE,
  value BLOB NOT NULL,
  size INTEGER NOT NULL,
  binary INTEGER NOT NULL,
  sealed INTEGER NOT NULL,
  version INTEGER NOT NULL,
  expires INTEGER NOT NULL);
CREATE INDEX expiring ON entries(expires) WHERE expires > 0;
)";

// Swept at once before a quota is refused.
constexpr std::int64_t kSweptAtOnce = 10'000;

bool has_expired_at(std::int64_t expires_ms, std::int64_t now_ms) {
  return expires_ms > 0 && expires_ms <= now_ms;
}

klp::MemoryAnswer refusal(klp::MemoryError error) {
  klp::MemoryAnswer answer;
  *answer.mutable_error() = std::move(error);
  return answer;
}

std::int64_t cost(std::size_t key, std::int64_t value) {
  return static_cast<std::int64_t>(key) + value;
}

// No UTF-8 has this byte: it is behind every key that begins with a prefix.
constexpr char kBehindEveryKey = '\xff';

}  // namespace

Result<> Entries::make_tables(Database& database) {
  return database.execute(kTables);
}

Result<std::unique_ptr<Entries>> Entries::open(Database& database, const MemoryTerms& terms, Account& account) {
  std::unique_ptr<Entries> entries(new Entries(database, terms, account));
  auto row = database.prepare("SELECT version, bytes, entries FROM counters");
  if (!row) return tl::unexpected(row.error());
  const auto found = (*row)->step();
  if (!found) return tl::unexpected(found.error());
  const auto number = [&](int column) {
    return static_cast<std::uint64_t>(std::max<std::int64_t>((*row)->number(column), 0));
  };
  if (*found) entries->counters_ = {number(0), {number(1), number(2)}};
  return entries;
}

std::string Entries::place(std::string_view key) {
  return "entry/" + std::string(key);
}

Result<> Entries::write_counters() {
  auto update = database_.prepare("UPDATE counters SET version = ?1, bytes = ?2, entries = ?3");
  if (!update) return tl::unexpected(update.error());
  (*update)->bind(1, static_cast<std::int64_t>(counters_.version));
  (*update)->bind(2, static_cast<std::int64_t>(counters_.used.bytes));
  (*update)->bind(3, static_cast<std::int64_t>(counters_.used.entries));
  return (*update)->run();
}

Result<klp::MemoryAnswer> Entries::perform(const klp::MemoryRequest& request, std::int64_t now_ms) {
  switch (request.op_case()) {
    case klp::MemoryRequest::kGet:
      return get(request.get(), now_ms);
    case klp::MemoryRequest::kSet:
      return set(request.set(), now_ms);
    case klp::MemoryRequest::kDelete:
      return remove(request.delete_(), now_ms);
    case klp::MemoryRequest::kList:
      return list(request.list(), now_ms);
    default:
      return refusal(memory_error("INVALID", "this context has keys and values alone"));
  }
}

Result<std::optional<std::string>> Entries::open_value(std::string_view key, std::string_view value,
                                                       bool sealed) const {
  if (!sealed) return std::string(value);
  const auto& opens = terms_.key ? terms_.key : terms_.old_key;
  if (!opens) return std::nullopt;
  return unseal(*opens, value, place(key));
}

Result<std::optional<Entries::Row>> Entries::find(const std::string& key, bool with_value) const {
  auto select =
      with_value
          ? database_.prepare("SELECT id, size, expires, version, binary, sealed, value FROM entries WHERE key = ?1")
          : database_.prepare("SELECT id, size, expires, version, binary FROM entries WHERE key = ?1");
  if (!select) return tl::unexpected(select.error());
  (*select)->bind_blob(1, key);
  const auto found = (*select)->step();
  if (!found) return tl::unexpected(found.error());
  if (!*found) return std::nullopt;
  Row row;
  row.id = (*select)->number(0);
  row.size = (*select)->number(1);
  row.expires_ms = (*select)->number(2);
  row.version = static_cast<std::uint64_t>((*select)->number(3));
  row.binary = (*select)->number(4) != 0;
  if (with_value) {
    auto value = open_value(key, (*select)->bytes(6), (*select)->number(5) != 0);
    if (!value) return tl::unexpected(value.error());
    row.value = *std::move(value);
  }
  return row;
}

Result<klp::MemoryAnswer> Entries::get(const klp::MemoryGet& request, std::int64_t now_ms) const {
  klp::MemoryAnswer answer;
  klp::MemoryGot& got = *answer.mutable_got();
  std::size_t bytes = 0;
  for (const std::string& key : request.keys()) {
    auto row = find(key, true);
    if (!row) return tl::unexpected(row.error());
    if (!*row || has_expired_at((*row)->expires_ms, now_ms)) continue;
    if (!(*row)->value) {
      return refusal(memory_error("INTERNAL",
                                  "a value does not open with the agent's key: it was changed, or "
                                  "moved, by somebody else than kaid"));
    }
    bytes += key.size() + (*row)->value->size();
    // One that is there can always be read.
    if (got.entries_size() > 0 && bytes > kMaxMemoryAnswerBytes) return refusal(answer_too_large());
    klp::MemoryEntry& entry = *got.add_entries();
    entry.set_key(key);
    entry.set_value(*std::move((*row)->value));
    entry.set_binary((*row)->binary);
    entry.set_version((*row)->version);
    entry.set_expires_ms((*row)->expires_ms);
  }
  return answer;
}

std::optional<klp::MemoryError> Entries::charge(std::int64_t bytes, std::int64_t entries) {
  auto refused = account_.charge(bytes, entries);
  if (refused) return refused;
  counters_.used.bytes += static_cast<std::uint64_t>(bytes);  // modulo 2^64: a negative change takes away
  counters_.used.entries += static_cast<std::uint64_t>(entries);
  return {};
}

// Conditions, then the quota: what all writes change together.
Result<std::optional<klp::MemoryError>> Entries::admit(const klp::MemorySet& request, std::int64_t now_ms) {
  std::int64_t bytes = 0;
  std::int64_t entries = 0;
  for (const klp::MemoryWrite& write : request.writes()) {
    auto row = find(write.key(), false);
    if (!row) return tl::unexpected(row.error());
    const std::uint64_t version = *row && !has_expired_at((*row)->expires_ms, now_ms) ? (*row)->version : 0;
    const bool holds = (!write.if_absent() || version == 0) &&
                       (!write.has_if_version() || (version != 0 && version == write.if_version()));
    if (!holds) return memory_conflict(write.key(), version);
    bytes += cost(write.key().size(), static_cast<std::int64_t>(write.value().size()));
    if (*row) bytes -= cost(write.key().size(), (*row)->size);
    if (!*row) ++entries;
  }
  return charge(bytes, entries);
}

Result<klp::MemoryAnswer> Entries::set(const klp::MemorySet& request, std::int64_t now_ms) {
  auto refused = admit(request, now_ms);
  while (refused && *refused && (*refused)->code() == "QUOTA_EXCEEDED") {
    // What has expired does not count, however much it is.
    auto swept = sweep(now_ms, kSweptAtOnce);
    if (!swept) return tl::unexpected(swept.error());
    if (*swept == 0) break;
    refused = admit(request, now_ms);
  }
  if (!refused) return tl::unexpected(refused.error());
  if (*refused) return refusal(*std::move(*refused));

  klp::MemoryAnswer answer;
  klp::MemoryWritten& written = *answer.mutable_written();
  for (const klp::MemoryWrite& request_write : request.writes()) {
    Entry entry{request_write.key(), request_write.value(), request_write.binary(), ++counters_.version,
                expires_at(request_write, terms_.default_ttl_ms, now_ms)};
    if (auto done = write(entry); !done) return tl::unexpected(done.error());
    written.add_versions(entry.version);
  }
  return answer;
}

Result<> Entries::write(const Entry& entry) {
  auto upsert = database_.prepare(
      "INSERT INTO entries(key, value, size, binary, sealed, version, expires) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7) "
      "ON CONFLICT(key) DO UPDATE SET value = ?2, size = ?3, binary = ?4, sealed = ?5, version = ?6, expires = ?7");
  if (!upsert) return tl::unexpected(upsert.error());
  const std::string sealed = terms_.key ? seal(*terms_.key, entry.value, place(entry.key)) : std::string();
  (*upsert)->bind_blob(1, entry.key).bind_blob(2, terms_.key ? sealed : entry.value);
  (*upsert)->bind(3, static_cast<std::int64_t>(entry.value.size())).bind(4, std::int64_t{entry.binary});
  (*upsert)->bind(5, std::int64_t{terms_.key.has_value()}).bind(6, static_cast<std::int64_t>(entry.version));
  return (*upsert)->bind(7, entry.expires_ms).run();
}

Result<klp::MemoryAnswer> Entries::remove(const klp::MemoryDelete& request, std::int64_t now_ms) {
  klp::MemoryAnswer answer;
  answer.mutable_deleted()->set_deleted(false);
  auto row = find(request.key(), false);
  if (!row) return tl::unexpected(row.error());
  if (!*row) return answer;
  auto statement = database_.prepare("DELETE FROM entries WHERE id = ?1");
  if (!statement) return tl::unexpected(statement.error());
  if (auto done = (*statement)->bind(1, (*row)->id).run(); !done) return tl::unexpected(done.error());
  static_cast<void>(charge(-cost(request.key().size(), (*row)->size), -1));  // less is always taken
  answer.mutable_deleted()->set_deleted(!has_expired_at((*row)->expires_ms, now_ms));
  return answer;
}

Result<klp::MemoryAnswer> Entries::list(const klp::MemoryList& request, std::int64_t now_ms) const {
  auto select = database_.prepare(
      "SELECT key FROM entries WHERE key >= ?1 AND key < ?2 AND (expires = 0 OR expires > ?3) ORDER BY key LIMIT ?4");
  if (!select) return tl::unexpected(select.error());
  // The key that follows another at once is that one with a NUL.
  const std::string from =
      request.after().empty() || request.after() < request.prefix() ? request.prefix() : request.after() + '\0';
  const std::string until = request.prefix() + kBehindEveryKey;
  const std::size_t limit = list_limit(request);
  (*select)->bind_blob(1, from).bind_blob(2, until).bind(3, now_ms).bind(4, static_cast<std::int64_t>(limit) + 1);
  klp::MemoryAnswer answer;
  klp::MemoryListed& listed = *answer.mutable_listed();
  for (;;) {
    const auto row = (*select)->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) return answer;
    if (static_cast<std::size_t>(listed.keys_size()) == limit) {
      listed.set_more(true);
      return answer;
    }
    listed.add_keys(std::string((*select)->bytes(0)));
  }
}

Result<bool> Entries::has_expired(std::int64_t now_ms) const {
  auto select = database_.prepare("SELECT 1 FROM entries WHERE expires > 0 AND expires <= ?1 LIMIT 1");
  if (!select) return tl::unexpected(select.error());
  return (*select)->bind(1, now_ms).step();
}

Result<std::int64_t> Entries::sweep(std::int64_t now_ms, std::int64_t most) {
  auto count = database_.prepare(
      "SELECT count(*), sum(length(key) + size) FROM (SELECT key, size FROM entries WHERE expires > 0 AND expires <= "
      "?1 ORDER BY expires, id LIMIT ?2)");
  if (!count) return tl::unexpected(count.error());
  const auto row = (*count)->bind(1, now_ms).bind(2, most).step();
  if (!row) return tl::unexpected(row.error());
  const std::int64_t entries = (*count)->number(0);
  const std::int64_t bytes = (*count)->number(1);
  if (entries == 0) return 0;
  auto statement = database_.prepare(
      "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE expires > 0 AND expires <= ?1 ORDER BY expires, "
      "id LIMIT ?2)");
  if (!statement) return tl::unexpected(statement.error());
  if (auto done = (*statement)->bind(1, now_ms).bind(2, most).run(); !done) return tl::unexpected(done.error());
  static_cast<void>(charge(-bytes, -entries));  // less is always taken
  return entries;
}

}  // namespace kai
