// Checks a whole log: its records in order, with the checkpoints that were stored between them. It names what was
// edited, removed, moved, cut off, continued or signed by somebody else, and goes on behind it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "audit/checkpoint.h"
#include "audit/merkle.h"
#include "audit/report.h"

namespace kai::audit {

/// A row of the table checkpoints. `frontier` and `leaves` are believed only as far as they give the root that the note
/// signs; they say which record it is that does not fit.
struct StoredCheckpoint {
  std::uint64_t size = 0;
  std::string_view note;
  std::string_view frontier;  ///< Frontier::bytes of the tree of that size
  std::string_view leaves;    ///< leaf hashes of the last records below it, those since the checkpoint before
};

/// A record kai.key_rotated as its table lists it; that it is there is part of the check.
struct Rotation {
  std::uint64_t seq = 0;
  std::string old_key, new_key;
};

class LogCheck {
 public:
  /// `stored` gives the bytes of a record again, for a finding about it; empty: it is not there.
  using Fetch = std::function<std::string(std::uint64_t seq)>;

  /// `key` is any of the keys that the log had; `rotations` in order.
  LogCheck(const PublicKey& key, std::vector<Rotation> rotations, Fetch stored);

  /// A checkpoint that somebody kept elsewhere: the log must contain what it says. `whose` is for the finding.
  void remember(std::string_view note, const std::string& whose);

  /// Records by rising `seq`, the row's own number, and each checkpoint after the last record that it covers.
  void record(std::uint64_t seq, std::string_view body);
  void checkpoint(const StoredCheckpoint& checkpoint);
  /// Once, at the end. Records above the last checkpoint are no finding by themselves: see unsealed().
  Report finish();

  /// The last record's number, and how many of them no checkpoint covers.
  [[nodiscard]] std::uint64_t last_seq() const { return last_seq_; }
  [[nodiscard]] std::uint64_t unsealed() const { return last_seq_ > good_size() ? last_seq_ - good_size() : 0; }

 private:
  struct Row {
    std::uint64_t seq;
    Hash leaf;
  };
  struct Remembered {
    Checkpoint checkpoint;
    std::string whose;
  };

  [[nodiscard]] std::uint64_t good_size() const { return good_.size(); }
  void find(std::uint64_t seq, std::string problem);
  void odd(std::uint64_t seq, std::string problem);
  void check_fields(std::uint64_t seq, std::string_view body);
  void check_rotation(std::uint64_t seq, std::string_view metadata);
  Result<Checkpoint> open(const StoredCheckpoint& stored);
  void take_leaves(const StoredCheckpoint& stored);
  void accept(const Frontier& tree);
  void locate(const Checkpoint& head, const StoredCheckpoint& stored);
  void name_differences(const Checkpoint& head);
  bool compare_remembered(const std::vector<Hash>& leaves);
  std::vector<Hash> leaves_of_rows() const;

  std::vector<PublicKey> keys_;  // in the order of their rotations
  std::vector<Rotation> rotations_;
  std::size_t rotations_seen_ = 0;
  Fetch stored_;
  std::vector<Remembered> remembered_;  // by size, the next at the back
  Report report_;

  Frontier good_;              // up to the last checkpoint that holds
  Frontier tree_;              // with the rows since
  bool whole_ = true;          // tree_ has every row since good_
  std::vector<Row> rows_;      // since good_
  std::string leaves_;         // what the database says their hashes were, from good_ on
  std::uint64_t covered_ = 0;  // by the checkpoint before
  std::uint64_t last_seq_ = 0;
  std::vector<Finding> odd_;  // records whose fields do not fit, unless their hash says why
  std::map<std::string, std::uint64_t, std::less<>> agent_seqs_;
  bool disturbed_ = false;  // something was found missing or edited: what follows need not count on from it
};

}  // namespace kai::audit
