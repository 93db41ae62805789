#include "audit/log_check.h"

#include <algorithm>

#include "audit/record.h"

namespace kai::audit {
namespace {

std::string range(std::uint64_t first, std::uint64_t last) {
  return first == last ? "record " + std::to_string(first)
                       : "records " + std::to_string(first) + " to " + std::to_string(last);
}

}  // namespace

LogCheck::LogCheck(const PublicKey& key, std::vector<Rotation> rotations, Fetch stored)
    : rotations_(std::move(rotations)), stored_(std::move(stored)) {
  bool linked = false;
  for (const Rotation& rotation : rotations_) {
    const auto old_key = PublicKey::parse(rotation.old_key);
    const auto new_key = PublicKey::parse(rotation.new_key);
    if (!old_key || !new_key || (!keys_.empty() && !(keys_.back() == *old_key))) {
      find(rotation.seq, "its keys do not continue those before it");
      break;
    }
    if (keys_.empty()) keys_.push_back(*old_key);
    keys_.push_back(*new_key);
  }
  for (const PublicKey& known : keys_) linked |= known == key;
  if (keys_.empty()) {
    keys_.push_back(key);
  } else if (!linked) {
    find(0, "none of the keys that the log names is " + key.text());
    keys_.assign(1, key);
    rotations_.clear();
  }
}

void LogCheck::remember(std::string_view note, const std::string& whose) {
  Result<Checkpoint> opened = failure("no key");
  for (const PublicKey& key : keys_) {
    opened = open_checkpoint(note, key);
    if (opened) break;
  }
  if (!opened) return find(0, whose + " is not of this log: " + opened.error().message());
  remembered_.push_back({*opened, whose});
  std::sort(remembered_.begin(), remembered_.end(),
            [](const Remembered& a, const Remembered& b) { return a.checkpoint.size > b.checkpoint.size; });
}

void LogCheck::find(std::uint64_t seq, std::string problem) {
  Finding finding{seq, {}, {}, std::move(problem)};
  const std::string body = seq == 0 ? "" : stored_(seq);
  if (const auto record = parse_record(body)) {
    finding.agent_id = record->agent_id;
    finding.event = record->event;
  }
  report_.add(std::move(finding));
}

void LogCheck::odd(std::uint64_t seq, std::string problem) {
  if (odd_.size() < Report::kMaxFindings) odd_.push_back({seq, {}, {}, std::move(problem)});
}

void LogCheck::record(std::uint64_t seq, std::string_view body) {
  ++report_.records;
  last_seq_ = seq;
  const Hash leaf = leaf_hash(body);
  if (whole_ && seq == tree_.size() + 1) {
    tree_.append(leaf);
  } else {
    whole_ = false;
  }
  rows_.push_back({seq, leaf});
  check_fields(seq, body);
}

void LogCheck::check_fields(std::uint64_t seq, std::string_view body) {
  const auto record = parse_record(body);
  if (!record) return odd(seq, "it is not in the form of a record");
  if (record->seq != seq) return odd(seq, "it is record " + std::to_string(record->seq) + ", in the place of this one");
  auto known = agent_seqs_.find(record->agent_id);
  if (known == agent_seqs_.end()) known = agent_seqs_.emplace(record->agent_id, 0).first;
  if (record->agent_seq != known->second + 1 && !disturbed_) {
    odd(seq, "its agentSeq is " + std::to_string(record->agent_seq) + ", after " + std::to_string(known->second));
  }
  known->second = record->agent_seq;
  if (record->event == "kai.key_rotated" && record->agent_id == "kaid") check_rotation(seq, record->metadata);
}

void LogCheck::check_rotation(std::uint64_t seq, std::string_view metadata) {
  while (rotations_seen_ < rotations_.size() && rotations_[rotations_seen_].seq < seq) {
    odd(rotations_[rotations_seen_++].seq, "the log has no key rotation here");
  }
  if (rotations_seen_ == rotations_.size() || rotations_[rotations_seen_].seq != seq) {
    return odd(seq, "the table rotations does not list it");
  }
  const Rotation& rotation = rotations_[rotations_seen_++];
  if (metadata != format_rotation(rotation.old_key, rotation.new_key)) odd(seq, "its keys are not those of the table");
}

/// By the key that was in force: a rotation's record is below a checkpoint of the old key, everything after that is
/// signed by the new one.
Result<Checkpoint> LogCheck::open(const StoredCheckpoint& stored) {
  std::size_t in_force = 0;
  for (const Rotation& rotation : rotations_) {
    if (rotation.seq <= covered_ && in_force + 1 < keys_.size()) ++in_force;
  }
  covered_ = stored.size;
  auto opened = open_checkpoint(stored.note, keys_[in_force]);
  if (!opened) {
    for (const PublicKey& key : keys_) {
      if (open_checkpoint(stored.note, key)) return failure("it is signed by a key that was not in force then");
    }
    return opened;
  }
  if (opened->size != stored.size) return failure("it is of another size: " + std::to_string(opened->size));
  return opened;
}

/// Hashes of the batches since good_, without a gap.
void LogCheck::take_leaves(const StoredCheckpoint& stored) {
  const std::uint64_t count = stored.leaves.size() / sizeof(Hash);
  if (stored.leaves.size() % sizeof(Hash) != 0 || count > stored.size) return;
  const std::uint64_t have = good_size() + leaves_.size() / sizeof(Hash);
  const std::uint64_t begin = stored.size - count;
  if (begin <= have && stored.size > have) leaves_ += stored.leaves.substr((have - begin) * sizeof(Hash));
}

void LogCheck::checkpoint(const StoredCheckpoint& stored) {
  take_leaves(stored);
  const std::uint64_t first = good_size() + 1;
  const auto head = open(stored);
  if (!head)
    return find(stored.size,
                "the checkpoint over " + range(first, stored.size) + " is not kaid's: " + head.error().message());
  ++report_.checkpoints;
  report_.checkpoint = stored.note;
  if (whole_ && tree_.size() == head->size && tree_.root() == head->root) {
    compare_remembered(leaves_of_rows());
    for (const Finding& finding : odd_) find(finding.seq, finding.problem);
    return accept(tree_);
  }
  locate(*head, stored);
}

std::vector<Hash> LogCheck::leaves_of_rows() const {
  std::vector<Hash> leaves;
  if (remembered_.empty()) return leaves;
  leaves.reserve(rows_.size());
  for (const Row& row : rows_) leaves.push_back(row.leaf);
  return leaves;
}

void LogCheck::accept(const Frontier& tree) {
  good_ = tree;
  tree_ = tree;
  whole_ = true;
  rows_.clear();
  leaves_.clear();
  odd_.clear();
}

/// Which of the records since good_ it is that does not fit the signed root.
void LogCheck::locate(const Checkpoint& head, const StoredCheckpoint& stored) {
  disturbed_ = true;
  Frontier kept = good_;
  std::vector<Hash> leaves;
  for (std::size_t at = 0; at + sizeof(Hash) <= leaves_.size(); at += sizeof(Hash)) {
    leaves.push_back(hash_from(std::string_view(leaves_).substr(at, sizeof(Hash))));
    kept.append(leaves.back());
  }
  if (kept.size() == head.size && kept.root() == head.root) {
    name_differences(head);
    compare_remembered(leaves);
    return accept(kept);
  }
  const std::uint64_t first = good_size() + 1;
  std::uint64_t suspect = first;
  for (const Row& row : rows_) {
    const std::uint64_t at = row.seq - first;
    if (row.seq < first || at >= leaves.size() || leaves[at] == row.leaf) continue;
    suspect = row.seq;
    break;
  }
  if (good_size() >= head.size) suspect = head.size;
  find(suspect,
       "among " + range(std::min(first, head.size), head.size) +
           " something was edited, removed or put in: they do not give the root that was signed, and neither do "
           "the hashes that were kept of them");
  // A frontier that gives the signed root is the signed tree's own.
  if (const auto tree = Frontier::from(head.size, stored.frontier); tree && tree->root() == head.root) accept(*tree);
}

void LogCheck::name_differences(const Checkpoint& head) {
  std::uint64_t next = good_size() + 1;
  auto row = rows_.begin();
  for (std::size_t at = 0; next <= head.size; ++next, at += sizeof(Hash)) {
    while (row != rows_.end() && row->seq < next) ++row;
    const std::string_view expected = std::string_view(leaves_).substr(at, sizeof(Hash));
    if (row == rows_.end() || row->seq != next) {
      find(next, "it is missing");
    } else if (bytes_of(row->leaf) != expected) {
      const auto same = std::find_if(odd_.begin(), odd_.end(), [&](const Finding& other) { return other.seq == next; });
      const bool moved = same != odd_.end() && same->problem.starts_with("it is record ");
      find(next, moved ? same->problem : "it was edited: its bytes are not those that were signed");
    }
  }
}

/// `leaves` are those after good_. Returns whether all that lie within them agree.
bool LogCheck::compare_remembered(const std::vector<Hash>& leaves) {
  Frontier tree = good_;
  bool agree = true;
  while (!remembered_.empty() && remembered_.back().checkpoint.size <= good_size() + leaves.size()) {
    const Remembered remembered = remembered_.back();
    remembered_.pop_back();
    // A size below good_ was compared with an earlier batch, or is 0.
    while (tree.size() < remembered.checkpoint.size) tree.append(leaves[tree.size() - good_size()]);
    if (tree.size() != remembered.checkpoint.size || tree.root() == remembered.checkpoint.root) continue;
    agree = false;
    find(remembered.checkpoint.size, "the log up to here is not the one of " + remembered.whose +
                                         ": it was rolled back or replaced, and then continued");
  }
  return agree;
}

Report LogCheck::finish() {
  if (whole_) {
    compare_remembered(leaves_of_rows());
    for (const Finding& finding : odd_) find(finding.seq, finding.problem);
  } else {
    find(tree_.size() + 1, "it is missing, or what follows is not of this log");
  }
  for (; rotations_seen_ < rotations_.size(); ++rotations_seen_) {
    find(rotations_[rotations_seen_].seq, "the log has no key rotation here");
  }
  for (const Remembered& remembered : remembered_) {
    if (remembered.checkpoint.size <= tree_.size()) continue;
    find(tree_.size() + 1, range(tree_.size() + 1, remembered.checkpoint.size) + " of " + remembered.whose +
                               (remembered.checkpoint.size == tree_.size() + 1 ? " is" : " are") +
                               " missing: the log was cut off or rolled back");
  }
  if (report_.checkpoints == 0 && report_.records > 0) find(last_seq_, "no checkpoint covers any record");
  return std::move(report_);
}

}  // namespace kai::audit
