// kaictl logs: which records, and how one is shown.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "kaictl/commands.h"

namespace kai {

struct LogsOptions {
  std::string id;  ///< empty: all agents and kaid itself
  bool follow = false;
  std::optional<std::uint32_t> lines;
  std::string since;  ///< as typed; empty: none
};

/// Without --follow nothing is printed before all of it came; with it each record as it comes, until a signal.
Outcome<Answer> logs(const Context& context, const LogsOptions& options);

/// --since: an RFC 3339 timestamp ("2026-05-04T13:00:00Z", "2026-05-04T15:00:00.250+02:00"), or how long ago: a number
/// with a unit of ms s m h d, several of them after another ("10m", "1h30m"). Milliseconds since the Unix epoch.
Outcome<std::int64_t> parse_since(std::string_view text, std::int64_t now_unix_ms);

/// One NDJSON record of the log as a line for a person, with its LF. What is no record is shown escaped, as it is.
std::string render_record(std::string_view json, bool colour);

}  // namespace kai
