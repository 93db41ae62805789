// Reading the timestamps of KLP and of HealthStatus; base/text.h writes them.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace kai {

/// ISO 8601 date and time with Z or an offset, years 1970 to 9999 (2026-05-04T13:00:00.000Z), as milliseconds since the
/// Unix epoch. A finer fraction is cut.
std::optional<std::int64_t> parse_iso_time(std::string_view text);

}  // namespace kai
