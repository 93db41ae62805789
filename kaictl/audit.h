// `kaictl audit`: the records of what happened, and whether they can be believed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "kaictl/commands.h"

namespace kai {

struct AuditListOptions {
  std::string id;  ///< empty: all
  std::optional<std::uint32_t> lines;
};
struct AuditExportOptions {
  std::string id;    ///< empty: the whole log
  std::string file;  ///< empty: standard output
};
struct AuditVerifyOptions {
  std::string id;          ///< has to have a record; the whole log is verified all the same; empty: none
  std::string file;        ///< an export; empty: kaid's own audit
  std::string key;         ///< the public key, with `file` only
  std::string checkpoint;  ///< remembered; empty: none
};
struct AuditProveOptions {
  std::string record;      ///< inclusion: the seq of a record, or an agent's id, whose newest record it is
  std::string checkpoint;  ///< consistency with this one
};

Outcome<Answer> audit_list(const Context& context, const AuditListOptions& options);
/// A file is written whole or not at all, readable by its owner only.
Outcome<Answer> audit_export(const Context& context, const AuditExportOptions& options);
/// Exit code 1 where something is found. With --file no kaid is asked.
Outcome<Answer> audit_verify(const Context& context, const AuditVerifyOptions& options);
Outcome<Answer> audit_prove(const Context& context, const AuditProveOptions& options);
/// The signed head of the log as it is now, to be remembered.
Outcome<Answer> audit_checkpoint(const Context& context);

/// A new signing key; the record that says so is signed by the old one.
Outcome<Answer> audit_rotate_key(const Context& context);

/// A report of audit/report.h in words; every string is escaped.
std::string audit_verify_text(std::string_view json);

}  // namespace kai
