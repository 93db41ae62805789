// SQLite as the registry and the audit need it: errors as values, statements prepared once.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace kai {

class Database;

/// A prepared statement, bound and stepped through once; then it is reset for the next use.
class Statement {
 public:
  Statement(Database& database, sqlite3_stmt* statement) : database_(database), statement_(statement) {}
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  ~Statement();

  /// Parameters, numbered from 1. `text` must hold until the statement's end.
  Statement& bind(int parameter, std::string_view text);
  Statement& bind(int parameter, std::int64_t number);
  Statement& bind_blob(int parameter, std::string_view bytes);

  /// true: a row is there; false: the end.
  Result<bool> step();
  /// For statements without rows.
  Result<> run();

  [[nodiscard]] std::string text(int column) const;
  [[nodiscard]] std::int64_t number(int column) const;
  /// Text or blob; until the next step.
  [[nodiscard]] std::string_view bytes(int column) const;

 private:
  Database& database_;
  sqlite3_stmt* statement_;
};

/// What messages say of a database.
struct DatabaseNames {
  const char* name;  ///< "the registry"
  const char* anew;  ///< what moving it away means: "to begin with no agents"; null: it is not the operator's to move
};
inline constexpr DatabaseNames kRegistryNames = {"the registry", "to begin with no agents"};

class Database {
 public:
  /// Opens a file that is there. It is checked whole (quick_check): a damaged one is an error.
  static Result<std::unique_ptr<Database>> open(const std::string& path);
  /// Without that check, which reads all of it.
  static Result<std::unique_ptr<Database>> open_unchecked(const std::string& path, const DatabaseNames& names,
                                                          bool read_only);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  /// Statements without parameters or rows.
  Result<> execute(const std::string& sql);
  /// `sql` is compiled at its first use and kept: it must be a literal.
  Result<std::unique_ptr<Statement>> prepare(const char* sql);
  /// A pragma or query whose answer is one number.
  Result<std::int64_t> number(const char* sql);
  /// Whether a commit waits for the disk.
  Result<> set_durable(bool durable);
  /// No checkpoints of the write-ahead log by itself any more; log_pages() says how long the log has grown.
  void watch_log();
  [[nodiscard]] int log_pages() const { return log_pages_; }
  [[nodiscard]] int changes() const { return sqlite3_changes(database_); }
  /// After some errors (a full disk) SQLite has rolled back by itself.
  [[nodiscard]] bool in_transaction() const { return sqlite3_get_autocommit(database_) == 0; }

  [[nodiscard]] tl::unexpected<Error> error(std::string_view doing) const;
  /// SQLite's primary result code of the last error(): whether the file is damaged, the disk full, …
  [[nodiscard]] int error_code() const { return error_code_; }
  /// The same, and forgets it.
  [[nodiscard]] int take_error_code() { return std::exchange(error_code_, SQLITE_OK); }

 private:
  Database(sqlite3* database, std::string path, const DatabaseNames& names)
      : database_(database), path_(std::move(path)), names_(names) {}

  sqlite3* database_;
  std::string path_;
  DatabaseNames names_;
  int log_pages_ = 0;
  mutable int error_code_ = SQLITE_OK;
  std::map<const char*, sqlite3_stmt*> statements_;
};

/// BEGIN IMMEDIATE now; ROLLBACK at the end of its life unless commit() was called.
class Transaction {
 public:
  explicit Transaction(Database& database) : database_(database) {}
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  ~Transaction();

  Result<> begin();
  Result<> commit();

 private:
  Database& database_;
  bool active_ = false;
};

}  // namespace kai
