// IndexedDB's backing store in the agent's SQLite file: databases, object stores, indexes, records in the order of
// their keys, and transactions (proto/memory.proto has what is asked). Without a loop and without waiting: sqlite_store
// calls it on a worker thread, one call at a time, and lets a transaction begin only when schedule.h says so.
//
//   indexed_db.cc            transactions, and which request goes where
//   indexed_db_databases.cc  databases
//   indexed_db_stores.cc     object stores and indexes
//   indexed_db_check.cc      what every request has to keep to
//   indexed_db_records.cc    put, remove, clear
//   indexed_db_read.cc       read and count
//   indexed_db_dump.cc       all of it for an export, and back
//   indexed_db_engine.h      what these share
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "proto/memory.pb.h"
#include "supervisor/database/database.h"
#include "supervisor/memory/account.h"
#include "supervisor/memory/memory_export.h"
#include "supervisor/memory/store.h"

namespace kai {
namespace idb {
class Engine;
}

// Hard limits, beside store.h's.
inline constexpr std::size_t kMaxIdbKeyBytes = 4 << 10;  ///< encoded
inline constexpr std::size_t kMaxIdbNameBytes = 1 << 10;
inline constexpr std::size_t kMaxIdbKeyPathBytes = 4 << 10;  ///< as JSON
inline constexpr std::size_t kMaxIdbDatabases = 100;
inline constexpr std::size_t kMaxIdbStores = 1'000;  ///< in one database
inline constexpr std::size_t kMaxIdbIndexes = 64;    ///< of one store
inline constexpr int kMaxIdbIndexKeys = 1'000;       ///< of one record, in all indexes
/// Names and key paths of all stores and indexes of an agent, with 64 bytes for each: a database travels in one frame,
/// and open transactions hold theirs in memory.
inline constexpr std::size_t kMaxIdbSchemaBytes = 256 << 10;
/// What JavaScript's numbers hold exactly: versions. A key generator that is used up is at 2^53 + 2, the first number
/// beyond 2^53 that is a double.
inline constexpr std::uint64_t kMaxIdbVersion = (1ULL << 53) - 1;
inline constexpr std::uint64_t kMaxIdbNextKey = (1ULL << 53) + 2;

class IndexedDb {
 public:
  /// Makes its tables where they are not there. All must outlive it.
  static Result<std::unique_ptr<IndexedDb>> open(Database& database, const MemoryTerms& terms, Account& account);

  /// One request. What fails changes nothing; a transaction goes on after it. `begin` of READWRITE and VERSIONCHANGE
  /// opens SQLite's own transaction, commit and abort end it: until then nobody else may write to the database, nor
  /// change the account, which an abort sets back to what it was.
  /// In IdbBegun of VERSIONCHANGE the database has the version of before (0: it is made now).
  /// Where SQLite itself rolled back (a full disk), the error says so and the transaction is over.
  MemoryOutcome<klp::IdbAnswer> perform(const klp::IdbRequest& request);
  /// The transaction that an IdbBegun named is open.
  [[nodiscard]] bool is_open(std::uint64_t transaction) const;
  /// Every open transaction is rolled back.
  void abort_all();
  /// A READWRITE or VERSIONCHANGE transaction is open.
  [[nodiscard]] bool writing() const;

  /// Of all records, as it was committed: it is kept with the stores, in the transaction that changes them. Whoever
  /// makes the Account adds it to what else is in the file.
  [[nodiscard]] Result<MemoryUsage> stored() const;

  // For clear, export, import and a change of encryption. No transaction may be open (abort_all(); with dump() readers
  // may); the caller opens SQLite's own around them, and resets the account where it does not commit.

  /// All databases go; the account gets back what they had.
  MemoryOutcome<> clear();

  using Visit = std::function<Result<>(DumpLine&&)>;
  /// Each database, its object stores, and with each store its indexes and then its records (memory_export.h), in the
  /// order of names, ids and keys; values are unsealed. The first error ends it.
  Result<> dump(const Visit& visit) const;
  /// A line of a dump, in the same order; ids are the dump's own. Checked like an agent's requests, and charged.
  MemoryOutcome<> load(const DumpLine& line);
  /// After the last line.
  MemoryOutcome<> finish_load();

  /// Brings every value to the terms' encryption (reseal.h).
  Result<> reseal();

  ~IndexedDb();

 private:
  explicit IndexedDb(std::unique_ptr<idb::Engine> engine);
  std::unique_ptr<idb::Engine> engine_;
};

}  // namespace kai
