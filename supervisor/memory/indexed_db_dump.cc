// Everything as lines of an export, and back.
#include <utility>

#include "supervisor/memory/indexed_db_engine.h"
#include "supervisor/memory/reseal.h"

namespace kai::idb {
namespace {

// For an export the words of an answer are as good: they say what happened.
tl::unexpected<Error> as_error(const klp::MemoryError& error) {
  return failure("read IndexedDB", error.message());
}

IdbDumpStore line_of(const klp::IdbStore& shape) {
  return {shape.id(), shape.name(), shape.key_path_json(), shape.auto_increment(), shape.next_key()};
}

IdbDumpIndex line_of(const klp::IdbIndex& shape) {
  return {shape.id(), shape.name(), shape.key_path_json(), shape.unique(), shape.multi_entry()};
}

}  // namespace

Result<> Engine::dump(const IndexedDb::Visit& visit) const {
  const auto all = databases();
  if (!all) return as_error(all.error());
  for (const klp::IdbDatabase& named : all->names().databases()) {
    auto schema = find_schema(named.name());
    if (!schema) return as_error(schema.error());
    if (auto visited = visit(IdbDumpDatabase{named.name(), named.version()}); !visited) return visited;
    for (auto& [id, store] : (*schema)->stores) {
      if (auto visited = visit(line_of(store.shape)); !visited) return visited;
      for (const auto& [index_id, index] : store.indexes) {
        if (auto visited = visit(line_of(index.shape)); !visited) return visited;
      }
      if (auto visited = dump_records({**schema, store}, visit); !visited) return visited;
    }
  }
  return {};
}

Result<> Engine::dump_records(const Target& target, const IndexedDb::Visit& visit) const {
  auto records = database_.prepare("SELECT id, key FROM idb_record WHERE store=?1 ORDER BY key");
  if (!records) return tl::unexpected(records.error());
  (*records)->bind(1, std::int64_t{target.store.shape.id()});
  auto row = (*records)->step();
  for (; row && *row; row = (*records)->step()) {
    IdbDumpRecord record;
    record.key = (*records)->text(1);
    auto value = value_of(target, (*records)->number(0), record.key);
    if (!value) return as_error(value.error());
    record.value = std::move(*value);
    auto keys = database_.prepare("SELECT index_id, key FROM idb_index_record WHERE record=?1 ORDER BY index_id, key");
    if (!keys) return tl::unexpected(keys.error());
    (*keys)->bind(1, (*records)->number(0));
    auto key = (*keys)->step();
    for (; key && *key; key = (*keys)->step()) {
      record.index_keys.emplace_back(static_cast<std::uint32_t>((*keys)->number(0)), (*keys)->text(1));
    }
    if (!key) return tl::unexpected(key.error());
    if (auto visited = visit(std::move(record)); !visited) return visited;
  }
  if (!row) return tl::unexpected(row.error());
  return {};
}

MemoryOutcome<> Engine::load(const DumpLine& line) {
  if (const auto* database = std::get_if<IdbDumpDatabase>(&line)) return load_database(*database);
  if (!loading_) return refuse("INVALID", "IndexedDB begins with a database");
  if (const auto* store = std::get_if<IdbDumpStore>(&line)) return load_store(*store);
  if (loading_->store == 0) return refuse("INVALID", "an index or a record comes before its object store");
  Target target{loading_->schema, loading_->schema.stores.at(loading_->store)};
  if (const auto* index = std::get_if<IdbDumpIndex>(&line)) return load_index(target, *index);
  if (const auto* record = std::get_if<IdbDumpRecord>(&line)) return load_record(target, *record);
  return refuse("INVALID", "a key with its value is none of IndexedDB's");
}

MemoryOutcome<> Engine::load_database(const IdbDumpDatabase& line) {
  if (auto finished = finish_load(); !finished) return finished;
  if (auto named = check_name(line.name); !named) return named;
  if (line.version == 0 || line.version > kMaxIdbVersion) {
    return refuse("INVALID", "a database's version is from 1 to 2^53 - 1");
  }
  const auto found = find_schema(line.name);
  if (!found) return pass(found);
  if (*found) return refuse("INVALID", "a database is there twice");
  auto schema = create_database(line.name, line.version);
  if (!schema) return pass(schema);
  loading_.emplace();
  loading_->schema = std::move(*schema);
  return {};
}

MemoryOutcome<> Engine::load_store(const IdbDumpStore& line) {
  if (line.next_key == 0 || line.next_key > kMaxIdbNextKey) {
    return refuse("INVALID", "a key generator's next key is from 1 to 2^53 + 1");
  }
  klp::IdbStore shape;
  shape.set_name(line.name);
  shape.set_key_path_json(line.key_path_json);
  shape.set_auto_increment(line.auto_increment);
  const auto id = create_store(loading_->schema, shape);
  if (!id) return pass(id);
  loading_->store = *id;
  loading_->indexes.clear();
  Store& store = loading_->schema.stores.at(*id);
  store.shape.set_next_key(line.next_key);
  store.changed = true;
  return {};
}

MemoryOutcome<> Engine::load_index(Target target, const IdbDumpIndex& line) {
  if (target.store.entries != 0) return refuse("INVALID", "an index comes after records of its object store");
  klp::IdbIndex shape;
  shape.set_name(line.name);
  shape.set_key_path_json(line.key_path_json);
  shape.set_unique(line.unique);
  shape.set_multi_entry(line.multi_entry);
  const auto id = create_index(target, shape);
  if (!id) return pass(id);
  if (!loading_->indexes.emplace(line.id, *id).second) return refuse("INVALID", "an index's id is there twice");
  return {};
}

MemoryOutcome<> Engine::load_record(Target target, const IdbDumpRecord& line) {
  klp::IdbPut request;
  request.set_key(line.key);
  request.set_value(line.value);
  request.set_no_overwrite(true);
  for (const auto& [index, key] : line.index_keys) {
    const auto ours = loading_->indexes.find(index);
    if (ours == loading_->indexes.end()) return refuse("INVALID", "an index key is of no index of its object store");
    klp::IdbIndexKey& one = *request.add_index_keys();
    one.set_index(ours->second);
    one.set_key(key);
  }
  return put(target, request);
}

MemoryOutcome<> Engine::finish_load() {
  if (!loading_) return {};
  auto written = write_counters(loading_->schema);
  loading_.reset();
  return written;
}

Result<> Engine::reseal_all() {
  return reseal(database_, terms_,
                "SELECT r.id, r.sealed, r.value, s.database, r.store, r.key FROM idb_record r CROSS JOIN idb_store s "
                "ON s.id=r.store WHERE r.id>?1 AND r.sealed<>?2 ORDER BY r.id LIMIT 1",
                "UPDATE idb_record SET value=?1, sealed=?2 WHERE id=?3",
                [](const Statement& row) { return place(row.number(3), row.number(4), row.bytes(5)); });
}

}  // namespace kai::idb
