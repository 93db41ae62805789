#include "supervisor/database/database.h"

namespace kai {
namespace {

// A person may look into the database with sqlite3(1) meanwhile; readers never block in WAL mode, and a writer is
// waited for this long.
constexpr int kBusyMs = 1000;

std::string advice(int code, const DatabaseNames& names) {
  switch (code & 0xFF) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      if (names.anew == nullptr) return "";
      return std::string("; the file is damaged: stop kaid, put a copy of it in its place, or move it away ") +
             names.anew;
    case SQLITE_FULL:
      return "; nothing was changed: make room on the disk and try again";
    case SQLITE_BUSY:
      return "; another program holds it: close it and try again";
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
      return "; check that kaid's user owns the file and its directory";
    default:
      return "";
  }
}

}  // namespace

Statement::~Statement() {
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

Statement& Statement::bind(int parameter, std::string_view text) {
  // SQLITE_STATIC: the caller keeps the text. An empty view may have a null pointer, which would bind NULL.
  sqlite3_bind_text64(statement_, parameter, text.empty() ? "" : text.data(), text.size(), nullptr, SQLITE_UTF8);
  return *this;
}

Statement& Statement::bind(int parameter, std::int64_t number) {
  sqlite3_bind_int64(statement_, parameter, number);
  return *this;
}

Statement& Statement::bind_blob(int parameter, std::string_view bytes) {
  sqlite3_bind_blob64(statement_, parameter, bytes.empty() ? "" : bytes.data(), bytes.size(), nullptr);
  return *this;
}

Result<bool> Statement::step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return database_.error(sqlite3_stmt_readonly(statement_) != 0 ? "read" : "write");
}

Result<> Statement::run() {
  const auto stepped = step();
  if (!stepped) return tl::unexpected(stepped.error());
  return {};
}

std::string Statement::text(int column) const {
  const void* bytes = sqlite3_column_blob(statement_, column);
  const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement_, column));
  return size == 0 ? std::string() : std::string(static_cast<const char*>(bytes), size);
}

std::string_view Statement::bytes(int column) const {
  const void* bytes = sqlite3_column_blob(statement_, column);
  const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement_, column));
  return size == 0 ? std::string_view() : std::string_view(static_cast<const char*>(bytes), size);
}

std::int64_t Statement::number(int column) const {
  return sqlite3_column_int64(statement_, column);
}

Result<std::unique_ptr<Database>> Database::open_unchecked(const std::string& path, const DatabaseNames& names,
                                                           bool read_only) {
  sqlite3* handle = nullptr;
  const int flags =
      (read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE) | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  const int code = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  std::unique_ptr<Database> database(new Database(handle, path, names));
  if (code != SQLITE_OK) return database->error("open");
  sqlite3_busy_timeout(handle, kBusyMs);
  return database;
}

Result<std::unique_ptr<Database>> Database::open(const std::string& path) {
  auto database = open_unchecked(path, kRegistryNames, false);
  if (!database) return database;
  auto check = (*database)->prepare("PRAGMA quick_check(1)");
  if (!check) return tl::unexpected(check.error());
  const auto row = (*check)->step();
  if (!row) return tl::unexpected(row.error());
  if (const std::string verdict = (*check)->text(0); verdict != "ok") {
    return failure("check the registry", path + ": " + verdict + advice(SQLITE_CORRUPT, kRegistryNames));
  }
  return database;
}

Database::~Database() {
  for (const auto& [sql, statement] : statements_) sqlite3_finalize(statement);
  sqlite3_close(database_);
}

Result<> Database::execute(const std::string& sql) {
  if (sqlite3_exec(database_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) return error("write");
  return {};
}

Result<std::unique_ptr<Statement>> Database::prepare(const char* sql) {
  sqlite3_stmt*& statement = statements_[sql];
  if (statement == nullptr &&
      sqlite3_prepare_v3(database_, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr) != SQLITE_OK) {
    return error("read");
  }
  return std::make_unique<Statement>(*this, statement);
}

Result<std::int64_t> Database::number(const char* sql) {
  auto statement = prepare(sql);
  if (!statement) return tl::unexpected(statement.error());
  const auto row = (*statement)->step();
  if (!row) return tl::unexpected(row.error());
  return *row ? (*statement)->number(0) : 0;
}

Result<> Database::set_durable(bool durable) {
  return execute(durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL");
}

void Database::watch_log() {
  const auto count = [](void* self, sqlite3*, const char*, int pages) {
    static_cast<Database*>(self)->log_pages_ = pages;
    return SQLITE_OK;
  };
  // SQLite's own checkpoints are this same hook, which so goes.
  sqlite3_wal_hook(database_, count, this);
}

tl::unexpected<Error> Database::error(std::string_view doing) const {
  const int code = database_ == nullptr ? SQLITE_NOMEM : sqlite3_extended_errcode(database_);
  const std::string why = database_ == nullptr ? "out of memory" : sqlite3_errmsg(database_);
  error_code_ = code & 0xFF;
  return failure(std::string(doing) + " " + names_.name, path_ + ": " + why + advice(code, names_));
}

Transaction::~Transaction() {
  // After some errors (a full disk) SQLite has rolled back already.
  if (active_ && database_.in_transaction()) static_cast<void>(database_.execute("ROLLBACK"));
}

Result<> Transaction::begin() {
  auto begun = database_.execute("BEGIN IMMEDIATE");
  active_ = begun.has_value();
  return begun;
}

Result<> Transaction::commit() {
  auto committed = database_.execute("COMMIT");
  if (committed) active_ = false;
  return committed;
}

}  // namespace kai
