// How a context's file is opened: what it is has to be known before anything in it is believed.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/text.h"
#include "supervisor/memory/memory_file.h"
#include "supervisor/memory/storage_error.h"

namespace kai {
namespace {

constexpr DatabaseNames kMemoryNames = {"the agent's memory", nullptr};

// "kAIm" in the file's header (file(1) shows it), and the layout of its tables.
constexpr std::int64_t kApplicationId = 0x6B41496D;
constexpr std::int64_t kLayout = 1;

// SQLite's own limit behind the quota, for what the quota does not count: pages that are half full, the index of keys
// (at 64 bytes an entry both together take 4 times the entry's bytes), seals. It bounds the disk, whatever an agent
// does.
constexpr std::uint64_t kPageBytes = 4096;
constexpr std::uint64_t kFilePerQuota = 6;
constexpr std::uint64_t kFileBytesBeside = 16 << 20;

// 1,000 contexts are open at once: 256 KiB of pages each at most, no memory map. Temporary tables never reach a disk,
// as they hold what may have to be encrypted there. Deleted content is overwritten where that costs no page.
constexpr const char* kSettings = R"(
PRAGMA cache_size = -256;
PRAGMA mmap_size = 0;
PRAGMA temp_store = MEMORY;
PRAGMA trusted_schema = OFF;
PRAGMA cell_size_check = ON;
PRAGMA secure_delete = FAST;
PRAGMA journal_size_limit = 4194304;
)";

constexpr std::string_view kKeyCheck = "kai-memory";
constexpr std::string_view kKeyCheckPlace = "meta/key_check";

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

Result<> sync_directory(const std::string& path) {
  const Fd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || fsync(directory.get()) < 0) return errno_failure("fsync the directory", path);
  return {};
}

// 2026-05-04T13:00:00.000Z as 20260504T130000.000Z.
std::string compact_time() {
  std::string time = iso_now();
  std::erase_if(time, [](char c) { return c == '-' || c == ':'; });
  return time;
}

}  // namespace

MemoryOutcome<> MemoryFile::open() {
  opened_ = false;
  locked_ = false;
  foreign_.clear();
  if (auto opened = open_database(); !opened) return tl::unexpected(fail(opened.error()));
  opened_ = true;
  unusable_.reset();
  return {};
}

Result<> MemoryFile::make_file() {
  const Fd file(::open(file_.path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return errno_failure("open the agent's memory", file_.path);
  struct stat status {};
  if (fstat(file.get(), &status) < 0) return errno_failure("fstat", file_.path);
  if (!S_ISREG(status.st_mode)) return failure("open the agent's memory", file_.path + ": it is no regular file");
  return file_.durable && status.st_size == 0 ? sync_directory(directory_of(file_.path)) : Result<>{};
}

Result<> MemoryFile::open_database() {
  if (auto made = make_file(); !made) return made;
  auto database = Database::open_unchecked(file_.path, kMemoryNames, false);
  if (!database) return tl::unexpected(database.error());
  database_ = *std::move(database);
  if (auto set = database_->execute(kSettings); !set) return set;
  const auto tables = database_->number("SELECT count(*) FROM sqlite_schema");
  if (!tables) return tl::unexpected(tables.error());
  const auto application = database_->number("PRAGMA application_id");
  if (!application) return tl::unexpected(application.error());
  const bool fresh = *tables == 0 && *application == 0;
  if (!fresh) {
    if (auto checked = check(); !checked) return checked;
  }
  if (auto set = set_up(); !set) return set;
  if (fresh) {
    if (auto made = make_tables(); !made) return made;
  }

  auto entries = Entries::open(*database_, terms_, account_);
  if (!entries) return tl::unexpected(entries.error());
  entries_ = *std::move(entries);
  MemoryUsage used = entries_->counters().used;
  if (file_.indexed_db) {
    auto indexed_db = IndexedDb::open(*database_, terms_, account_);
    if (!indexed_db) return tl::unexpected(indexed_db.error());
    indexed_db_ = *std::move(indexed_db);
    const auto stored = indexed_db_->stored();
    if (!stored) return tl::unexpected(stored.error());
    used = {used.bytes + stored->bytes, used.entries + stored->entries};
  }
  account_.reset(used);
  return check_key();
}

// Before anything is written to it: it may be somebody else's.
Result<> MemoryFile::check() {
  const auto application = database_->number("PRAGMA application_id");
  if (!application) return tl::unexpected(application.error());
  if (*application != kApplicationId) {
    foreign_ = "it is another program's database";
    return failure("open the agent's memory", file_.path + ": " + foreign_);
  }
  const auto layout = database_->number("PRAGMA user_version");
  if (!layout) return tl::unexpected(layout.error());
  if (*layout > kLayout) {
    return failure("open the agent's memory", file_.path + ": it was written by a newer kaid (layout " +
                                                  std::to_string(*layout) + ", this one knows " +
                                                  std::to_string(kLayout) + "): start that one again");
  }
  auto quick = database_->prepare("PRAGMA quick_check(1)");
  if (!quick) return tl::unexpected(quick.error());
  const auto row = (*quick)->step();
  if (!row) return tl::unexpected(row.error());
  if (const std::string verdict = (*quick)->text(0); verdict != "ok") {
    foreign_ = "SQLite's check of it says: " + verdict;
    return failure("open the agent's memory", file_.path + ": " + foreign_);
  }
  auto owner = database_->prepare("SELECT agent FROM meta");
  if (!owner) return tl::unexpected(owner.error());
  const auto there = (*owner)->step();
  if (!there) return tl::unexpected(there.error());
  if (!*there || (*owner)->text(0) != terms_.agent_id) {
    foreign_ = "it is the memory of another agent";
    return failure("open the agent's memory", file_.path + ": " + foreign_);
  }
  return {};
}

Result<> MemoryFile::set_up() {
  if (auto set = database_->execute("PRAGMA journal_mode = WAL"); !set) return set;
  if (auto set = database_->execute(file_.durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = OFF"); !set) {
    return set;
  }
  const std::uint64_t bytes = std::min(terms_.max_bytes, std::uint64_t{1} << 40U) * kFilePerQuota + kFileBytesBeside;
  return database_->execute("PRAGMA max_page_count = " + std::to_string(bytes / kPageBytes));
}

Result<> MemoryFile::make_tables() {
  Transaction transaction(*database_);
  if (auto begun = transaction.begin(); !begun) return begun;
  // `scrub`: what was deleted or sealed may still stand in free parts of the file.
  if (auto made =
          database_->execute("CREATE TABLE meta(agent TEXT NOT NULL, key_check BLOB NOT NULL, scrub INTEGER NOT "
                             "NULL); PRAGMA application_id = " +
                             std::to_string(kApplicationId) + "; PRAGMA user_version = " + std::to_string(kLayout));
      !made) {
    return made;
  }
  if (auto made = Entries::make_tables(*database_); !made) return made;
  auto insert = database_->prepare("INSERT INTO meta VALUES(?1, ?2, 0)");
  if (!insert) return tl::unexpected(insert.error());
  const std::string check = terms_.key ? seal(*terms_.key, kKeyCheck, kKeyCheckPlace) : std::string();
  if (auto done = (*insert)->bind(1, terms_.agent_id).bind_blob(2, check).run(); !done) return done;
  return transaction.commit();
}

Result<> MemoryFile::check_key() {
  std::string check;
  bool unclean = false;
  {
    auto meta = database_->prepare("SELECT key_check, scrub FROM meta");
    if (!meta) return tl::unexpected(meta.error());
    const auto row = (*meta)->step();
    if (!row) return tl::unexpected(row.error());
    check = (*meta)->text(0);
    unclean = (*meta)->number(1) != 0;
  }
  if (!check.empty()) {
    const auto& key = terms_.key ? terms_.key : terms_.old_key;
    if (!key) return locked("it is encrypted, and the node's key is not there");
    if (unseal(*key, check, kKeyCheckPlace) != kKeyCheck) return locked("it was encrypted with another node's key");
  }
  if (check.empty() == terms_.key.has_value()) {
    if (auto converted = convert(); !converted) return converted;
    unclean = true;
  }
  return unclean ? scrub() : Result<>{};
}

tl::unexpected<Error> MemoryFile::locked(const std::string& why) {
  locked_ = true;
  const std::string key = terms_.key_path.empty() ? "the file node.key of kaid's state directory" : terms_.key_path;
  return failure("open the agent's memory",
                 file_.path + ": " + why + "; nothing was changed: put the key that it was " +
                     "encrypted with back in the place of " + key + " and start the agent again");
}

// The policy on encryption is another one than when it was written.
Result<> MemoryFile::convert() {
  Transaction transaction(*database_);
  if (auto begun = transaction.begin(); !begun) return begun;
  if (auto done = entries_->convert(); !done) return done;
  if (auto done = convert_indexed_db(); !done) return done;
  auto update = database_->prepare("UPDATE meta SET key_check = ?1, scrub = 1");
  if (!update) return tl::unexpected(update.error());
  const std::string check = terms_.key ? seal(*terms_.key, kKeyCheck, kKeyCheckPlace) : std::string();
  if (auto done = (*update)->bind_blob(1, check).run(); !done) return done;
  return transaction.commit();
}

// Whatever the backend is now: the file's tables all have one key.
Result<> MemoryFile::convert_indexed_db() {
  if (indexed_db_) return indexed_db_->reseal();
  const auto there = database_->number("SELECT count(*) FROM sqlite_schema WHERE name = 'idb_record'");
  if (!there) return tl::unexpected(there.error());
  if (*there == 0) return {};
  auto kept = IndexedDb::open(*database_, terms_, account_);
  return kept ? (*kept)->reseal() : tl::unexpected(kept.error());
}

// Every page is written anew and the log cut off: what stood in the file before is nowhere in it any more.
Result<> MemoryFile::scrub() {
  const auto empty_log = [this]() -> Result<> {
    const auto busy = database_->number("PRAGMA wal_checkpoint(TRUNCATE)");
    if (!busy) return tl::unexpected(busy.error());
    if (*busy == 0) return {};
    return failure("clean the agent's memory after a change of its encryption",
                   file_.path + ": another program reads it: close it and try again");
  };
  if (auto done = database_->execute("VACUUM"); !done) return done;
  if (auto done = empty_log(); !done) return done;
  if (auto done = database_->execute("UPDATE meta SET scrub = 0"); !done) return done;
  return empty_log();
}

void MemoryFile::close() {
  indexed_db_.reset();
  entries_.reset();
  database_.reset();
}

void MemoryFile::set_aside(const std::string& found) {
  const std::string target = file_.path + ".damaged-" + compact_time();
  std::string moved;
  // Before it is closed: SQLite would write its log into it.
  for (const char* part : {"", "-wal", "-shm"}) {
    if (::rename((file_.path + part).c_str(), (target + part).c_str()) == 0) {
      moved = target;
    } else if (errno != ENOENT) {
      moved.clear();
      break;
    }
  }
  close();
  const std::string where = moved.empty()
                                ? file_.path + ", and could not be moved away: move it, " + file_.path +
                                      "-wal and -shm, and start the agent again"
                                : moved +
                                      ": start the agent once more to begin with an empty memory, or bring an "
                                      "export back with 'kaictl memory import'";
  unusable_ = memory_error("INTERNAL", "the agent's memory is damaged (" + found + "); the file is now " + where);
}

klp::MemoryError MemoryFile::fail(const Error& error) {
  const int code = database_ ? database_->error_code() : SQLITE_OK;
  const bool damaged = code == SQLITE_CORRUPT || code == SQLITE_NOTADB;
  if (locked_) {
    close();
    unusable_ = memory_error("DENIED", error.message());
    return *unusable_;
  }
  if (damaged || !foreign_.empty()) {
    set_aside(damaged ? error.message() : foreign_);
    return *unusable_;
  }
  klp::MemoryError said = storage_error(database_.get(), error);
  if (!opened_) {
    close();
    unusable_ = said;
  }
  return said;
}

}  // namespace kai
