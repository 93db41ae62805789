// The SQLite file of one context: opened, checked, brought to the policy on encryption, set aside where it is damaged;
// and what is asked of it, in transactions. Without a loop: sqlite_store calls it on a worker thread, one call at a
// time.
//
//   memory_file.cc           transactions of requests, clear
//   memory_file_open.cc      opening, checking, converting, setting aside
//   memory_file_transfer.cc  save and restore
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/database/database.h"
#include "supervisor/memory/account.h"
#include "supervisor/memory/entries.h"
#include "supervisor/memory/expiry_clock.h"
#include "supervisor/memory/indexed_db.h"
#include "supervisor/memory/memory_export.h"
#include "supervisor/memory/sqlite_store.h"
#include "supervisor/memory/store.h"

namespace kai {

class MemoryFile {
 public:
  MemoryFile(const ExpiryClock& clock, MemoryTerms terms, SqliteFile file);

  MemoryOutcome<> open();
  /// get, set, delete and list, in one transaction: the answers in their order. When it cannot be committed, nothing of
  /// any of them was done, and all of them say so. Not while an IndexedDB transaction is writing().
  /// Once the answers have `most_bytes`, no more is done: fewer answers than requests.
  std::vector<klp::MemoryAnswer> perform(const std::vector<const klp::MemoryRequest*>& requests,
                                         std::size_t most_bytes);
  klp::MemoryAnswer perform(const klp::IdbRequest& request);

  // These end all IndexedDB transactions, but for save().
  MemoryOutcome<> clear();
  MemoryOutcome<> save(Fd file, std::string exported_at);
  MemoryOutcome<> restore(Fd file);
  void end_session();

  /// nullptr: the file is not open, or has no IndexedDB.
  [[nodiscard]] const IndexedDb* indexed_db() const { return indexed_db_.get(); }
  [[nodiscard]] MemoryUsage usage() const { return account_.used(); }

 private:
  // memory_file_open.cc
  Result<> make_file();
  Result<> open_database();
  Result<> make_tables();
  Result<> check();
  Result<> set_up();
  Result<> check_key();
  tl::unexpected<Error> locked(const std::string& why);
  Result<> convert();
  Result<> convert_indexed_db();
  Result<> scrub();
  void set_aside(const std::string& found);

  Result<> write_batch(const std::vector<const klp::MemoryRequest*>& requests, std::size_t most_bytes,
                       std::vector<klp::MemoryAnswer>& answers);
  Result<> read_batch(const std::vector<const klp::MemoryRequest*>& requests, std::size_t most_bytes,
                      std::vector<klp::MemoryAnswer>& answers);
  Result<> answer_all(const std::vector<const klp::MemoryRequest*>& requests, std::int64_t now_ms,
                      std::size_t most_bytes, std::vector<klp::MemoryAnswer>& answers);
  Result<> sweep_alone(std::int64_t now_ms);
  void forget_errors();
  // memory_file_transfer.cc. `refused`: what is in the file cannot be taken; an Error is the database's.
  Result<> load_lines(Fd file, std::optional<klp::MemoryError>& refused);
  Result<> load_line(const DumpLine& line, std::int64_t now_ms, std::optional<klp::MemoryError>& refused);

  void reset_counts(const Entries::Counters& counters, const MemoryUsage& used);
  void close();
  /// After an error: what is said of it. A damaged file is set aside, and this context is of no use any more.
  klp::MemoryError fail(const Error& error);
  klp::MemoryError as_storage_error(klp::MemoryError error);

  const ExpiryClock& clock_;
  const MemoryTerms terms_;
  const SqliteFile file_;
  // In the order in which they are built on each other.
  std::unique_ptr<Database> database_;
  Account account_;
  std::unique_ptr<Entries> entries_;
  std::unique_ptr<IndexedDb> indexed_db_;
  bool opened_ = false;
  bool sweeps_ = true;  ///< false: it failed, and nothing was written since
  /// Why it cannot be used.
  std::optional<klp::MemoryError> unusable_;
  /// What open() found the file to be, where SQLite itself would take it.
  std::string foreign_;
  /// open() has not the key that it was encrypted with: it is whole, and stays where it is.
  bool locked_ = false;
};

}  // namespace kai
