// Inside of IndexedDb. An open transaction holds its database's schema in memory: what requests name is checked there,
// and there the counters (key generators, bytes, entries) change, to be written once, by commit.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/memory/indexed_db.h"

namespace kai::idb {

tl::unexpected<klp::MemoryError> refuse(std::string_view code, std::string message);

struct Index {
  klp::IdbIndex shape;
  std::uint64_t bytes = 0;  ///< of its keys
};

struct Store {
  klp::IdbStore shape;  ///< without indexes
  std::map<std::uint32_t, Index> indexes;
  std::uint64_t bytes = 0;  ///< of primary keys and values
  std::uint64_t entries = 0;
  bool changed = false;  ///< in what write_counters() has to write

  [[nodiscard]] std::uint64_t all_bytes() const;
};

struct Schema {
  std::int64_t id = 0;
  std::string name;
  std::uint64_t version = 0;
  std::map<std::uint32_t, Store> stores;

  [[nodiscard]] klp::IdbDatabase shape() const;
};

struct OpenTransaction {
  klp::IdbMode mode = klp::READONLY;
  std::shared_ptr<Schema> schema;    ///< one for all readers of a database
  std::vector<std::uint32_t> scope;  ///< sorted; VERSIONCHANGE: not looked at
  // Of a writer, for an abort and for those who ask meanwhile: as it was before.
  MemoryUsage used_before;
  klp::IdbDatabase database_before;
};

/// A store that a request may use, and what of it.
struct Target {
  Schema& schema;
  Store& store;
  Index* index = nullptr;  ///< the request named one
};

/// Keys from `lower` on, below `upper`, as bytes: the key that follows k at once is k with a NUL, so that open and
/// closed bounds are one thing.
struct Interval {
  std::string lower, upper;
};

class Engine {
 public:
  Engine(Database& database, const MemoryTerms& terms, Account& account);

  // indexed_db.cc
  MemoryOutcome<klp::IdbAnswer> perform(const klp::IdbRequest& request);
  void abort_all();
  [[nodiscard]] bool is_open(std::uint64_t transaction) const { return open_.contains(transaction); }
  [[nodiscard]] bool writing() const { return writer_ != 0; }

  // indexed_db_databases.cc
  Result<> make_tables();
  [[nodiscard]] Result<MemoryUsage> stored() const;
  MemoryOutcome<> delete_all();

  // indexed_db_dump.cc
  Result<> dump(const IndexedDb::Visit& visit) const;
  MemoryOutcome<> load(const DumpLine& line);
  MemoryOutcome<> finish_load();
  Result<> reseal_all();

 private:
  using Answer = MemoryOutcome<klp::IdbAnswer>;

  // indexed_db_dump.cc
  Result<> dump_records(const Target& target, const IndexedDb::Visit& visit) const;
  MemoryOutcome<> load_database(const IdbDumpDatabase& line);
  MemoryOutcome<> load_store(const IdbDumpStore& line);
  MemoryOutcome<> load_index(Target target, const IdbDumpIndex& line);
  MemoryOutcome<> load_record(Target target, const IdbDumpRecord& line);

  // indexed_db.cc
  /// The database's own error as an answer.
  [[nodiscard]] klp::MemoryError storage_error(const Error& error) const;
  template <typename T>
  [[nodiscard]] tl::unexpected<klp::MemoryError> failed(const Result<T>& result) const {
    return tl::unexpected(storage_error(result.error()));
  }
  Answer perform_alone(const klp::IdbRequest& request);
  Answer perform_within(std::uint64_t id, OpenTransaction& transaction, const klp::IdbRequest& request);
  Answer change_schema(OpenTransaction& transaction, const klp::IdbRequest& request);
  Answer change_records(OpenTransaction& transaction, const klp::IdbRequest& request);
  Answer begin(const klp::IdbBegin& request);
  MemoryOutcome<std::shared_ptr<Schema>> schema_for(const std::string& name, bool writes) const;
  MemoryOutcome<std::vector<std::uint32_t>> scope_of(const klp::IdbBegin& request, const Schema& schema) const;
  MemoryOutcome<Schema> begin_version_change(const klp::IdbBegin& request, std::optional<Schema> found);
  Answer commit(std::uint64_t id);
  void abort(std::uint64_t id);
  MemoryOutcome<Target> find(OpenTransaction& transaction, std::uint32_t store, std::uint32_t index);

  // indexed_db_databases.cc
  MemoryOutcome<std::optional<Schema>> find_schema(const std::string& name) const;
  MemoryOutcome<> read_stores(Schema& schema) const;
  MemoryOutcome<Schema> create_database(const std::string& name, std::uint64_t version);
  MemoryOutcome<> set_version(Schema& schema, std::uint64_t version);
  MemoryOutcome<> write_counters(Schema& schema);
  Answer databases() const;
  Answer describe(const std::string& name) const;
  Answer delete_database(const std::string& name);
  MemoryOutcome<> delete_schema(const Schema& schema);

  // indexed_db_stores.cc
  MemoryOutcome<> check_room(std::size_t more) const;
  MemoryOutcome<std::uint32_t> new_id(Statement& insert) const;  // what INSERT … RETURNING id made
  MemoryOutcome<std::uint32_t> create_store(Schema& schema, const klp::IdbStore& shape);
  MemoryOutcome<> delete_store(Schema& schema, std::uint32_t id);
  MemoryOutcome<> rename_store(Target target, const std::string& name);
  MemoryOutcome<std::uint32_t> create_index(Target target, const klp::IdbIndex& shape);
  MemoryOutcome<> delete_index(Target target);
  MemoryOutcome<> rename_index(Target target, const std::string& name);
  MemoryOutcome<> delete_rows(const Store& store);

  // indexed_db_records.cc
  struct Existing;
  struct Change;
  MemoryOutcome<std::optional<Existing>> find_record(const Store& store, const std::string& key) const;
  MemoryOutcome<> check_unique(const Index& index, const std::string& key, const std::string& primary_key) const;
  MemoryOutcome<> put(Target target, const klp::IdbPut& request);
  MemoryOutcome<Change> plan_put(Target target, const klp::IdbPut& request,
                                 const std::optional<Existing>& existing) const;
  MemoryOutcome<> write_put(Target target, const klp::IdbPut& request, const std::optional<Existing>& existing);
  MemoryOutcome<> insert_index_key(std::uint32_t index, const std::string& key, const std::string& primary_key,
                                   std::int64_t record);
  MemoryOutcome<> index_record(Target target, const klp::IdbIndexRecord& request);
  MemoryOutcome<Change> plan_remove(const Store& store, const Interval& interval) const;
  MemoryOutcome<> remove(Target target, const klp::IdbRange& range);
  MemoryOutcome<> clear(Target target);

  // indexed_db_read.cc
  MemoryOutcome<klp::IdbRecords> read(Target target, const klp::IdbRead& request) const;
  MemoryOutcome<klp::IdbRecords> collect(const Target& target, const klp::IdbRead& request, Statement& scan) const;
  MemoryOutcome<std::uint64_t> count(Target target, const klp::IdbRange& range) const;
  MemoryOutcome<bool> is_first_of_key(const Index& index, const std::string& key, const std::string& primary_key) const;
  MemoryOutcome<std::string> value_of(const Target& target, std::int64_t record, const std::string& key) const;

  Database& database_;
  const MemoryTerms& terms_;
  Account& account_;
  std::uint64_t last_transaction_;
  std::map<std::uint64_t, OpenTransaction> open_;
  std::uint64_t writer_ = 0;  // of open_, or 0

  struct Loading {
    Schema schema;
    std::uint32_t store = 0;                         // the last one; 0: none
    std::map<std::uint32_t, std::uint32_t> indexes;  // of it, the dump's id → ours
  };
  std::optional<Loading> loading_;
};

/// ROLLBACK TO at the end of its life unless release() was called. Outside of a transaction it is one.
class Savepoint {
 public:
  explicit Savepoint(Database& database) : database_(database) {}
  Savepoint(const Savepoint&) = delete;
  Savepoint& operator=(const Savepoint&) = delete;
  ~Savepoint();
  Result<> set();
  Result<> release();

 private:
  Database& database_;
  bool set_ = false;
};

/// For SQLite, whose numbers have a sign; ours are below 2^63.
constexpr std::int64_t as_signed(std::uint64_t number) {
  return static_cast<std::int64_t>(number);
}

// What every request has to keep to, whoever sent it.
MemoryOutcome<> check_key(std::string_view key);
MemoryOutcome<> check_value(std::string_view value);
MemoryOutcome<> check_name(std::string_view name);
MemoryOutcome<> check_key_path(std::string_view json);
MemoryOutcome<> check_range(const klp::IdbRange& range);

Interval interval_of(const klp::IdbRange& range);
/// Where a value is sealed for: a value moved to another place does not open there.
[[nodiscard]] std::string place(std::int64_t database, std::int64_t store, std::string_view key);
/// The first key after this one.
[[nodiscard]] std::string after(const std::string& key);

/// The error of one outcome as that of another.
template <typename T>
tl::unexpected<klp::MemoryError> pass(const MemoryOutcome<T>& failed) {
  return tl::unexpected(failed.error());
}

}  // namespace kai::idb
