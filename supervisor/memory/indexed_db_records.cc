// What changes records. A change is planned first (what is unique, what it costs), then charged, then written: what
// fails has written nothing, or is rolled back to its savepoint.
#include <map>
#include <set>
#include <utility>

#include "supervisor/memory/indexed_db_engine.h"

namespace kai::idb {

/// A record that is there.
struct Engine::Existing {
  std::int64_t id = 0;
  std::int64_t value_bytes = 0;  ///< unsealed
};

/// How the counters change.
struct Engine::Change {
  std::int64_t bytes = 0;  ///< of primary keys and values
  std::int64_t entries = 0;
  std::map<std::uint32_t, std::int64_t> index_bytes;

  [[nodiscard]] std::int64_t all_bytes() const {
    std::int64_t sum = bytes;
    for (const auto& [id, of_index] : index_bytes) sum += of_index;
    return sum;
  }
  void apply(Store& store) const {
    store.bytes += static_cast<std::uint64_t>(bytes);  // modulo 2^64: less, where it is negative
    store.entries += static_cast<std::uint64_t>(entries);
    for (const auto& [id, of_index] : index_bytes) store.indexes.at(id).bytes += static_cast<std::uint64_t>(of_index);
    store.changed = true;
  }
};

namespace {

std::int64_t size_of(std::string_view bytes) {
  return static_cast<std::int64_t>(bytes.size());
}

MemoryOutcome<> check_index_keys(const Store& store, const klp::IdbPut& request) {
  if (request.index_keys_size() > kMaxIdbIndexKeys) {
    return refuse("TOO_LARGE", "a record has at most " + std::to_string(kMaxIdbIndexKeys) + " index keys");
  }
  std::set<std::pair<std::uint32_t, std::string_view>> seen;
  std::set<std::uint32_t> single;
  for (const klp::IdbIndexKey& one : request.index_keys()) {
    const auto index = store.indexes.find(one.index());
    if (index == store.indexes.end()) {
      return refuse("NOT_FOUND", "the object store has no index " + std::to_string(one.index()));
    }
    if (auto checked = check_key(one.key()); !checked) return checked;
    if (!seen.emplace(one.index(), one.key()).second) return refuse("INVALID", "an index key is there twice");
    if (!index->second.shape.multi_entry() && !single.insert(one.index()).second) {
      return refuse("INVALID", "two keys for an index that is not multiEntry");
    }
  }
  return {};
}

MemoryOutcome<> check_put(const Store& store, const klp::IdbPut& request) {
  if (auto checked = check_key(request.key()); !checked) return checked;
  if (auto checked = check_value(request.value()); !checked) return checked;
  if (request.next_key() != 0 && !store.shape.auto_increment()) {
    return refuse("INVALID", "the object store has no key generator");
  }
  if (request.next_key() > kMaxIdbNextKey) return refuse("INVALID", "a key generator ends at 2^53");
  return check_index_keys(store, request);
}

}  // namespace

std::string place(std::int64_t database, std::int64_t store, std::string_view key) {
  return "idb/" + std::to_string(database) + "/" + std::to_string(store) + "/" + std::string(key);
}

MemoryOutcome<std::optional<Engine::Existing>> Engine::find_record(const Store& store, const std::string& key) const {
  auto statement = database_.prepare("SELECT id, sealed, length(value) FROM idb_record WHERE store=?1 AND key=?2");
  if (!statement) return failed(statement);
  const auto row = (*statement)->bind(1, std::int64_t{store.shape.id()}).bind_blob(2, key).step();
  if (!row) return failed(row);
  if (!*row) return std::nullopt;
  const std::int64_t overhead = (*statement)->number(1) != 0 ? std::int64_t{kSealOverheadBytes} : 0;
  return Existing{(*statement)->number(0), (*statement)->number(2) - overhead};
}

MemoryOutcome<> Engine::check_unique(const Index& index, const std::string& key, const std::string& primary_key) const {
  if (!index.shape.unique()) return {};
  auto statement =
      database_.prepare("SELECT 1 FROM idb_index_record WHERE index_id=?1 AND key=?2 AND primary_key<>?3 LIMIT 1");
  if (!statement) return failed(statement);
  (*statement)->bind(1, std::int64_t{index.shape.id()}).bind_blob(2, key).bind_blob(3, primary_key);
  const auto row = (*statement)->step();
  if (!row) return failed(row);
  if (*row) return refuse("CONFLICT", "another record has this key in the unique index " + index.shape.name());
  return {};
}

MemoryOutcome<> Engine::put(Target target, const klp::IdbPut& request) {
  if (auto checked = check_put(target.store, request); !checked) return checked;
  const auto existing = find_record(target.store, request.key());
  if (!existing) return pass(existing);
  if (*existing && request.no_overwrite()) return refuse("CONFLICT", "there is a record with this key already");
  const auto change = plan_put(target, request, *existing);
  if (!change) return pass(change);

  const MemoryUsage before = account_.used();
  if (auto refused = account_.charge(change->all_bytes(), change->entries)) return tl::unexpected(std::move(*refused));
  if (auto written = write_put(target, request, *existing); !written) {
    account_.reset(before);
    return written;
  }
  change->apply(target.store);
  if (request.next_key() != 0) target.store.shape.set_next_key(request.next_key());
  return {};
}

MemoryOutcome<Engine::Change> Engine::plan_put(Target target, const klp::IdbPut& request,
                                               const std::optional<Existing>& existing) const {
  Change change;
  change.bytes = size_of(request.value());
  if (existing) {
    change.bytes -= existing->value_bytes;
  } else {
    change.bytes += size_of(request.key());
    change.entries = 1;
  }
  for (const klp::IdbIndexKey& one : request.index_keys()) {
    const auto unique = check_unique(target.store.indexes.at(one.index()), one.key(), request.key());
    if (!unique) return pass(unique);
    change.index_bytes[one.index()] += size_of(one.key());
  }
  if (!existing || target.store.indexes.empty()) return change;

  auto statement = database_.prepare("SELECT index_id, length(key) FROM idb_index_record WHERE record=?1");
  if (!statement) return failed(statement);
  (*statement)->bind(1, existing->id);
  auto row = (*statement)->step();
  for (; row && *row; row = (*statement)->step()) {
    change.index_bytes[static_cast<std::uint32_t>((*statement)->number(0))] -= (*statement)->number(1);
  }
  if (!row) return failed(row);
  return change;
}

MemoryOutcome<> Engine::write_put(Target target, const klp::IdbPut& request, const std::optional<Existing>& existing) {
  Savepoint savepoint(database_);
  if (!target.store.indexes.empty()) {
    if (const auto set = savepoint.set(); !set) return failed(set);
  }
  const bool sealed = terms_.key.has_value();
  std::string sealed_value;
  if (sealed)
    sealed_value = seal(*terms_.key, request.value(), place(target.schema.id, target.store.shape.id(), request.key()));
  const std::string& value = sealed ? sealed_value : request.value();
  std::int64_t record = 0;
  if (existing) {
    record = existing->id;
    auto update = database_.prepare("UPDATE idb_record SET sealed=?2, value=?3 WHERE id=?1");
    if (!update) return failed(update);
    const auto ran = (*update)->bind(1, record).bind(2, std::int64_t{sealed}).bind_blob(3, value).run();
    if (!ran) return failed(ran);
  } else {
    auto insert =
        database_.prepare("INSERT INTO idb_record(store, key, sealed, value) VALUES(?1, ?2, ?3, ?4) RETURNING id");
    if (!insert) return failed(insert);
    (*insert)->bind(1, std::int64_t{target.store.shape.id()}).bind_blob(2, request.key());
    const auto row = (*insert)->bind(3, std::int64_t{sealed}).bind_blob(4, value).step();
    if (!row) return failed(row);
    record = (*insert)->number(0);
  }
  if (target.store.indexes.empty()) return {};

  if (existing) {
    auto remove = database_.prepare("DELETE FROM idb_index_record WHERE record=?1");
    if (!remove) return failed(remove);
    if (const auto ran = (*remove)->bind(1, record).run(); !ran) return failed(ran);
  }
  for (const klp::IdbIndexKey& one : request.index_keys()) {
    if (auto added = insert_index_key(one.index(), one.key(), request.key(), record); !added) return added;
  }
  if (const auto released = savepoint.release(); !released) return failed(released);
  return {};
}

MemoryOutcome<> Engine::insert_index_key(std::uint32_t index, const std::string& key, const std::string& primary_key,
                                         std::int64_t record) {
  auto insert =
      database_.prepare("INSERT INTO idb_index_record(index_id, key, primary_key, record) VALUES(?1, ?2, ?3, ?4)");
  if (!insert) return failed(insert);
  (*insert)->bind(1, std::int64_t{index}).bind_blob(2, key).bind_blob(3, primary_key);
  if (const auto ran = (*insert)->bind(4, record).run(); !ran) return failed(ran);
  return {};
}

MemoryOutcome<> Engine::index_record(Target target, const klp::IdbIndexRecord& request) {
  // The same checks as for a put of these index keys alone.
  klp::IdbPut put;
  for (const std::string& key : request.keys()) {
    klp::IdbIndexKey& one = *put.add_index_keys();
    one.set_index(request.index());
    one.set_key(key);
  }
  if (auto checked = check_key(request.primary_key()); !checked) return checked;
  if (auto checked = check_index_keys(target.store, put); !checked) return checked;
  const auto existing = find_record(target.store, request.primary_key());
  if (!existing) return pass(existing);
  if (!*existing) return refuse("NOT_FOUND", "there is no record with this primary key");
  {
    auto statement = database_.prepare("SELECT 1 FROM idb_index_record WHERE record=?1 AND index_id=?2 LIMIT 1");
    if (!statement) return failed(statement);
    const auto row = (*statement)->bind(1, (*existing)->id).bind(2, std::int64_t{request.index()}).step();
    if (!row) return failed(row);
    if (*row) return refuse("INVALID", "the record is in the index already");
  }
  Change change;
  for (const std::string& key : request.keys()) {
    if (auto unique = check_unique(*target.index, key, request.primary_key()); !unique) return unique;
    change.index_bytes[request.index()] += size_of(key);
  }
  const MemoryUsage before = account_.used();
  if (auto refused = account_.charge(change.all_bytes(), 0)) return tl::unexpected(std::move(*refused));
  const auto write = [&]() -> MemoryOutcome<> {
    Savepoint savepoint(database_);
    if (const auto set = savepoint.set(); !set) return failed(set);
    for (const std::string& key : request.keys()) {
      auto added = insert_index_key(request.index(), key, request.primary_key(), (*existing)->id);
      if (!added) return added;
    }
    if (const auto released = savepoint.release(); !released) return failed(released);
    return {};
  };
  if (auto written = write(); !written) {
    account_.reset(before);
    return written;
  }
  change.apply(target.store);
  return {};
}

MemoryOutcome<Engine::Change> Engine::plan_remove(const Store& store, const Interval& interval) const {
  Change change;
  {
    auto statement = database_.prepare(
        "SELECT count(*), ifnull(sum(length(key) + length(value) - ?4 * sealed), 0) FROM idb_record "
        "WHERE store=?1 AND key>=?2 AND key<?3");
    if (!statement) return failed(statement);
    (*statement)->bind(1, std::int64_t{store.shape.id()}).bind_blob(2, interval.lower).bind_blob(3, interval.upper);
    const auto row = (*statement)->bind(4, std::int64_t{kSealOverheadBytes}).step();
    if (!row) return failed(row);
    change.entries = -(*statement)->number(0);
    change.bytes = -(*statement)->number(1);
  }
  if (change.entries == 0 || store.indexes.empty()) return change;
  auto statement = database_.prepare(
      "SELECT i.index_id, length(i.key) FROM idb_record r CROSS JOIN idb_index_record i ON i.record=r.id "
      "WHERE r.store=?1 AND r.key>=?2 AND r.key<?3");
  if (!statement) return failed(statement);
  (*statement)->bind(1, std::int64_t{store.shape.id()}).bind_blob(2, interval.lower).bind_blob(3, interval.upper);
  auto row = (*statement)->step();
  for (; row && *row; row = (*statement)->step()) {
    change.index_bytes[static_cast<std::uint32_t>((*statement)->number(0))] -= (*statement)->number(1);
  }
  if (!row) return failed(row);
  return change;
}

MemoryOutcome<> Engine::remove(Target target, const klp::IdbRange& range) {
  if (auto checked = check_range(range); !checked) return checked;
  const Interval interval = interval_of(range);
  const auto change = plan_remove(target.store, interval);
  if (!change) return pass(change);
  if (change->entries == 0) return {};

  Savepoint savepoint(database_);
  if (const auto set = savepoint.set(); !set) return failed(set);
  const auto run = [&](const char* sql) -> MemoryOutcome<> {
    auto statement = database_.prepare(sql);
    if (!statement) return failed(statement);
    (*statement)->bind(1, std::int64_t{target.store.shape.id()});
    const auto ran = (*statement)->bind_blob(2, interval.lower).bind_blob(3, interval.upper).run();
    if (!ran) return failed(ran);
    return {};
  };
  if (!target.store.indexes.empty()) {
    auto ran =
        run("DELETE FROM idb_index_record WHERE record IN "
            "(SELECT id FROM idb_record WHERE store=?1 AND key>=?2 AND key<?3)");
    if (!ran) return ran;
  }
  if (auto ran = run("DELETE FROM idb_record WHERE store=?1 AND key>=?2 AND key<?3"); !ran) return ran;
  if (const auto released = savepoint.release(); !released) return failed(released);
  static_cast<void>(account_.charge(change->all_bytes(), change->entries));
  change->apply(target.store);
  return {};
}

MemoryOutcome<> Engine::clear(Target target) {
  return remove(target, {});
}

}  // namespace kai::idb
