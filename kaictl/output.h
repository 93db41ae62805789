// What a command that succeeded prints for a person. The same document that -o json prints, in words: every string of
// it may have been written by an agent, so everything is escaped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kaictl/failure.h"
#include "proto/control.pb.h"

namespace kai {

/// A command's answer in both forms, with their last LF; empty text: nothing to say.
struct Answer {
  std::string text;
  std::string json;
  std::vector<std::string> warnings;  ///< for standard error, in text mode only
  int exit_code = kExitDone;          ///< a command that found something says it by this
};

/// 5120 → "5.1s", 192000 → "3m 12s", 7500000 → "2h 5m", "4d 3h".
std::string readable_duration(std::int64_t ms);
/// 900 → "900 B", 1434 → "1.4 KB", 52428800 → "50 MB"; KB = 2^10.
std::string readable_size(double bytes);

using TableRow = std::vector<std::string>;
/// Columns of equal width, a row a line. All rows have as many columns; what is in them is escaped.
std::string table(const std::vector<TableRow>& rows);

/// "  key         value", a line of a block that says what something is; nothing where there is no value.
void append_field(std::string& out, std::string_view key, const std::string& value);

/// The agents as a table.
std::string list_text(std::string_view json);
/// One agent as a block: what it does, why, and what to do next.
std::string status_text(std::string_view json);
/// "registered calendarAgent 1.0.3 …".
std::string register_text(std::string_view json);
/// "calendarAgent: running"; `done` ("started") where the document names no state.
std::string state_text(const std::string& id, std::string_view done, std::string_view json);
/// The member `name` of a document, a JSON value, or where it is bytes NAMEBase64 as it is; `pretty` for terminals.
std::string value_text(std::string_view json, const std::string& name, bool pretty);

/// A KLPMessage as it is printed: where kaid passed on the payload without reading it (payloadBase64) and it is JSON,
/// it becomes `payload`, byte for byte.
std::string message_json(std::string_view json);

/// kaid's document as one line, checked to be JSON; `fallback` where it gave none.
Outcome<std::string> checked_document(const control::Done& done, std::string fallback);

}  // namespace kai
