// `kaictl reload`, `policy check`, `policy explain`: what the operator's policies say, and of whom.
#pragma once

#include <string>

#include "kaictl/commands.h"

namespace kai {

/// Configuration and policies are read anew; on an error nothing changes (exit code 5).
Outcome<Answer> reload(const Context& context);
/// `path`: a manifest, or a directory with manifest.json. Exit code 5 where it is invalid or refused.
Outcome<Answer> policy_check(const Context& context, const std::string& path);
/// `subject`: an agent's id, or the path of a manifest (it has a slash or ends in .json, .yaml or .yml). `connect`:
/// NAME:PORT, or empty.
Outcome<Answer> policy_explain(const Context& context, const std::string& subject, const std::string& connect);

// In words; every string is escaped.
std::string policy_check_text(std::string_view json);
/// kaid's own words, each line escaped.
std::string escaped_lines(std::string_view text);

}  // namespace kai
