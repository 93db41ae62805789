// An IndexedDB engine on a file of its own, and requests in few words.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "supervisor/memory/indexed_db.h"
#include "tests/unit/control/temp_directory.h"

namespace kai::test {

using IndexKeys = std::vector<std::pair<std::uint32_t, std::string>>;

/// The file, made where it is not there: WAL, and durable on request.
std::unique_ptr<Database> open_file(const std::string& path, bool durable = false);

class Idb {
 public:
  explicit Idb(std::uint64_t max_bytes = 8 << 20, bool sealed = false);
  /// On a file that outlives it, as control has it: a commit waits for the disk.
  explicit Idb(std::string path);

  /// As after an end of the process: another connection, another engine.
  void reopen();

  klp::IdbAnswer ok(const klp::IdbRequest& request);
  /// The code of the refusal.
  std::string refused(const klp::IdbRequest& request);

  std::uint64_t begin(klp::IdbMode mode, std::vector<std::uint32_t> scope = {}, const std::string& database = "d");
  std::uint64_t upgrade(std::uint64_t version, const std::string& database = "d");
  void commit(std::uint64_t transaction);
  void abort(std::uint64_t transaction);
  std::uint32_t create_store(std::uint64_t transaction, const std::string& name, bool auto_increment = false);
  std::uint32_t create_index(std::uint64_t transaction, std::uint32_t store, const std::string& name,
                             bool unique = false, bool multi_entry = false);
  void put(std::uint64_t transaction, std::uint32_t store, const std::string& key, const std::string& value,
           const IndexKeys& index_keys = {});
  /// "key=value key=value", of an index "key/primary=value".
  std::string all(std::uint64_t transaction, std::uint32_t store, std::uint32_t index = 0,
                  klp::IdbDirection direction = klp::NEXT);
  klp::IdbDatabase describe(const std::string& database = "d");
  /// Names and versions: "a:1 b:2".
  std::string databases();

  /// Recomputed from every row: what the account and the counters have to say.
  MemoryUsage counted();
  void check_usage();

  [[nodiscard]] IndexedDb& engine() { return *engine_; }
  [[nodiscard]] Database& database() { return *database_; }
  [[nodiscard]] Account& account() { return *account_; }
  [[nodiscard]] MemoryTerms& terms() { return terms_; }

 private:
  TempDirectory directory_;
  std::string path_ = directory_ / "memory.db";
  bool durable_ = false;
  MemoryTerms terms_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<Account> account_;
  std::unique_ptr<IndexedDb> engine_;
};

klp::IdbRequest put_request(std::uint64_t transaction, std::uint32_t store, const std::string& key,
                            const std::string& value, const IndexKeys& index_keys = {});
klp::IdbRequest begin_request(klp::IdbMode mode, const std::string& database, std::vector<std::uint32_t> scope);
klp::IdbRequest upgrade_request(const std::string& database, std::uint64_t version);
/// A request with the transaction set, for `->mutable_…`.
klp::IdbRequest within(std::uint64_t transaction);

}  // namespace kai::test
