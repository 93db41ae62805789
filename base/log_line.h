// One record of the log, and the line that an operator reads. kaid (standard error) and kaictl (logs) share it, so that
// the same record looks the same everywhere. No JSON here: whoever has a record as JSON takes it apart first.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kai {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

/// debug, info, warn, error: as in records, `logLevel:` and the SDKs.
std::string_view log_level_name(LogLevel level);
std::optional<LogLevel> parse_log_level(std::string_view name);

/// Every string may hold anything that an agent wrote: rendering escapes it.
struct LogRecord {
  std::string time;  ///< as iso_time gives it; empty leaves the column out (the journal has its own)
  LogLevel level = LogLevel::kInfo;
  std::string agent;  ///< an id, or kaid for the supervisor itself
  std::string event;
  std::string message;
  std::vector<std::pair<std::string, std::string>> fields;
};

/// Appends `time level agent event key=value... message`, without a line feed, whatever the record holds: one line that
/// moves no cursor and turns no text around (escape_for_terminal). `colour`: ANSI SGR codes of our own are added.
/// A value with a space, a quote, an equals sign or nothing in it stands in double quotes.
void append_log_line(std::string& out, const LogRecord& record, bool colour);

}  // namespace kai
