// Why an agent is out of service, and how often its recovery may be tried (the spec's QuarantineReason and
// QuarantineRecord). Values only: the registry keeps them, agent.h acts on them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "policies/policy.h"

namespace kai {

enum class QuarantineType { kCrash, kResourceAbuse, kSecurityViolation, kManual };
enum class Severity { kLow, kMedium, kHigh, kCritical };
std::string_view to_string(QuarantineType type);
std::string_view to_string(Severity severity);
/// nullopt: no such word.
std::optional<QuarantineType> quarantine_type(std::string_view name);
std::optional<Severity> severity(std::string_view name);

struct QuarantineReason {
  QuarantineType type = QuarantineType::kManual;
  Severity severity = Severity::kMedium;
  std::string description;  ///< a sentence
  std::string timestamp;    ///< when it was found: ISO 8601, UTC
};

struct QuarantineRecord {
  QuarantineReason reason;
  std::string quarantined_at;     ///< ISO 8601, UTC
  std::uint32_t retry_count = 0;  ///< recoveries that failed
  std::uint32_t max_retries = 0;
  std::string evidence;  ///< file name below STATE/quarantine; empty: none was kept (yet)

  [[nodiscard]] bool retries_left() const { return retry_count < max_retries; }
};

std::uint32_t max_retries(const QuarantineRules& rules, Severity severity);

/// contracts.md's shape of status.quarantine, with the agent's id and the evidence's file name.
std::string to_json(const QuarantineRecord& record, std::string_view agent);
/// The same text back.
Result<QuarantineRecord> parse_quarantine(std::string_view json);

}  // namespace kai
