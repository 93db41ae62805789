// What is known of one change of an agent's version: while it is under way and on probation (in the registry, so that
// the next control can go on from there), and what it came to (for the operator, the log and the audit).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "supervisor/control/failure.h"

namespace kai {

/// The spec's UpgradeType.
enum class UpgradeType { kSoft, kHard, kRollback };
std::string_view to_string(UpgradeType type);

struct UpgradeStep {
  std::string name;  ///< package, check, backup, sandbox, load, drain, saveState, init, …, commit, restart
  double ms = 0;
};

/// In the registry while `to` is taking its place, or has it on probation. Absent: neither.
struct UpgradeRecord {
  enum class Phase {
    kUnderWay,   ///< `from` is active; should control end now, whichever of the two serves then stays
    kProbation,  ///< `to` is active, and taken back if it fails before `until`
    kLeaving,    ///< `to` is active for good, and the process of `from` has not ended yet
  };
  Phase phase = Phase::kUnderWay;
  UpgradeType type = UpgradeType::kSoft;
  std::string from, to;
  std::string before;                         ///< kProbation: the version before `from`; empty: none
  std::uint64_t instance = 0;                 ///< the keeper's number of the one that serves
  std::uint64_t standby = 0;                  ///< kUnderWay, hard: of the new version's; 0: there is none yet
  std::int64_t until = 0;                     ///< kProbation: Unix ms
  std::optional<std::uint32_t> operator_uid;  ///< empty: kaid itself asked
};
std::string_view to_string(UpgradeRecord::Phase phase);  ///< underWay, probation, leaving
std::string to_json(const UpgradeRecord& record);
Result<UpgradeRecord> parse_upgrade_record(std::string_view json);

/// How one came out.
struct UpgradeReport {
  std::string id, from, to;
  UpgradeType type = UpgradeType::kSoft;
  bool soft = false;               ///< in the process that ran; of a rollback its type does not say
  bool replaced = false;           ///< it did not run: its next start is of the new version
  std::optional<Failure> failure;  ///< empty: `to` serves
  std::string reason;              ///< why kaid itself did it, or did it otherwise than it was asked to; may be empty
  std::vector<UpgradeStep> steps;
  std::uint64_t messages_held = 0;  ///< that waited
  double pause_ms = 0;              ///< from the first message that waited to the first that went on
  bool forced = false;
  bool automatic = false;  ///< kaid itself took the way back
  std::string before;      ///< the version before `from`; empty: none
  bool rollback_available = false;
  std::string backup;             ///< path of its file; empty: none was made
  std::int64_t probation_ms = 0;  ///< 0: there is none
  std::optional<std::uint32_t> operator_uid;
};
/// The spec's UpgradeResult and what else is known: docs/schema/upgrade.schema.json.
std::string upgrade_document(const UpgradeReport& report, const std::vector<std::string>& warnings);
/// Of the record `upgraded`.
std::string upgrade_metadata(const UpgradeReport& report);
/// "load 12 ms, drain 0 ms, …"
std::string steps_text(const UpgradeReport& report);

}  // namespace kai
