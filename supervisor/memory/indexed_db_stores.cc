// Object stores and indexes: made, renamed and deleted, in VERSIONCHANGE alone.
#include <limits>
#include <utility>

#include "supervisor/memory/indexed_db_engine.h"

namespace kai::idb {
namespace {

constexpr std::size_t kShapeBytes = 64;  // of kMaxIdbSchemaBytes, for each store and index

std::size_t shape_bytes(const auto& shape) {
  return shape.name().size() + shape.key_path_json().size() + kShapeBytes;
}

template <typename Shapes>
MemoryOutcome<> check_free(const Shapes& among, const std::string& name, const char* what) {
  for (const auto& [id, one] : among) {
    if (one.shape.name() == name) return refuse("CONFLICT", std::string("there is ") + what + " of this name already");
  }
  return {};
}

}  // namespace

MemoryOutcome<> Engine::check_room(std::size_t more) const {
  const auto stores = database_.number("SELECT ifnull(sum(length(name) + length(key_path) + 64), 0) FROM idb_store");
  if (!stores) return failed(stores);
  const auto indexes = database_.number("SELECT ifnull(sum(length(name) + length(key_path) + 64), 0) FROM idb_index");
  if (!indexes) return failed(indexes);
  if (static_cast<std::size_t>(*stores + *indexes) + more <= kMaxIdbSchemaBytes) return {};
  return refuse("TOO_LARGE", "the names and key paths of all object stores and indexes may have " +
                                 std::to_string(kMaxIdbSchemaBytes) + " bytes together, and 64 are counted for each");
}

MemoryOutcome<std::uint32_t> Engine::new_id(Statement& insert) const {
  const auto row = insert.step();
  if (!row) return failed(row);
  const std::int64_t id = insert.number(0);
  if (id > std::numeric_limits<std::uint32_t>::max()) return refuse("INTERNAL", "all ids of IndexedDB are used up");
  const auto end = insert.step();
  if (!end) return failed(end);
  return static_cast<std::uint32_t>(id);
}

std::uint64_t Store::all_bytes() const {
  std::uint64_t sum = bytes;
  for (const auto& [id, index] : indexes) sum += index.bytes;
  return sum;
}

klp::IdbDatabase Schema::shape() const {
  klp::IdbDatabase database;
  database.set_name(name);
  database.set_version(version);
  for (const auto& [store_id, store] : stores) {
    klp::IdbStore& shape = *database.add_stores();
    shape = store.shape;
    for (const auto& [index_id, index] : store.indexes) *shape.add_indexes() = index.shape;
  }
  return database;
}

MemoryOutcome<std::uint32_t> Engine::create_store(Schema& schema, const klp::IdbStore& shape) {
  if (const auto named = check_name(shape.name()); !named) return pass(named);
  if (const auto path = check_key_path(shape.key_path_json()); !path) return pass(path);
  if (const auto free = check_free(schema.stores, shape.name(), "an object store"); !free) return pass(free);
  if (schema.stores.size() >= kMaxIdbStores) {
    return refuse("TOO_LARGE", "a database has at most " + std::to_string(kMaxIdbStores) + " object stores");
  }
  if (const auto room = check_room(shape_bytes(shape)); !room) return pass(room);

  auto insert = database_.prepare(
      "INSERT INTO idb_store(database, name, key_path, auto_increment, next_key, bytes, entries) "
      "VALUES(?1, ?2, ?3, ?4, 1, 0, 0) RETURNING id");
  if (!insert) return failed(insert);
  (*insert)->bind(1, schema.id).bind_blob(2, shape.name()).bind_blob(3, shape.key_path_json());
  const auto id = new_id((*insert)->bind(4, std::int64_t{shape.auto_increment()}));
  if (!id) return id;
  Store store;
  store.shape.set_id(*id);
  store.shape.set_name(shape.name());
  store.shape.set_key_path_json(shape.key_path_json());
  store.shape.set_auto_increment(shape.auto_increment());
  store.shape.set_next_key(1);
  schema.stores.emplace(*id, std::move(store));
  return id;
}

// Everything of a store, and its own row.
MemoryOutcome<> Engine::delete_rows(const Store& store) {
  const auto run = [this](const char* sql, std::uint32_t id) -> MemoryOutcome<> {
    auto statement = database_.prepare(sql);
    if (!statement) return failed(statement);
    if (const auto ran = (*statement)->bind(1, std::int64_t{id}).run(); !ran) return failed(ran);
    return {};
  };
  for (const auto& [id, index] : store.indexes) {
    if (auto ran = run("DELETE FROM idb_index_record WHERE index_id=?1", id); !ran) return ran;
  }
  const std::uint32_t id = store.shape.id();
  if (auto ran = run("DELETE FROM idb_index WHERE store=?1", id); !ran) return ran;
  if (auto ran = run("DELETE FROM idb_record WHERE store=?1", id); !ran) return ran;
  return run("DELETE FROM idb_store WHERE id=?1", id);
}

MemoryOutcome<> Engine::delete_store(Schema& schema, std::uint32_t id) {
  const auto found = schema.stores.find(id);
  if (found == schema.stores.end()) {
    return refuse("NOT_FOUND", "the database has no object store " + std::to_string(id));
  }
  Savepoint savepoint(database_);
  if (const auto set = savepoint.set(); !set) return failed(set);
  if (auto deleted = delete_rows(found->second); !deleted) return deleted;
  if (const auto released = savepoint.release(); !released) return failed(released);
  const Store& store = found->second;
  static_cast<void>(account_.charge(-as_signed(store.all_bytes()), -as_signed(store.entries)));
  schema.stores.erase(found);
  return {};
}

MemoryOutcome<> Engine::rename_store(Target target, const std::string& name) {
  klp::IdbStore& shape = target.store.shape;
  if (shape.name() == name) return {};
  if (auto named = check_name(name); !named) return named;
  if (auto free = check_free(target.schema.stores, name, "an object store"); !free) return free;
  if (auto room = check_room(name.size()); !room) return room;
  auto update = database_.prepare("UPDATE idb_store SET name=?2 WHERE id=?1");
  if (!update) return failed(update);
  if (const auto ran = (*update)->bind(1, std::int64_t{shape.id()}).bind_blob(2, name).run(); !ran) return failed(ran);
  shape.set_name(name);
  return {};
}

MemoryOutcome<std::uint32_t> Engine::create_index(Target target, const klp::IdbIndex& shape) {
  if (const auto named = check_name(shape.name()); !named) return pass(named);
  if (const auto path = check_key_path(shape.key_path_json()); !path) return pass(path);
  if (const auto free = check_free(target.store.indexes, shape.name(), "an index"); !free) return pass(free);
  if (target.store.indexes.size() >= kMaxIdbIndexes) {
    return refuse("TOO_LARGE", "an object store has at most " + std::to_string(kMaxIdbIndexes) + " indexes");
  }
  if (const auto room = check_room(shape_bytes(shape)); !room) return pass(room);

  auto insert = database_.prepare(
      "INSERT INTO idb_index(store, name, key_path, is_unique, multi_entry, bytes) VALUES(?1, ?2, ?3, ?4, ?5, 0) "
      "RETURNING id");
  if (!insert) return failed(insert);
  (*insert)->bind(1, std::int64_t{target.store.shape.id()}).bind_blob(2, shape.name());
  (*insert)->bind_blob(3, shape.key_path_json()).bind(4, std::int64_t{shape.unique()});
  const auto id = new_id((*insert)->bind(5, std::int64_t{shape.multi_entry()}));
  if (!id) return id;
  Index index;
  index.shape.set_id(*id);
  index.shape.set_name(shape.name());
  index.shape.set_key_path_json(shape.key_path_json());
  index.shape.set_unique(shape.unique());
  index.shape.set_multi_entry(shape.multi_entry());
  target.store.indexes.emplace(*id, std::move(index));
  return id;
}

MemoryOutcome<> Engine::delete_index(Target target) {
  const std::uint32_t id = target.index->shape.id();
  Savepoint savepoint(database_);
  if (const auto set = savepoint.set(); !set) return failed(set);
  for (const char* sql : {"DELETE FROM idb_index_record WHERE index_id=?1", "DELETE FROM idb_index WHERE id=?1"}) {
    auto statement = database_.prepare(sql);
    if (!statement) return failed(statement);
    if (const auto ran = (*statement)->bind(1, std::int64_t{id}).run(); !ran) return failed(ran);
  }
  if (const auto released = savepoint.release(); !released) return failed(released);
  static_cast<void>(account_.charge(-as_signed(target.index->bytes), 0));
  target.store.indexes.erase(id);
  return {};
}

MemoryOutcome<> Engine::rename_index(Target target, const std::string& name) {
  klp::IdbIndex& shape = target.index->shape;
  if (shape.name() == name) return {};
  if (auto named = check_name(name); !named) return named;
  if (auto free = check_free(target.store.indexes, name, "an index"); !free) return free;
  if (auto room = check_room(name.size()); !room) return room;
  auto update = database_.prepare("UPDATE idb_index SET name=?2 WHERE id=?1");
  if (!update) return failed(update);
  if (const auto ran = (*update)->bind(1, std::int64_t{shape.id()}).bind_blob(2, name).run(); !ran) return failed(ran);
  shape.set_name(name);
  return {};
}

}  // namespace kai::idb
