// Documents of kaid taken apart for a person: members that may be missing, and every string escaped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace kai {

using Json = nlohmann::ordered_json;

/// Discarded: not JSON, or nested deeper than a printer should follow.
Json parse_document(std::string_view text);

/// Never throws: bytes that are no UTF-8 become U+FFFD.
std::string dump(const Json& value, int indent = -1);

/// Null where it is missing, or `object` is none.
Json member(const Json& object, std::string_view key);

/// A member as escaped text; missing or null: "".
std::string text_of(const Json& object, std::string_view key);

/// Whether a member is there and true.
bool is_true(const Json& object, std::string_view key);

/// A member of milliseconds as a readable duration; missing: "".
std::string duration_of(const Json& object, std::string_view key);

/// ["cgroup","disk"] as "cgroup, disk"; empty: "".
std::string joined(const Json& list);

/// "oom (SIGKILL): over 512 MB"; of what is none: "".
std::string last_end_text(const Json& end);
/// Of a quarantine record: recoveries that may still be tried without --force.
std::int64_t retries_left(const Json& record);
/// "1 of 3 failed, 2 left".
std::string recoveries_text(const Json& record);

}  // namespace kai
