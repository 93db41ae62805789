#include "base/timestamp.h"

#include <array>

namespace kai {
namespace {

/// Takes exactly `count` digits, then `after` (unless it is 0), from the front of `text`; -1 where they are not there.
int take_digits(std::string_view& text, std::size_t count, char after) {
  if (text.size() < count + (after != 0 ? 1 : 0)) return -1;
  int value = 0;
  for (std::size_t at = 0; at < count; ++at) {
    if (text[at] < '0' || text[at] > '9') return -1;
    value = value * 10 + (text[at] - '0');
  }
  if (after != 0 && text[count] != after) return -1;
  text.remove_prefix(count + (after != 0 ? 1 : 0));
  return value;
}

/// Days from 1970-01-01 to a day of the proleptic Gregorian calendar.
std::int64_t days_since_epoch(int year, int month, int day) {
  constexpr std::array<int, 12> kDaysBefore = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
  const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  const int past = year - 1;  // leap days of whole years before this one
  const std::int64_t leap_days = past / 4 - past / 100 + past / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
  return (year - 1970) * std::int64_t{365} + leap_days + kDaysBefore[static_cast<std::size_t>(month - 1)] +
         (leap && month > 2 ? 1 : 0) + day - 1;
}

/// The fraction of a second in milliseconds; -1: a point without digits.
int take_fraction(std::string_view& text) {
  if (text.empty() || text.front() != '.') return 0;
  text.remove_prefix(1);
  int ms = 0;
  int digits = 0;
  for (; !text.empty() && text.front() >= '0' && text.front() <= '9'; text.remove_prefix(1)) {
    if (digits++ < 3) ms = ms * 10 + (text.front() - '0');
  }
  if (digits == 0) return -1;
  for (; digits < 3; ++digits) ms *= 10;
  return ms;
}

std::optional<int> take_offset_minutes(std::string_view text) {
  if (text == "Z") return 0;
  if (text.empty() || (text.front() != '+' && text.front() != '-')) return std::nullopt;
  const int sign = text.front() == '-' ? -1 : 1;
  text.remove_prefix(1);
  const int hours = take_digits(text, 2, ':');
  const int minutes = take_digits(text, 2, 0);
  if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59 || !text.empty()) return std::nullopt;
  return sign * (hours * 60 + minutes);
}

}  // namespace

std::optional<std::int64_t> parse_iso_time(std::string_view text) {
  const int year = take_digits(text, 4, '-');
  const int month = take_digits(text, 2, '-');
  const int day = take_digits(text, 2, 'T');
  const int hour = take_digits(text, 2, ':');
  const int minute = take_digits(text, 2, ':');
  const int second = take_digits(text, 2, 0);
  if (year < 1970 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 || hour > 23 || minute < 0 ||
      minute > 59 || second < 0 || second > 60) {
    return std::nullopt;
  }
  const int ms = take_fraction(text);
  const auto offset = take_offset_minutes(text);
  if (ms < 0 || !offset) return std::nullopt;
  const std::int64_t seconds =
      days_since_epoch(year, month, day) * 86400 + hour * 3600 + (minute - *offset) * 60 + second;
  return seconds * 1000 + ms;
}

}  // namespace kai
