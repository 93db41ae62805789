// `kaictl quarantine`, `quarantine show`, `recover`: an agent out of service, why, and back.
#pragma once

#include <string>
#include <string_view>

#include "kaictl/commands.h"

namespace kai {

struct QuarantineOptions {
  std::string id;
  std::string reason;    ///< the operator's words
  std::string type;      ///< crash, resource_abuse, security_violation, manual; empty: manual
  std::string severity;  ///< low, medium, high, critical; empty: medium
};

Outcome<Answer> quarantine(const Context& context, const QuarantineOptions& options);
/// The record and the evidence.
Outcome<Answer> quarantine_show(const Context& context, const std::string& id);
/// `force`: beyond maxRetries.
Outcome<Answer> recover(const Context& context, const std::string& id, bool force);

/// A quarantine record and its evidence in words, section by section; every string is escaped.
std::string quarantine_show_text(const std::string& id, std::string_view json);

}  // namespace kai
