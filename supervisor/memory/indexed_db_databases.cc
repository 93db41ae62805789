// Databases and their rows: the schema that a transaction holds is read from them, its counters are written to them.
//
// Ids are never used again (AUTOINCREMENT): a value sealed for one store opens in no later one.
#include <utility>

#include "supervisor/memory/indexed_db_engine.h"

namespace kai::idb {
namespace {

// Values stand apart from the keys that are searched (a table with a rowid and an index over it): in a table WITHOUT
// ROWID each comparison of a search would read a large value whole. A record's index keys hold its primary key, for
// their order, and its rowid, to find the value and to be found when the record goes.
constexpr const char* kTables = R"(
CREATE TABLE IF NOT EXISTS idb_database(
  id INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB NOT NULL UNIQUE, version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS idb_store(
  id INTEGER PRIMARY KEY AUTOINCREMENT, database INTEGER NOT NULL, name BLOB NOT NULL, key_path BLOB NOT NULL,
  auto_increment INTEGER NOT NULL, next_key INTEGER NOT NULL, bytes INTEGER NOT NULL, entries INTEGER NOT NULL,
  UNIQUE(database, name));
CREATE TABLE IF NOT EXISTS idb_index(
  id INTEGER PRIMARY KEY AUTOINCREMENT, store INTEGER NOT NULL, name BLOB NOT NULL, key_path BLOB NOT NULL,
  is_unique INTEGER NOT NULL, multi_entry INTEGER NOT NULL, bytes INTEGER NOT NULL, UNIQUE(store, name));
CREATE TABLE IF NOT EXISTS idb_record(
  id INTEGER PRIMARY KEY, store INTEGER NOT NULL, key BLOB NOT NULL, sealed INTEGER NOT NULL, value BLOB NOT NULL,
  UNIQUE(store, key));
CREATE TABLE IF NOT EXISTS idb_index_record(
  index_id INTEGER NOT NULL, key BLOB NOT NULL, primary_key BLOB NOT NULL, record INTEGER NOT NULL,
  PRIMARY KEY(index_id, key, primary_key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS idb_index_record_of ON idb_index_record(record);
)";

std::uint64_t unsigned_at(const Statement& statement, int column) {
  return static_cast<std::uint64_t>(statement.number(column));
}

}  // namespace

Result<> Engine::make_tables() {
  return database_.execute(kTables);
}

Result<MemoryUsage> Engine::stored() const {
  const auto stores = database_.number("SELECT ifnull(sum(bytes), 0) FROM idb_store");
  if (!stores) return tl::unexpected(stores.error());
  const auto indexes = database_.number("SELECT ifnull(sum(bytes), 0) FROM idb_index");
  if (!indexes) return tl::unexpected(indexes.error());
  const auto entries = database_.number("SELECT ifnull(sum(entries), 0) FROM idb_store");
  if (!entries) return tl::unexpected(entries.error());
  return MemoryUsage{static_cast<std::uint64_t>(*stores + *indexes), static_cast<std::uint64_t>(*entries)};
}

MemoryOutcome<std::optional<Schema>> Engine::find_schema(const std::string& name) const {
  Schema schema;
  schema.name = name;
  {
    auto statement = database_.prepare("SELECT id, version FROM idb_database WHERE name=?1");
    if (!statement) return failed(statement);
    const auto row = (*statement)->bind_blob(1, name).step();
    if (!row) return failed(row);
    if (!*row) return std::nullopt;
    schema.id = (*statement)->number(0);
    schema.version = unsigned_at(**statement, 1);
  }
  if (const auto read = read_stores(schema); !read) return pass(read);
  return schema;
}

MemoryOutcome<> Engine::read_stores(Schema& schema) const {
  auto stores = database_.prepare(
      "SELECT id, name, key_path, auto_increment, next_key, bytes, entries FROM idb_store WHERE database=?1");
  if (!stores) return failed(stores);
  (*stores)->bind(1, schema.id);
  auto row = (*stores)->step();
  for (; row && *row; row = (*stores)->step()) {
    Store store;
    const auto id = static_cast<std::uint32_t>((*stores)->number(0));
    store.shape.set_id(id);
    store.shape.set_name((*stores)->text(1));
    store.shape.set_key_path_json((*stores)->text(2));
    store.shape.set_auto_increment((*stores)->number(3) != 0);
    store.shape.set_next_key(unsigned_at(**stores, 4));
    store.bytes = unsigned_at(**stores, 5);
    store.entries = unsigned_at(**stores, 6);
    schema.stores.emplace(id, std::move(store));
  }
  if (!row) return failed(row);

  auto indexes = database_.prepare(
      "SELECT i.id, i.name, i.key_path, i.is_unique, i.multi_entry, i.bytes, i.store FROM idb_store s CROSS JOIN "
      "idb_index i ON i.store = s.id WHERE s.database=?1");
  if (!indexes) return failed(indexes);
  (*indexes)->bind(1, schema.id);
  for (row = (*indexes)->step(); row && *row; row = (*indexes)->step()) {
    Index index;
    const auto id = static_cast<std::uint32_t>((*indexes)->number(0));
    index.shape.set_id(id);
    index.shape.set_name((*indexes)->text(1));
    index.shape.set_key_path_json((*indexes)->text(2));
    index.shape.set_unique((*indexes)->number(3) != 0);
    index.shape.set_multi_entry((*indexes)->number(4) != 0);
    index.bytes = unsigned_at(**indexes, 5);
    schema.stores[static_cast<std::uint32_t>((*indexes)->number(6))].indexes.emplace(id, std::move(index));
  }
  if (!row) return failed(row);
  return {};
}

MemoryOutcome<Schema> Engine::create_database(const std::string& name, std::uint64_t version) {
  const auto number = database_.number("SELECT count(*) FROM idb_database");
  if (!number) return failed(number);
  if (*number >= static_cast<std::int64_t>(kMaxIdbDatabases)) {
    return refuse("TOO_LARGE", "there are " + std::to_string(kMaxIdbDatabases) + " databases, which is the most");
  }
  auto insert = database_.prepare("INSERT INTO idb_database(name, version) VALUES(?1, ?2) RETURNING id");
  if (!insert) return failed(insert);
  const auto id = new_id((*insert)->bind_blob(1, name).bind(2, as_signed(version)));
  if (!id) return pass(id);
  Schema schema;
  schema.id = *id;
  schema.name = name;
  schema.version = version;
  return schema;
}

MemoryOutcome<> Engine::set_version(Schema& schema, std::uint64_t version) {
  auto update = database_.prepare("UPDATE idb_database SET version=?2 WHERE id=?1");
  if (!update) return failed(update);
  if (const auto ran = (*update)->bind(1, schema.id).bind(2, as_signed(version)).run(); !ran) return failed(ran);
  schema.version = version;
  return {};
}

MemoryOutcome<> Engine::write_counters(Schema& schema) {
  for (auto& [id, store] : schema.stores) {
    if (!store.changed) continue;
    auto update = database_.prepare("UPDATE idb_store SET next_key=?2, bytes=?3, entries=?4 WHERE id=?1");
    if (!update) return failed(update);
    (*update)->bind(1, std::int64_t{id}).bind(2, as_signed(store.shape.next_key()));
    (*update)->bind(3, as_signed(store.bytes)).bind(4, as_signed(store.entries));
    if (const auto ran = (*update)->run(); !ran) return failed(ran);
    for (const auto& [index_id, index] : store.indexes) {
      auto bytes = database_.prepare("UPDATE idb_index SET bytes=?2 WHERE id=?1");
      if (!bytes) return failed(bytes);
      const auto ran = (*bytes)->bind(1, std::int64_t{index_id}).bind(2, as_signed(index.bytes)).run();
      if (!ran) return failed(ran);
    }
    store.changed = false;
  }
  return {};
}

Engine::Answer Engine::databases() const {
  klp::IdbAnswer answer;
  klp::IdbNames& names = *answer.mutable_names();
  // Of a transaction that is still open nobody is told.
  const klp::IdbDatabase* const changing = writer_ == 0 ? nullptr : &open_.at(writer_).database_before;
  auto statement = database_.prepare("SELECT name, version FROM idb_database ORDER BY name");
  if (!statement) return failed(statement);
  auto row = (*statement)->step();
  for (; row && *row; row = (*statement)->step()) {
    const bool changes = changing != nullptr && changing->name() == (*statement)->bytes(0);
    const std::uint64_t version = changes ? changing->version() : unsigned_at(**statement, 1);
    if (version == 0) continue;
    klp::IdbDatabase& database = *names.add_databases();
    database.set_name((*statement)->text(0));
    database.set_version(version);
  }
  if (!row) return failed(row);
  return answer;
}

Engine::Answer Engine::describe(const std::string& name) const {
  if (const auto named = check_name(name); !named) return pass(named);
  klp::IdbAnswer answer;
  answer.mutable_database()->set_name(name);
  if (writer_ != 0 && open_.at(writer_).database_before.name() == name) {
    *answer.mutable_database() = open_.at(writer_).database_before;
    return answer;
  }
  const auto schema = find_schema(name);
  if (!schema) return pass(schema);
  if (*schema) *answer.mutable_database() = (*schema)->shape();
  return answer;
}

Engine::Answer Engine::delete_database(const std::string& name) {
  auto answer = describe(name);
  if (!answer) return answer;
  if (!open_.empty()) return refuse("BUSY", "a transaction is open");
  const auto schema = find_schema(name);
  if (!schema) return pass(schema);
  if (!*schema) return answer;
  const MemoryUsage before = account_.used();
  Savepoint savepoint(database_);
  if (const auto set = savepoint.set(); !set) return failed(set);
  if (const auto deleted = delete_schema(**schema); !deleted) {
    account_.reset(before);
    return pass(deleted);
  }
  if (const auto released = savepoint.release(); !released) {
    account_.reset(before);
    return failed(released);
  }
  return answer;
}

MemoryOutcome<> Engine::delete_schema(const Schema& schema) {
  for (const auto& [id, store] : schema.stores) {
    if (auto deleted = delete_rows(store); !deleted) return deleted;
  }
  auto statement = database_.prepare("DELETE FROM idb_database WHERE id=?1");
  if (!statement) return failed(statement);
  if (const auto ran = (*statement)->bind(1, schema.id).run(); !ran) return failed(ran);
  for (const auto& [id, store] : schema.stores) {
    // What makes it less is always taken.
    static_cast<void>(account_.charge(-as_signed(store.all_bytes()), -as_signed(store.entries)));
  }
  return {};
}

MemoryOutcome<> Engine::delete_all() {
  loading_.reset();  // of a load that was given up
  std::vector<std::string> names;
  {
    auto statement = database_.prepare("SELECT name FROM idb_database");
    if (!statement) return failed(statement);
    auto row = (*statement)->step();
    for (; row && *row; row = (*statement)->step()) names.push_back((*statement)->text(0));
    if (!row) return failed(row);
  }
  for (const std::string& name : names) {
    const auto schema = find_schema(name);
    if (!schema) return pass(schema);
    if (auto deleted = delete_schema(**schema); !deleted) return deleted;
  }
  return {};
}

}  // namespace kai::idb
