// Text that crosses a trust border: checked as UTF-8, and escaped before an operator's terminal sees it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kai {

/// Whether `bytes` is well-formed UTF-8 (RFC 3629: no overlong forms, surrogates or code points over U+10FFFF).
bool is_utf8(std::string_view bytes);

/// `bytes` with everything escaped that could move a cursor, start a new line or turn text around: C0 and C1 controls,
/// DEL, line and paragraph separators, bidirectional and zero-width format characters, and bytes that are not UTF-8.
/// They become \n \t \r \e \xNN or \u{NNNN}; a backslash stays as it is (this is for reading, not for parsing back).
std::string escape_for_terminal(std::string_view bytes);

/// Appends `bytes` as a JSON string with its quotes. It reads back as it was, but for bytes that are not UTF-8: they
/// become the text \xNN. Whatever could drive a terminal stands as \uNNNN, so that even the raw JSON is safe to look
/// at.
void append_json_string(std::string& out, std::string_view bytes);

/// At most `limit` bytes of `text`, cut between characters.
std::string_view clip_utf8(std::string_view text, std::size_t limit);

/// Agent ids of contracts.md: [A-Za-z0-9][A-Za-z0-9._-]{0,63}, and none of the reserved kaid, operator, topic.
bool is_agent_id(std::string_view id);

/// Now, UTC, with milliseconds: 2026-05-04T13:00:00.000Z.
std::string iso_now();
/// Milliseconds since the Unix epoch as that same format.
std::string iso_time(std::int64_t unix_ms);
/// Milliseconds since the epoch.
std::int64_t unix_ms();
/// Milliseconds of CLOCK_MONOTONIC, for durations.
std::int64_t monotonic_ms();

/// A fresh UUIDv7 (RFC 9562), lower case.
std::string new_uuid();

}  // namespace kai
