// IndexedDB's backing store in the agent's SQLite file: databases, object stores, indexes, records in the order of
// their keys, and transactions (proto/memory.proto has what is asked). Without a loop and without waiting: sqlite_store
// calls it on a worker thread, one call at a time, and lets a transaction begin only when schedule.h says so.
#pragma once

#include <cstdint>
#include <memory>

#include "proto/memory.pb.h"
#include "supervisor/database/database.h"
#include "supervisor/memory/account.h"
#include "supervisor/memory/store.h"

namespace kai {

class IndexedDb {
 public:
  /// Makes its tables where they are not there. All must outlive it.
  static Result<std::unique_ptr<IndexedDb>> open(Database& database, const MemoryTerms& terms, Account& account);

  /// One request. What fails changes nothing; a transaction goes on after it. `begin` of READWRITE and VERSIONCHANGE
  /// opens SQLite's own transaction, commit and abort end it: until then nobody else may write to the database.
  MemoryOutcome<klp::IdbAnswer> perform(const klp::IdbRequest& request);
  /// Every open transaction is rolled back.
  void abort_all();
  /// A READWRITE or VERSIONCHANGE transaction is open.
  [[nodiscard]] bool writing() const;

 private:
  IndexedDb(Database& database, const MemoryTerms& terms, Account& account);
  struct State;
  std::unique_ptr<State> state_;

 public:
  ~IndexedDb();
};

}  // namespace kai
