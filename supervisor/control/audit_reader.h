// Reads STATE/audit beside the one who writes it, on threads of the pool: records with their proofs, for list, export
// and prove. Each call reads for itself, so that a client that reads slowly holds nothing up; what is below a
// checkpoint does not change any more.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "audit/proof.h"
#include "supervisor/database/database.h"

namespace kai {

class AuditReader : public audit::HashSource {
 public:
  static Result<std::unique_ptr<AuditReader>> open(const std::string& directory);

  struct Stored {
    std::uint64_t seq = 0, agent_seq = 0;
    std::string body;
  };
  /// Records of `agent` (empty: all) whose number there (agentSeq; seq for all) is above `after`, of the first `up_to`
  /// of the log, at most `count`.
  Result<std::vector<Stored>> records(std::string_view agent, std::uint64_t after, std::uint64_t up_to,
                                      std::size_t count);
  /// The highest such number; 0: none.
  Result<std::uint64_t> last(std::string_view agent, std::uint64_t up_to);
  /// The listed line of a record under the checkpoint `note` over `size` records.
  Result<std::string> listed(const Stored& record, const std::string& note, std::uint64_t size);
  /// Listed records kai.key_rotated, each below the first checkpoint over it.
  Result<std::vector<std::string>> rotations(std::uint64_t up_to);
  Result<Stored> record(std::uint64_t seq);

  Result<audit::Hash> subtree(unsigned height, std::uint64_t position) override;

 private:
  explicit AuditReader(std::unique_ptr<Database> database) : database_(std::move(database)) {}

  /// Up to 256 neighbours of one height and the complete nodes above them.
  using Pyramid = std::vector<std::vector<audit::Hash>>;
  Result<const Pyramid*> pyramid(unsigned level, std::uint64_t block);
  Result<std::vector<audit::Hash>> leaves(std::uint64_t block);
  Result<std::vector<audit::Hash>> stored_subtrees(unsigned height, std::uint64_t block);

  std::unique_ptr<Database> database_;
  std::map<std::pair<unsigned, std::uint64_t>, Pyramid> pyramids_;
};

}  // namespace kai
