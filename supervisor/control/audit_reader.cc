#include "supervisor/control/audit_reader.h"

#include "audit/checkpoint.h"
#include "audit/record.h"
#include "supervisor/control/audit_store.h"

namespace kai {
namespace {

constexpr unsigned kLevel = 8;  // every eighth height of the tree is stored
constexpr std::uint64_t kBlock = 1U << kLevel;
constexpr std::size_t kMaxPyramids = 64;  // 16 KiB each

std::int64_t number(std::uint64_t value) {
  return static_cast<std::int64_t>(value);
}

constexpr const char* kOfAll = "SELECT seq, 0, body FROM records WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3";
constexpr const char* kOfAgent =
    "SELECT r.seq, a.agent_seq, r.body FROM agent_records a JOIN records r ON r.seq = a.seq"
    " WHERE a.agent_id = ?4 AND a.agent_seq > ?1 AND a.seq <= ?2 ORDER BY a.agent_seq LIMIT ?3";

}  // namespace

Result<std::unique_ptr<AuditReader>> AuditReader::open(const std::string& directory) {
  auto database = Database::open_unchecked(directory + AuditFiles::kDatabase, kAuditNames, true);
  if (!database) return tl::unexpected(database.error());
  return std::unique_ptr<AuditReader>(new AuditReader(std::move(*database)));
}

Result<std::vector<AuditReader::Stored>> AuditReader::records(std::string_view agent, std::uint64_t after,
                                                              std::uint64_t up_to, std::size_t count) {
  auto select = database_->prepare(agent.empty() ? kOfAll : kOfAgent);
  if (!select) return tl::unexpected(select.error());
  (*select)->bind(1, number(after)).bind(2, number(up_to)).bind(3, number(count));
  if (!agent.empty()) (*select)->bind(4, agent);
  std::vector<Stored> records;
  for (;;) {
    const auto row = (*select)->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) return records;
    const auto seq = static_cast<std::uint64_t>((*select)->number(0));
    records.push_back({seq, static_cast<std::uint64_t>((*select)->number(1)), (*select)->text(2)});
  }
}

Result<std::uint64_t> AuditReader::last(std::string_view agent, std::uint64_t up_to) {
  auto select =
      database_->prepare(agent.empty() ? "SELECT max(seq) FROM records WHERE seq <= ?1"
                                       : "SELECT max(agent_seq) FROM agent_records WHERE agent_id = ?2 AND seq <= ?1");
  if (!select) return tl::unexpected(select.error());
  (*select)->bind(1, number(up_to));
  if (!agent.empty()) (*select)->bind(2, agent);
  const auto row = (*select)->step();
  if (!row) return tl::unexpected(row.error());
  return static_cast<std::uint64_t>(*row ? (*select)->number(0) : 0);
}

Result<AuditReader::Stored> AuditReader::record(std::uint64_t seq) {
  auto found = records("", seq - 1, seq, 1);
  if (!found) return tl::unexpected(found.error());
  if (found->empty()) return failure("read the audit", "record " + std::to_string(seq) + " is missing");
  return std::move(found->front());
}

Result<std::string> AuditReader::listed(const Stored& record, const std::string& note, std::uint64_t size) {
  auto path = audit::inclusion_path(*this, record.seq - 1, size);
  if (!path) return tl::unexpected(path.error());
  return audit::format_listed(record.body, audit::format_proof({record.seq - 1, std::move(*path), note}));
}

Result<std::vector<std::string>> AuditReader::rotations(std::uint64_t up_to) {
  struct Place {
    std::uint64_t seq, size;
    std::string note;
  };
  std::vector<Place> places;
  {
    auto select = database_->prepare(
        "SELECT r.seq, c.size, c.note FROM rotations r JOIN checkpoints c ON c.size ="
        " (SELECT min(size) FROM checkpoints WHERE size >= r.seq) WHERE r.seq <= ?1 ORDER BY r.seq");
    if (!select) return tl::unexpected(select.error());
    (*select)->bind(1, number(up_to));
    for (;;) {
      const auto row = (*select)->step();
      if (!row) return tl::unexpected(row.error());
      if (!*row) break;
      places.push_back({static_cast<std::uint64_t>((*select)->number(0)),
                        static_cast<std::uint64_t>((*select)->number(1)), (*select)->text(2)});
    }
  }
  std::vector<std::string> lines;
  for (const Place& place : places) {
    const auto rotation = record(place.seq);
    if (!rotation) return tl::unexpected(rotation.error());
    auto line = listed(*rotation, place.note, place.size);
    if (!line) return tl::unexpected(line.error());
    lines.push_back(std::move(*line));
  }
  return lines;
}

Result<audit::Hash> AuditReader::subtree(unsigned height, std::uint64_t position) {
  const unsigned level = height / kLevel;
  const unsigned above = height % kLevel;
  const std::uint64_t first = position << above;  // its leftmost at the level's own height
  const auto found = pyramid(level, first / kBlock);
  if (!found) return tl::unexpected(found.error());
  const auto& row = (**found)[above];
  const std::uint64_t at = (first % kBlock) >> above;
  if (at >= row.size()) return failure("read the audit", "hashes of the tree are missing; run kaictl audit verify");
  return row[at];
}

Result<const AuditReader::Pyramid*> AuditReader::pyramid(unsigned level, std::uint64_t block) {
  if (const auto known = pyramids_.find({level, block}); known != pyramids_.end()) return &known->second;
  auto base = level == 0 ? leaves(block) : stored_subtrees(level * kLevel, block);
  if (!base) return tl::unexpected(base.error());
  Pyramid made{std::move(*base)};
  for (unsigned above = 1; above < kLevel; ++above) {
    const std::vector<audit::Hash>& below = made.back();
    std::vector<audit::Hash> row;
    for (std::size_t at = 0; at + 1 < below.size(); at += 2) row.push_back(audit::node_hash(below[at], below[at + 1]));
    made.push_back(std::move(row));
  }
  if (pyramids_.size() >= kMaxPyramids) pyramids_.clear();
  return &(pyramids_[{level, block}] = std::move(made));
}

/// From the batches that hold them.
Result<std::vector<audit::Hash>> AuditReader::leaves(std::uint64_t block) {
  auto select = database_->prepare("SELECT size, leaves FROM checkpoints WHERE size > ?1 ORDER BY size");
  if (!select) return tl::unexpected(select.error());
  (*select)->bind(1, number(block * kBlock));
  std::vector<audit::Hash> hashes;
  while (hashes.size() < kBlock) {
    const auto row = (*select)->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) break;
    const std::string_view batch = (*select)->bytes(1);
    const std::uint64_t count = batch.size() / sizeof(audit::Hash);
    const auto begin = static_cast<std::uint64_t>((*select)->number(0)) - count;
    const std::uint64_t next = block * kBlock + hashes.size();
    if (begin > next || next - begin > count) break;
    for (std::uint64_t at = next - begin; at < count && hashes.size() < kBlock; ++at) {
      hashes.push_back(audit::hash_from(batch.substr(at * sizeof(audit::Hash), sizeof(audit::Hash))));
    }
  }
  return hashes;
}

Result<std::vector<audit::Hash>> AuditReader::stored_subtrees(unsigned height, std::uint64_t block) {
  auto select = database_->prepare(
      "SELECT position, hash FROM subtrees WHERE height = ?1 AND position >= ?2 AND position < ?3 ORDER BY position");
  if (!select) return tl::unexpected(select.error());
  (*select)->bind(1, height).bind(2, number(block * kBlock)).bind(3, number((block + 1) * kBlock));
  std::vector<audit::Hash> hashes;
  for (;;) {
    const auto row = (*select)->step();
    if (!row) return tl::unexpected(row.error());
    const bool next = *row && static_cast<std::uint64_t>((*select)->number(0)) == block * kBlock + hashes.size();
    if (!next || (*select)->bytes(1).size() != sizeof(audit::Hash)) return hashes;
    hashes.push_back(audit::hash_from((*select)->bytes(1)));
  }
}

}  // namespace kai
