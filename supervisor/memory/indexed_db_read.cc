// Reads, all of one form: rows (key, primary key, rowid of the record) of a half-open interval in the order of an
// index of SQLite, then the values of those that are answered.
#include <algorithm>
#include <utility>

#include "supervisor/memory/indexed_db_engine.h"

namespace kai::idb {
namespace {

// Where an interval begins or ends, in the order of an index: by key, then by primary key. Of a store's own records
// the primary key stays empty.
struct Point {
  std::string key, primary_key;
  friend auto operator<=>(const Point&, const Point&) = default;
};

struct Points {
  Point from, to;  // from <= point < to
};

bool is_forward(klp::IdbDirection direction) {
  return direction == klp::NEXT || direction == klp::NEXT_UNIQUE;
}

// What a record takes in an answer beside its bytes: protobuf's tags and lengths.
constexpr std::size_t kRecordOverheadBytes = 16;

constexpr const char* kRecordsForward =
    "SELECT key, x'', id FROM idb_record WHERE store=?1 AND key>=?2 AND key<?3 ORDER BY key";
constexpr const char* kRecordsBackward =
    "SELECT key, x'', id FROM idb_record WHERE store=?1 AND key>=?2 AND key<?3 ORDER BY key DESC";
constexpr const char* kIndexForward =
    "SELECT key, primary_key, record FROM idb_index_record WHERE index_id=?1 AND (key, primary_key)>=(?2, ?3) AND "
    "(key, primary_key)<(?4, ?5) ORDER BY key, primary_key";
constexpr const char* kIndexBackward =
    "SELECT key, primary_key, record FROM idb_index_record WHERE index_id=?1 AND (key, primary_key)>=(?2, ?3) AND "
    "(key, primary_key)<(?4, ?5) ORDER BY key DESC, primary_key DESC";
// With min(), the other columns are those of its row (SQLite: "bare columns in an aggregate query").
constexpr const char* kUniqueForward =
    "SELECT key, min(primary_key), record FROM idb_index_record WHERE index_id=?1 AND (key, primary_key)>=(?2, ?3) AND "
    "(key, primary_key)<(?4, ?5) GROUP BY key ORDER BY key";
constexpr const char* kUniqueBackward =
    "SELECT key, min(primary_key), record FROM idb_index_record WHERE index_id=?1 AND (key, primary_key)>=(?2, ?3) AND "
    "(key, primary_key)<(?4, ?5) GROUP BY key ORDER BY key DESC";

const char* scan_sql(bool index, klp::IdbDirection direction) {
  if (!index) return is_forward(direction) ? kRecordsForward : kRecordsBackward;
  switch (direction) {
    case klp::PREV:
      return kIndexBackward;
    case klp::NEXT_UNIQUE:
      return kUniqueForward;
    case klp::PREV_UNIQUE:
      return kUniqueBackward;
    default:
      return kIndexForward;
  }
}

void bind_scan(Statement& statement, const Target& target, const Points& points) {
  if (target.index == nullptr) {
    statement.bind(1, std::int64_t{target.store.shape.id()});
    statement.bind_blob(2, points.from.key).bind_blob(3, points.to.key);
    return;
  }
  statement.bind(1, std::int64_t{target.index->shape.id()});
  statement.bind_blob(2, points.from.key).bind_blob(3, points.from.primary_key);
  statement.bind_blob(4, points.to.key).bind_blob(5, points.to.primary_key);
}

MemoryOutcome<> check_read(const klp::IdbRead& request) {
  if (!klp::IdbDirection_IsValid(request.direction())) return refuse("INVALID", "there is no such direction");
  if (auto checked = check_range(request.span().range()); !checked) return checked;
  if (!request.has_position()) return {};
  if (auto checked = check_key(request.key()); !checked) return checked;
  if (request.primary_key().empty()) return {};
  if (request.span().index() == 0) return refuse("INVALID", "a position in a store's own records has no primary key");
  return check_key(request.primary_key());
}

// The first point that is not before the position (forward: beyond it, unless inclusive; backward: the end of what is
// before it, or of what is not beyond it).
Point position_of(const klp::IdbRead& request) {
  const bool past = is_forward(request.direction()) != request.inclusive();
  if (request.primary_key().empty()) return {past ? after(request.key()) : request.key(), {}};
  return {request.key(), past ? after(request.primary_key()) : request.primary_key()};
}

}  // namespace

// Whether no record with this index key has a primary key below this one.
MemoryOutcome<bool> Engine::is_first_of_key(const Index& index, const std::string& key,
                                            const std::string& primary_key) const {
  auto statement =
      database_.prepare("SELECT 1 FROM idb_index_record WHERE index_id=?1 AND key=?2 AND primary_key<?3 LIMIT 1");
  if (!statement) return failed(statement);
  const auto row =
      (*statement)->bind(1, std::int64_t{index.shape.id()}).bind_blob(2, key).bind_blob(3, primary_key).step();
  if (!row) return failed(row);
  return !*row;
}

MemoryOutcome<std::string> Engine::value_of(const Target& target, std::int64_t record, const std::string& key) const {
  auto statement = database_.prepare("SELECT value, sealed FROM idb_record WHERE id=?1");
  if (!statement) return failed(statement);
  const auto row = (*statement)->bind(1, record).step();
  if (!row) return failed(row);
  if (!*row) return refuse("INTERNAL", "an index names a record that is not there: the file is damaged");
  if ((*statement)->number(1) == 0) return (*statement)->text(0);
  const auto& opens = terms_.key ? terms_.key : terms_.old_key;
  if (!opens) return refuse("INTERNAL", "the value is encrypted, and the node's key is not there");
  auto value = unseal(*opens, (*statement)->bytes(0), place(target.schema.id, target.store.shape.id(), key));
  if (!value) return refuse("INTERNAL", "the value cannot be decrypted: another node key, or the file was changed");
  return std::move(*value);
}

MemoryOutcome<klp::IdbRecords> Engine::read(Target target, const klp::IdbRead& request) const {
  if (const auto checked = check_read(request); !checked) return pass(checked);
  const Interval interval = interval_of(request.span().range());
  Points points{{interval.lower, {}}, {interval.upper, {}}};
  if (request.has_position()) {
    Point position = position_of(request);
    // The first of a key stands for all of it: where that is before the position, all of them are.
    if (request.direction() == klp::NEXT_UNIQUE && target.index != nullptr && !position.primary_key.empty()) {
      const auto first = is_first_of_key(*target.index, position.key, position.primary_key);
      if (!first) return pass(first);
      if (!*first) position = {after(position.key), {}};
    }
    if (is_forward(request.direction())) {
      points.from = std::max(std::move(points.from), std::move(position));
    } else {
      points.to = std::min(std::move(points.to), std::move(position));
    }
  }
  auto statement = database_.prepare(scan_sql(target.index != nullptr, request.direction()));
  if (!statement) return failed(statement);
  bind_scan(**statement, target, points);
  return collect(target, request, **statement);
}

MemoryOutcome<klp::IdbRecords> Engine::collect(const Target& target, const klp::IdbRead& request,
                                               Statement& scan) const {
  klp::IdbRecords records;
  std::size_t bytes = 0;
  std::uint32_t skip = request.skip();
  auto row = scan.step();
  for (; row && *row; row = scan.step()) {
    if (skip > 0) {
      --skip;
      continue;
    }
    const auto number = static_cast<std::uint32_t>(records.records_size());
    if (request.limit() != 0 && number == request.limit()) {
      records.set_more(true);
      break;
    }
    klp::IdbRecord record;
    record.set_key(scan.text(0));
    record.set_primary_key(scan.text(1));
    if (!request.keys_only()) {
      auto value = value_of(target, scan.number(2), target.index == nullptr ? record.key() : record.primary_key());
      if (!value) return pass(value);
      record.set_value(std::move(*value));
    }
    bytes += record.key().size() + record.primary_key().size() + record.value().size() + kRecordOverheadBytes;
    if (number > 0 && bytes > kMaxMemoryAnswerBytes) {
      records.set_more(true);
      break;
    }
    *records.add_records() = std::move(record);
  }
  if (!row) return failed(row);
  return records;
}

MemoryOutcome<std::uint64_t> Engine::count(Target target, const klp::IdbRange& range) const {
  if (const auto checked = check_range(range); !checked) return pass(checked);
  if (target.index == nullptr && range.lower().empty() && range.upper().empty()) return target.store.entries;
  const Interval interval = interval_of(range);
  auto statement = database_.prepare(
      target.index == nullptr ? "SELECT count(*) FROM idb_record WHERE store=?1 AND key>=?2 AND key<?3"
                              : "SELECT count(*) FROM idb_index_record WHERE index_id=?1 AND key>=?2 AND key<?3");
  if (!statement) return failed(statement);
  const std::uint32_t id = target.index == nullptr ? target.store.shape.id() : target.index->shape.id();
  const auto row =
      (*statement)->bind(1, std::int64_t{id}).bind_blob(2, interval.lower).bind_blob(3, interval.upper).step();
  if (!row) return failed(row);
  return static_cast<std::uint64_t>((*statement)->number(0));
}

}  // namespace kai::idb
