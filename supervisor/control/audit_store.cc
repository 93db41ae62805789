#include "supervisor/control/audit_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>

#include "audit/record.h"
#include "base/unix.h"

namespace kai {
namespace {

std::int64_t number(std::uint64_t value) {
  return static_cast<std::int64_t>(value);
}

Result<> run(Result<std::unique_ptr<Statement>>& statement) {
  if (!statement) return tl::unexpected(statement.error());
  return (*statement)->run();
}

}  // namespace

Result<std::uint64_t> AuditStore::last_agent_seq(std::string_view agent) {
  auto select = database_->prepare("SELECT max(agent_seq) FROM agent_records WHERE agent_id = ?1");
  if (!select) return tl::unexpected(select.error());
  const auto row = (*select)->bind(1, agent).step();
  if (!row) return tl::unexpected(row.error());
  return static_cast<std::uint64_t>(*row ? (*select)->number(0) : 0);
}

/// The tree's own part of a record; what this gathers is written with the next checkpoint.
void AuditStore::add_leaf(std::string_view body) {
  const audit::Hash leaf = audit::leaf_hash(body);
  const std::uint64_t index = tree_.size();
  tree_.append(leaf, [this, index](unsigned height, const audit::Hash& hash) {
    if (height % 8 == 0) open_subtrees_.push_back({height, index >> height, hash});
  });
  open_leaves_ += audit::bytes_of(leaf);
}

Result<> AuditStore::write(const std::deque<NewRecord>& records, bool seal) {
  const audit::Frontier tree = tree_;
  const std::size_t leaves = open_leaves_.size();
  const std::size_t subtrees = open_subtrees_.size();
  std::string note;
  const auto written = [&]() -> Result<> {
    Transaction transaction(*database_);
    if (auto begun = transaction.begin(); !begun) return begun;
    if (auto stored = write_records(records); !stored) return stored;
    for (const NewRecord& record : records) add_leaf(record.body);
    if (seal && tree_.size() > sealed_size_) {
      note = key_.sign(audit::Checkpoint{public_key().name, tree_.size(), tree_.root()}.text());
      if (auto stored = write_checkpoint(note); !stored) return stored;
    }
    return transaction.commit();
  }();
  if (!written) {
    tree_ = tree;
    open_leaves_.resize(leaves);
    open_subtrees_.resize(subtrees);
    return written;
  }
  if (note.empty()) return {};
  note_ = std::move(note);
  sealed_size_ = tree_.size();
  open_leaves_.clear();
  open_subtrees_.clear();
  return {};
}

Result<> AuditStore::write_records(const std::deque<NewRecord>& records) {
  for (const NewRecord& record : records) {
    // Whatever stands there is not ours: a foreign program wrote it since. Ours takes its place; the foreign one is
    // told of by the hash that no longer fits, and would have been by its own.
    auto insert = database_->prepare("INSERT OR REPLACE INTO records VALUES(?1, ?2)");
    if (insert) (*insert)->bind(1, number(record.seq)).bind_blob(2, record.body);
    if (auto done = run(insert); !done) return done;
    auto index = database_->prepare("INSERT OR REPLACE INTO agent_records VALUES(?1, ?2, ?3)");
    if (index) (*index)->bind(1, record.agent).bind(2, number(record.agent_seq)).bind(3, number(record.seq));
    if (auto done = run(index); !done) return done;
    if (record.agent != "kaid") continue;
    const auto parsed = audit::parse_record(record.body);
    if (!parsed || parsed->event != "kai.key_rotated") continue;
    auto rotation = database_->prepare("INSERT OR REPLACE INTO rotations VALUES(?1)");
    if (rotation) (*rotation)->bind(1, number(record.seq));
    if (auto done = run(rotation); !done) return done;
  }
  return {};
}

Result<> AuditStore::write_checkpoint(const std::string& note) {
  const std::string frontier = tree_.bytes();
  auto insert = database_->prepare("INSERT OR REPLACE INTO checkpoints VALUES(?1, ?2, ?3, ?4)");
  if (insert)
    (*insert)->bind(1, number(tree_.size())).bind_blob(2, note).bind_blob(3, frontier).bind_blob(4, open_leaves_);
  if (auto done = run(insert); !done) return done;
  for (const Subtree& subtree : open_subtrees_) {
    auto put = database_->prepare("INSERT OR REPLACE INTO subtrees VALUES(?1, ?2, ?3)");
    if (put) {
      (*put)->bind(1, subtree.height).bind(2, number(subtree.position)).bind_blob(3, audit::bytes_of(subtree.hash));
    }
    if (auto done = run(put); !done) return done;
  }
  return {};
}

Result<> AuditStore::sync(const std::string& note) const {
  if (fdatasync(log_.get()) < 0) return errno_failure("fdatasync", directory_ + AuditFiles::kDatabase + "-wal");
  if (note.empty()) return {};  // nothing was signed yet, and what stands there says so
  // In place, one write below a sector's size: it is the old note or the new one, whatever happens. It is not synced
  // by itself, so after a power failure it may be an older one, which is as true.
  const std::string path = directory_ + AuditFiles::kCheckpoint;
  if (pwrite(remembered_.get(), note.data(), note.size(), 0) != static_cast<ssize_t>(note.size())) {
    return errno_failure("write", path);
  }
  struct stat status {};
  if (fstat(remembered_.get(), &status) < 0) return errno_failure("fstat", path);
  if (status.st_size == static_cast<off_t>(note.size())) return {};
  if (ftruncate(remembered_.get(), static_cast<off_t>(note.size())) < 0) return errno_failure("ftruncate", path);
  return {};
}

Result<> AuditStore::rewrite() {
  if (auto full = database_->set_durable(true); !full) return full;
  const auto busy = database_->number("PRAGMA wal_checkpoint(TRUNCATE)");
  if (auto normal = database_->set_durable(false); !normal) return normal;
  if (!busy) return tl::unexpected(busy.error());
  if (*busy != 0) return failure("write the audit", "another program reads it; trying again");
  return {};
}

Result<> AuditStore::move_log() const {
  auto database = Database::open_unchecked(directory_ + AuditFiles::kDatabase, kAuditNames, false);
  if (!database) return tl::unexpected(database.error());
  return (*database)->execute("PRAGMA wal_checkpoint(PASSIVE)");
}

Result<> AuditStore::move_rest() {
  return database_->execute("PRAGMA wal_checkpoint(PASSIVE)");
}

Result<std::string> AuditStore::begin_rotation() {
  const audit::SecretKey next = audit::SecretKey::generate(public_key().name);
  const std::string path = directory_ + AuditFiles::kNextKey;
  unlink(path.c_str());
  const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file) return errno_failure("make the new key", path);
  if (auto written = write_all(file.get(), next.text() + "\n"); !written) return tl::unexpected(written.error());
  if (fsync(file.get()) < 0) return errno_failure("fsync", path);
  // The record that names the key may not outlive it.
  const Fd directory(::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || fsync(directory.get()) < 0) return errno_failure("fsync", directory_);
  return audit::format_rotation(public_key().text(), next.public_key().text());
}

}  // namespace kai
