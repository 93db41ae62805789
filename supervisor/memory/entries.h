// The keys and values of one context in its SQLite file: get, set, delete and list within a transaction that the caller
// holds. Without a loop: sqlite_store calls it on a worker thread, one call at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/database/database.h"
#include "supervisor/memory/account.h"
#include "supervisor/memory/store.h"

namespace kai {

class Entries {
 public:
  /// What the file has beside the entries themselves, kept in the same transaction.
  struct Counters {
    std::uint64_t version = 0;  ///< the last one that was given to a write
    MemoryUsage used;           ///< of entries, expired ones too until they are swept
  };

  /// The tables of a new file, but for what memory_file.cc keeps in them of its own.
  static Result<> make_tables(Database& database);
  /// Reads the counters. All must outlive it; what is used is not charged to `account`.
  static Result<std::unique_ptr<Entries>> open(Database& database, const MemoryTerms& terms, Account& account);

  static bool writes(const klp::MemoryRequest& request) {
    return request.op_case() == klp::MemoryRequest::kSet || request.op_case() == klp::MemoryRequest::kDelete;
  }
  /// One request; its refusal is an answer too, and changed nothing. An Error is the database's: the caller rolls back.
  Result<klp::MemoryAnswer> perform(const klp::MemoryRequest& request, std::int64_t now_ms);

  /// Deletes at most so many entries that have expired, and says how many.
  Result<std::int64_t> sweep(std::int64_t now_ms, std::int64_t most);
  [[nodiscard]] Result<bool> has_expired(std::int64_t now_ms) const;

  [[nodiscard]] const Counters& counters() const { return counters_; }
  /// Back to what they were: the transaction did not come to be. The account is the caller's.
  void reset(const Counters& counters) { counters_ = counters; }
  /// Into the file, before the commit of what changed them.
  Result<> write_counters();

  struct Entry {
    std::string key, value;  ///< as the agent wrote it
    bool binary = false;
    std::uint64_t version = 0;
    std::int64_t expires_ms = 0;  ///< 0: never
  };
  /// Those that have not expired, in the order of their keys.
  Result<> each(std::int64_t now_ms, const std::function<Result<>(const Entry&)>& visit) const;
  /// All go, and the account gets back what they had.
  Result<> delete_all();
  /// One of a restored file, as it is there: its version with it, and the counter no less than that. A key that is
  /// there already is an error, as is what the account refuses.
  Result<std::optional<klp::MemoryError>> insert(const Entry& entry);

  /// Seals what is not sealed, or opens what is, as the terms want it.
  Result<> convert();

 private:
  Entries(Database& database, const MemoryTerms& terms, Account& account)
      : database_(database), terms_(terms), account_(account) {}

  /// Where a value is, for its seal.
  static std::string place(std::string_view key);
  struct Row {
    std::int64_t id = 0;
    std::int64_t size = 0;
    std::int64_t expires_ms = 0;
    std::uint64_t version = 0;
    bool binary = false;
    std::optional<std::string> value;  ///< nullopt: it does not open with the agent's key, or was not asked for
  };
  Result<std::optional<Row>> find(const std::string& key, bool with_value) const;
  Result<klp::MemoryAnswer> get(const klp::MemoryGet& request, std::int64_t now_ms) const;
  Result<klp::MemoryAnswer> set(const klp::MemorySet& request, std::int64_t now_ms);
  Result<std::optional<klp::MemoryError>> admit(const klp::MemorySet& request, std::int64_t now_ms);
  Result<klp::MemoryAnswer> remove(const klp::MemoryDelete& request, std::int64_t now_ms);
  Result<klp::MemoryAnswer> list(const klp::MemoryList& request, std::int64_t now_ms) const;
  Result<> write(const Entry& entry);
  std::optional<klp::MemoryError> charge(std::int64_t bytes, std::int64_t entries);
  Result<std::optional<std::string>> open_value(std::string_view key, std::string_view value, bool sealed) const;

  Database& database_;
  const MemoryTerms& terms_;
  Account& account_;
  Counters counters_;
};

}  // namespace kai
