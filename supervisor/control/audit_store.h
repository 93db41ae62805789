// STATE/audit on disk: the database of records, tree and checkpoints, the signing key, and the newest checkpoint
// outside the database. Formats: docs/audit.md. No event loop: AuditLog says when.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "audit/checkpoint.h"
#include "audit/merkle.h"
#include "audit/report.h"
#include "base/fd.h"
#include "base/result.h"
#include "supervisor/database/database.h"

namespace kai {

inline constexpr DatabaseNames kAuditNames = {"the audit", "to begin a new audit"};

/// A record that is not written yet.
struct NewRecord {
  std::uint64_t seq = 0, agent_seq = 0;
  std::string agent;
  std::string body;
};

class AuditStore {
 public:
  /// Makes what is not there in `directory` (the directory too). What contradicts itself is no error: see problems().
  static Result<std::unique_ptr<AuditStore>> open(const std::string& directory);

  /// What open() found to be edited, cut off or rolled back; it stands in STATE/audit/tampered now, and
  /// `audit verify` goes on reporting it.
  [[nodiscard]] const std::vector<audit::Finding>& problems() const { return problems_; }

  [[nodiscard]] std::uint64_t size() const { return tree_.size(); }
  [[nodiscard]] std::uint64_t sealed_size() const { return sealed_size_; }
  /// The newest note.
  [[nodiscard]] const std::string& note() const { return note_; }
  [[nodiscard]] const audit::PublicKey& public_key() const { return key_.public_key(); }
  [[nodiscard]] const std::string& directory() const { return directory_; }
  /// Of the last record of `agent` that is stored; 0: none.
  Result<std::uint64_t> last_agent_seq(std::string_view agent);

  /// Stores `records` (they continue the log) and, if asked, closes everything that is open with a checkpoint: all of
  /// it or nothing. It survives kill -9 then, not yet a power failure.
  Result<> write(const std::deque<NewRecord>& records, bool seal);
  /// Makes what was written before durable, then `note` the one outside the database. On any thread, one at a time.
  [[nodiscard]] Result<> sync(const std::string& note) const;
  /// After a failed sync(): what the kernel dropped is written anew.
  Result<> rewrite();
  /// Moves what the write-ahead log holds into the database. On any thread, by a connection of its own.
  [[nodiscard]] Result<> move_log() const;
  /// The same here, for the little that is left after move_log(): then SQLite begins the log anew.
  Result<> move_rest();
  [[nodiscard]] int log_pages() const { return database_->log_pages(); }

  /// The record's metadata for a new key, which is kept beside the old one until finish_rotation(): after a checkpoint
  /// by the old key over that record is durable.
  Result<std::string> begin_rotation();
  Result<> finish_rotation();

 private:
  AuditStore(std::string directory, audit::SecretKey key) : directory_(std::move(directory)), key_(std::move(key)) {}

  Result<> open_files();
  Result<> load();
  Result<> load_head();
  Result<> load_unsealed();
  Result<> rebuild();
  Result<> check_newest_batch();
  Result<> check_remembered();
  Result<> set_aside(std::uint64_t first_seq);
  Result<> settle_rotation();
  Result<> keep_problems();
  Result<std::string> last_rotation();
  void add_leaf(std::string_view body);
  void suspect(std::uint64_t seq, std::string problem);
  Result<> write_records(const std::deque<NewRecord>& records);
  Result<> write_checkpoint(const std::string& note);

  std::string directory_;
  audit::SecretKey key_;
  std::unique_ptr<Database> database_;
  Fd log_;         // audit.db-wal: SQLite keeps it while the database is open
  Fd remembered_;  // STATE/audit/checkpoint
  audit::Frontier tree_;
  std::uint64_t sealed_size_ = 0;
  std::string note_;
  std::string open_leaves_;  // hashes of the records above sealed_size_
  struct Subtree {
    unsigned height;
    std::uint64_t position;
    audit::Hash hash;
  };
  std::vector<Subtree> open_subtrees_;  // not written yet: of heights 8, 16, …
  std::vector<audit::Finding> problems_;
  std::string remembered_note_;  // as it was found
};

/// The names of the files in STATE/audit.
struct AuditFiles {
  static constexpr const char* kDatabase = "/audit.db";
  static constexpr const char* kKey = "/key";
  static constexpr const char* kNextKey = "/key.next";
  static constexpr const char* kPublicKey = "/key.pub";
  static constexpr const char* kCheckpoint = "/checkpoint";
  static constexpr const char* kTampered = "/tampered";
};

/// The lines of STATE/audit/tampered, which is not there in most places.
Result<std::vector<audit::Finding>> read_tampered(const std::string& directory);

}  // namespace kai
