// `audit verify` of the stored log: the whole of it, read beside the one who writes it.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "audit/report.h"
#include "base/result.h"

namespace kai {

struct AuditCheck {
  std::string directory;   ///< STATE/audit
  std::string public_key;  ///< audit::PublicKey::text
  struct Remembered {
    std::string note, whose;
  };
  std::vector<Remembered> remembered;  ///< what the log has to contain
};

struct AuditCheckResult {
  audit::Report report;
  std::uint64_t last_seq = 0;  ///< of the last record that stands there, signed or not
};

/// Takes seconds for millions of records; `done` counts them. What is wrong with the log is in the report, a database
/// that cannot be read to its end too.
Result<AuditCheckResult> check_stored_audit(const AuditCheck& check, std::atomic<std::uint64_t>& done);

}  // namespace kai
