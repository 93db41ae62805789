// How STATE/audit is opened: made where it is not there, and looked at before anything is added to it.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "audit/record.h"
#include "base/text.h"
#include "base/unix.h"
#include "supervisor/control/audit_store.h"

namespace kai {
namespace {

constexpr const char* kSchema = R"sql(
  CREATE TABLE records(seq INTEGER PRIMARY KEY, body BLOB);
  CREATE TABLE agent_records(
    agent_id TEXT NOT NULL, agent_seq INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY(agent_id, agent_seq)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE checkpoints(size INTEGER PRIMARY KEY, note BLOB NOT NULL, frontier BLOB NOT NULL, leaves BLOB NOT NULL)
    STRICT;
  CREATE TABLE subtrees(
    height INTEGER NOT NULL, position INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY(height, position)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE rotations(seq INTEGER PRIMARY KEY) STRICT;
  CREATE TABLE strays(found TEXT NOT NULL, seq INTEGER NOT NULL, body BLOB);
  PRAGMA user_version=1;
)sql";
constexpr std::int64_t kNewest = 1;
constexpr std::size_t kMaxTampered = 1 << 20;
// Looked at when the audit is opened: the rest is for `audit verify`.
constexpr std::uint64_t kCheckedAtOpen = 1024;

Result<> sync_directory(const std::string& path) {
  const Fd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || fsync(directory.get()) < 0) return errno_failure("fsync", path);
  return {};
}

/// A new file of that name, whole or not at all.
Result<> put_file(const std::string& path, std::string_view bytes, mode_t mode) {
  const std::string fresh = path + ".new";
  unlink(fresh.c_str());
  const Fd file(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!file || fchmod(file.get(), mode) < 0) return errno_failure("make", fresh);
  if (auto written = write_all(file.get(), bytes); !written) return written;
  if (fsync(file.get()) < 0) return errno_failure("fsync", fresh);
  if (rename(fresh.c_str(), path.c_str()) < 0) return errno_failure("rename", fresh);
  return sync_directory(path.substr(0, path.rfind('/')));
}

bool is_there(const std::string& path) {
  struct stat status {};
  return lstat(path.c_str(), &status) == 0;
}

Result<std::unique_ptr<Database>> open_database(const std::string& path) {
  auto database = Database::open_unchecked(path, kAuditNames, false);
  if (!database) return database;
  for (const char* pragma : {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", "PRAGMA trusted_schema=OFF"}) {
    if (auto set = (*database)->execute(pragma); !set) return tl::unexpected(set.error());
  }
  (*database)->watch_log();
  return database;
}

/// Beside its place and moved there when it is whole: a file of that name always is an audit.
Result<> create_database(const std::string& path) {
  const std::string fresh = path + ".new";
  for (const char* suffix : {"", "-wal", "-shm"}) unlink((fresh + suffix).c_str());
  const Fd file(::open(fresh.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file) return errno_failure("make the audit", fresh);
  {
    auto database = open_database(fresh);
    if (!database) return tl::unexpected(database.error());
    if (auto made = (*database)->execute(kSchema); !made) return made;
  }
  if (fsync(file.get()) < 0) return errno_failure("fsync", fresh);
  // A write-ahead log of another database must not be taken for this one's.
  for (const char* suffix : {"-wal", "-shm"}) unlink((path + suffix).c_str());
  if (rename(fresh.c_str(), path.c_str()) < 0) return errno_failure("rename", fresh);
  return sync_directory(path.substr(0, path.rfind('/')));
}

Result<audit::SecretKey> read_key(const std::string& path) {
  const auto text = read_file(path, 4096);
  if (!text) return tl::unexpected(text.error());
  auto key = audit::SecretKey::parse(*text);
  if (!key) {
    return failure("open the audit's signing key", path + ": " + key.error().message() +
                                                       "; put a copy of it in its place, or move it away to go on "
                                                       "with a new key (audit verify will say so)");
  }
  return key;
}

std::string numbers(std::uint64_t first, std::uint64_t last) {
  return first == last ? "record " + std::to_string(first) + " is"
                       : "records " + std::to_string(first) + " to " + std::to_string(last) + " are";
}

/// Of the newest note that a database holds, for a key that is made anew; empty: there is none.
std::string origin_in(const std::string& path) {
  auto database = Database::open_unchecked(path, kAuditNames, true);
  if (!database) return {};
  auto select = (*database)->prepare("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1");
  if (!select) return {};
  const auto row = (*select)->step();
  if (!row || !*row) return {};
  const auto checkpoint = audit::parse_checkpoint((*select)->bytes(0));
  return checkpoint ? checkpoint->origin : std::string();
}

}  // namespace

void AuditStore::suspect(std::uint64_t seq, std::string problem) {
  problems_.push_back({seq, {}, {}, std::move(problem)});
}

Result<std::unique_ptr<AuditStore>> AuditStore::open(const std::string& directory) {
  if (mkdir(directory.c_str(), 0700) < 0 && errno != EEXIST) return errno_failure("make", directory);
  const std::string key_path = directory + AuditFiles::kKey;
  const std::string database = directory + AuditFiles::kDatabase;
  const bool had_key = is_there(key_path);
  if (!had_key) {
    const audit::SecretKey made = audit::SecretKey::generate(is_there(database) ? origin_in(database) : "");
    if (auto put = put_file(key_path, made.text() + "\n", 0600); !put) return tl::unexpected(put.error());
  }
  auto key = read_key(key_path);
  if (!key) return tl::unexpected(key.error());
  std::unique_ptr<AuditStore> store(new AuditStore(directory, std::move(*key)));
  if (!had_key && is_there(database)) {
    store->suspect(0,
                   "the signing key was missing when kaid started, and a new one was made: nothing before then can be "
                   "shown to be kaid's by the new key");
  }
  if (auto opened = store->open_files(); !opened) return tl::unexpected(opened.error());
  if (auto loaded = store->load(); !loaded) return tl::unexpected(loaded.error());
  return store;
}

Result<> AuditStore::open_files() {
  const std::string database = directory_ + AuditFiles::kDatabase;
  const std::string checkpoint = directory_ + AuditFiles::kCheckpoint;
  const bool had_database = is_there(database);
  if (!is_there(checkpoint)) {
    if (had_database)
      suspect(0, "the file " + checkpoint + " was missing when kaid started: a rollback before then would not show");
    const std::string empty = key_.sign(audit::Checkpoint{public_key().name, 0, audit::Frontier().root()}.text());
    if (auto put = put_file(checkpoint, empty, 0644); !put) return put;
  }
  auto remembered = read_file(checkpoint, audit::kMaxNote);
  if (!remembered) return tl::unexpected(remembered.error());
  remembered_note_ = std::move(*remembered);
  remembered_.reset(::open(checkpoint.c_str(), O_WRONLY | O_CLOEXEC));
  if (!remembered_) return errno_failure("open", checkpoint);
  if (!had_database) {
    if (auto created = create_database(database); !created) return created;
  } else if (struct stat status{};
             lstat(database.c_str(), &status) == 0 && (!S_ISREG(status.st_mode) || status.st_size == 0)) {
    return failure("open the audit", database +
                                         ": is empty or no regular file, so it is damaged: put a copy of it in its "
                                         "place, or move it away to begin a new audit");
  }
  auto opened = open_database(database);
  if (!opened) return tl::unexpected(opened.error());
  database_ = std::move(*opened);
  const auto version = database_->number("PRAGMA user_version");
  if (!version) return tl::unexpected(version.error());
  if (*version != kNewest) {
    return failure("open the audit", database + ": it is of another version of kaid (schema " +
                                         std::to_string(*version) + ", this one knows " + std::to_string(kNewest) +
                                         "); run that version, or move the file away to begin a new audit");
  }
  // The first write makes the write-ahead log, whose descriptor sync() needs.
  if (auto made = database_->execute("PRAGMA user_version=1"); !made) return made;
  log_.reset(::open((database + "-wal").c_str(), O_RDWR | O_CLOEXEC));
  if (!log_) return errno_failure("open", database + "-wal");
  const auto public_key = read_file(directory_ + AuditFiles::kPublicKey, 4096);
  if (public_key && *public_key == this->public_key().text() + "\n") return {};
  return put_file(directory_ + AuditFiles::kPublicKey, this->public_key().text() + "\n", 0644);
}

Result<> AuditStore::load() {
  for (const auto part : {&AuditStore::load_head, &AuditStore::load_unsealed, &AuditStore::check_newest_batch,
                          &AuditStore::check_remembered}) {
    if (auto done = (this->*part)(); !done) return done;
  }
  if (auto kept = keep_problems(); !kept) return kept;
  return settle_rotation();
}

/// The metadata of the last kai.key_rotated; empty: none.
Result<std::string> AuditStore::last_rotation() {
  auto select = database_->prepare("SELECT body FROM records WHERE seq = (SELECT max(seq) FROM rotations)");
  if (!select) return tl::unexpected(select.error());
  const auto row = (*select)->step();
  if (!row) return tl::unexpected(row.error());
  if (!*row) return std::string();
  const auto record = audit::parse_record((*select)->bytes(0));
  return record && record->event == "kai.key_rotated" ? std::string(record->metadata) : std::string();
}

/// The newest checkpoint and its frontier; what they do not agree on is rebuilt from the records.
Result<> AuditStore::load_head() {
  std::string frontier;
  {
    auto select = database_->prepare("SELECT size, note, frontier FROM checkpoints ORDER BY size DESC LIMIT 1");
    if (!select) return tl::unexpected(select.error());
    const auto row = (*select)->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) return {};
    sealed_size_ = static_cast<std::uint64_t>((*select)->number(0));
    note_ = (*select)->text(1);
    frontier = (*select)->text(2);
  }
  auto checkpoint = audit::open_checkpoint(note_, public_key());
  if (!checkpoint) {
    // Between a rotation and the first checkpoint after it, the newest is still of the old key.
    const auto rotation = last_rotation();
    if (!rotation) return tl::unexpected(rotation.error());
    const auto keys = nlohmann::json::parse(*rotation, nullptr, false);
    if (keys.is_object() && keys.value("newKey", "") == public_key().text()) {
      if (const auto old_key = audit::PublicKey::parse(keys.value("oldKey", ""))) {
        checkpoint = audit::open_checkpoint(note_, *old_key);
      }
    }
  }
  const auto tree = audit::Frontier::from(sealed_size_, frontier);
  if (checkpoint && checkpoint->size == sealed_size_ && tree && tree->root() == checkpoint->root) {
    tree_ = *tree;
    return {};
  }
  suspect(sealed_size_, checkpoint
                            ? "the newest checkpoint in the database is not of the tree that stands beside it"
                            : "the newest checkpoint in the database is not ours: " + checkpoint.error().message());
  return rebuild();
}

/// From the records alone, which are then sealed as they are: what was wrong with them stands in problems().
Result<> AuditStore::rebuild() {
  tree_ = {};
  open_leaves_.clear();
  open_subtrees_.clear();
  auto select = database_->prepare("SELECT seq, body FROM records ORDER BY seq");
  if (!select) return tl::unexpected(select.error());
  for (;;) {
    const auto row = (*select)->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row || static_cast<std::uint64_t>((*select)->number(0)) != tree_.size() + 1) break;
    add_leaf((*select)->bytes(1));
  }
  sealed_size_ = 0;
  return {};
}

Result<> AuditStore::load_unsealed() {
  std::uint64_t stray = 0;
  {
    auto select = database_->prepare("SELECT seq, body FROM records WHERE seq > ?1 ORDER BY seq");
    if (!select) return tl::unexpected(select.error());
    (*select)->bind(1, static_cast<std::int64_t>(tree_.size()));
    for (;;) {
      const auto row = (*select)->step();
      if (!row) return tl::unexpected(row.error());
      if (!*row) break;
      const auto seq = static_cast<std::uint64_t>((*select)->number(0));
      const auto record = audit::parse_record((*select)->bytes(1));
      if (seq != tree_.size() + 1 || !record || record->seq != seq) {
        stray = seq;
        break;
      }
      add_leaf((*select)->bytes(1));
    }
  }
  return stray == 0 ? Result<>() : set_aside(stray);
}

/// What cannot be a record of kaid's own stands where the next one would go: it is kept, elsewhere.
Result<> AuditStore::set_aside(std::uint64_t first_seq) {
  suspect(first_seq, "it does not continue the log: it and what follows were moved to the table strays");
  Transaction transaction(*database_);
  if (auto begun = transaction.begin(); !begun) return begun;
  const std::string from = " FROM records WHERE seq >= " + std::to_string(first_seq);
  if (auto kept = database_->execute("INSERT INTO strays SELECT '" + iso_now() + "', seq, body" + from); !kept)
    return kept;
  if (auto gone = database_->execute("DELETE" + from); !gone) return gone;
  return transaction.commit();
}

/// The end of the log is what a crash, or somebody with a knife, reaches first.
Result<> AuditStore::check_newest_batch() {
  if (sealed_size_ == 0) return {};
  std::string leaves;
  {
    auto select = database_->prepare("SELECT leaves FROM checkpoints ORDER BY size DESC LIMIT 1");
    if (!select) return tl::unexpected(select.error());
    const auto row = (*select)->step();
    if (!row) return tl::unexpected(row.error());
    if (*row) leaves = (*select)->text(0);
  }
  const std::uint64_t count =
      std::min<std::uint64_t>({leaves.size() / sizeof(audit::Hash), kCheckedAtOpen, sealed_size_});
  leaves.erase(0, leaves.size() - count * sizeof(audit::Hash));
  std::uint64_t missing = 0;
  for (std::uint64_t at = 0; at < count; ++at) {
    const std::uint64_t seq = sealed_size_ - count + at + 1;
    auto select = database_->prepare("SELECT body FROM records WHERE seq = ?1");
    if (!select) return tl::unexpected(select.error());
    const auto row = (*select)->bind(1, static_cast<std::int64_t>(seq)).step();
    if (!row) return tl::unexpected(row.error());
    const std::string_view expected = std::string_view(leaves).substr(at * sizeof(audit::Hash), sizeof(audit::Hash));
    if (!*row) {
      if (missing == 0) missing = seq;
    } else if (audit::bytes_of(audit::leaf_hash((*select)->bytes(0))) != expected) {
      suspect(seq, "it was edited: its bytes are not those that were signed");
    }
  }
  if (missing != 0) suspect(missing, "it is missing, and maybe others up to " + std::to_string(sealed_size_));
  return {};
}

/// The checkpoint outside the database: a database that was put back as a whole agrees with itself, not with this.
Result<> AuditStore::check_remembered() {
  const auto remembered = audit::parse_checkpoint(remembered_note_);
  if (!remembered) {
    suspect(0, "the file checkpoint cannot be read: " + remembered.error().message());
    return {};
  }
  if (remembered->size == 0) return {};
  if (remembered->size > std::max(sealed_size_, tree_.size())) {
    suspect(tree_.size() + 1, "the database was cut off or rolled back before kaid started: " +
                                  numbers(tree_.size() + 1, remembered->size) + " missing");
    return {};
  }
  auto select = database_->prepare("SELECT note FROM checkpoints WHERE size = ?1");
  if (!select) return tl::unexpected(select.error());
  const auto row = (*select)->bind(1, static_cast<std::int64_t>(remembered->size)).step();
  if (!row) return tl::unexpected(row.error());
  const auto stored =
      *row ? audit::parse_checkpoint((*select)->bytes(0)) : Result<audit::Checkpoint>(failure("missing"));
  if (!stored || stored->root != remembered->root || stored->origin != remembered->origin) {
    suspect(remembered->size,
            "the log up to here is not the one that kaid last signed: it was replaced or continued "
            "by somebody else");
  }
  return {};
}

Result<> AuditStore::keep_problems() {
  if (problems_.empty()) return {};
  const std::string path = directory_ + AuditFiles::kTampered;
  const auto known = read_tampered(directory_);
  if (!known) return tl::unexpected(known.error());
  std::string lines;
  for (const audit::Finding& problem : problems_) {
    const auto same = [&](const audit::Finding& other) {
      return other.problem.ends_with(problem.problem) && other.seq == problem.seq;
    };
    if (std::any_of(known->begin(), known->end(), same)) continue;
    lines +=
        nlohmann::ordered_json{
            {"found", iso_now()}, {"seq", problem.seq}, {"problem", problem.problem}, {"checkpoint", remembered_note_}}
            .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
        "\n";
  }
  const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!file) return errno_failure("open", path);
  if (auto written = write_all(file.get(), lines); !written) return written;
  if (fsync(file.get()) < 0) return errno_failure("fsync", path);
  return sync_directory(directory_);
}

Result<std::vector<audit::Finding>> read_tampered(const std::string& directory) {
  const auto text = read_file(directory + AuditFiles::kTampered, kMaxTampered);
  std::vector<audit::Finding> findings;
  if (!text) {
    if (text.error().error_number == ENOENT) return findings;
    return tl::unexpected(text.error());
  }
  for (std::size_t begin = 0; begin < text->size();) {
    const std::size_t end = std::min(text->find('\n', begin), text->size());
    const auto line = nlohmann::json::parse(text->substr(begin, end - begin), nullptr, false);
    begin = end + 1;
    audit::Finding finding;
    if (line.is_object() && line.contains("problem") && line["problem"].is_string()) {
      if (line.contains("seq") && line["seq"].is_number_unsigned()) finding.seq = line["seq"];
      const std::string found = line.contains("found") && line["found"].is_string() ? line["found"] : "";
      finding.problem = "found at " + found + ": " + line["problem"].get<std::string>();
    } else {
      finding.problem = "a line of the file tampered cannot be read";
    }
    findings.push_back(std::move(finding));
  }
  return findings;
}

/// A rotation that a crash interrupted is finished if its record is in the log, else forgotten.
Result<> AuditStore::settle_rotation() {
  const std::string path = directory_ + AuditFiles::kNextKey;
  if (!is_there(path)) return {};
  const auto next = read_key(path);
  const auto rotation = last_rotation();
  if (!rotation) return tl::unexpected(rotation.error());
  if (!next || rotation->find(next->public_key().text()) == std::string::npos) {
    if (unlink(path.c_str()) < 0) return errno_failure("unlink", path);
    return {};
  }
  const auto seq = database_->number("SELECT max(seq) FROM rotations");
  if (!seq) return tl::unexpected(seq.error());
  if (static_cast<std::uint64_t>(*seq) > sealed_size_) {
    if (auto sealed = write({}, true); !sealed) return sealed;
  }
  if (auto synced = sync(note_); !synced) return synced;
  return finish_rotation();
}

Result<> AuditStore::finish_rotation() {
  const std::string next = directory_ + AuditFiles::kNextKey;
  auto key = read_key(next);
  if (!key) return tl::unexpected(key.error());
  // First of all: what is signed from now on is signed by the new one. Where the rest fails, the next start does it.
  key_ = std::move(*key);
  if (rename(next.c_str(), (directory_ + AuditFiles::kKey).c_str()) < 0) return errno_failure("rename", next);
  if (auto synced = sync_directory(directory_); !synced) return synced;
  return put_file(directory_ + AuditFiles::kPublicKey, public_key().text() + "\n", 0644);
}

}  // namespace kai
