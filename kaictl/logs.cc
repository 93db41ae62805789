#include "kaictl/logs.h"

#include <array>
#include <charconv>
#include <chrono>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/log_line.h"
#include "base/text.h"
#include "kaictl/ask.h"
#include "kaictl/records.h"

namespace kai {
namespace {

tl::unexpected<Failure> not_a_time(std::string_view text) {
  return usage_failure("--since " + std::string(text) + " is neither a timestamp nor a duration",
                       "Give one like 2026-05-04T13:00:00Z, or how long ago: 10m, 2h, 1h30m (units ms s m h d)");
}

/// Takes a number from the front of `text`; with `digits`, exactly so many of them.
std::optional<std::int64_t> take_number(std::string_view& text, std::size_t digits = 0) {
  std::int64_t value = 0;
  const std::string_view looked_at = digits == 0 ? text : text.substr(0, digits);
  const auto [end, error] = std::from_chars(looked_at.data(), looked_at.data() + looked_at.size(), value);
  const auto taken = static_cast<std::size_t>(end - looked_at.data());
  if (error != std::errc() || value < 0 || looked_at[0] == '-' || (digits != 0 && taken != digits)) return std::nullopt;
  text.remove_prefix(taken);
  return value;
}

bool take(std::string_view& text, std::string_view expected) {
  if (!text.starts_with(expected)) return false;
  text.remove_prefix(expected.size());
  return true;
}

std::optional<std::int64_t> parse_duration_ms(std::string_view text) {
  // The longest unit that matches is tried first: ms before m.
  static constexpr std::array<std::pair<std::string_view, std::int64_t>, 5> kUnits = {
      {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}, {"d", 86'400'000}}};
  constexpr std::int64_t kLongest = std::int64_t{36'500} * 86'400'000;  // a century: nothing overflows
  std::int64_t total = 0;
  if (text.empty()) return std::nullopt;
  while (!text.empty()) {
    const auto number = take_number(text);
    if (!number) return std::nullopt;
    std::int64_t unit_ms = 0;
    for (const auto& [name, ms] : kUnits) {
      if (unit_ms == 0 && take(text, name)) unit_ms = ms;
    }
    if (unit_ms == 0 || *number > kLongest / unit_ms) return std::nullopt;
    total += *number * unit_ms;
    if (total > kLongest) return std::nullopt;
  }
  return total;
}

/// "Z" or "+02:00": minutes east of UTC.
std::optional<std::int64_t> take_offset(std::string_view& text) {
  if (take(text, "Z") || take(text, "z")) return 0;
  const bool east = text.starts_with('+');
  if (!take(text, "+") && !take(text, "-")) return std::nullopt;
  const auto hours = take_number(text, 2);
  if (!hours || !take(text, ":")) return std::nullopt;
  const auto minutes = take_number(text, 2);
  if (!minutes || *hours > 23 || *minutes > 59) return std::nullopt;
  return (east ? 1 : -1) * (*hours * 60 + *minutes);
}

/// ".25" as 250; nothing there: 0.
std::optional<std::int64_t> take_fraction_ms(std::string_view& text) {
  if (!take(text, ".")) return 0;
  std::int64_t ms = 0;
  std::int64_t weight = 100;
  std::size_t digits = 0;
  for (; digits < text.size() && text[digits] >= '0' && text[digits] <= '9'; ++digits) {
    ms += (text[digits] - '0') * weight;
    weight /= 10;
  }
  text.remove_prefix(digits);
  if (digits == 0) return std::nullopt;
  return ms;
}

std::optional<std::int64_t> parse_rfc3339(std::string_view text) {
  std::array<std::int64_t, 6> part{};
  static constexpr std::array<std::size_t, 6> kDigits = {4, 2, 2, 2, 2, 2};
  static constexpr std::array<std::string_view, 6> kBefore = {"", "-", "-", "T", ":", ":"};
  for (std::size_t at = 0; at < part.size(); ++at) {
    const bool separated = take(text, kBefore[at]) || (at == 3 && (take(text, "t") || take(text, " ")));
    const auto number = separated ? take_number(text, kDigits[at]) : std::nullopt;
    if (!number) return std::nullopt;
    part[at] = *number;
  }
  const auto fraction = take_fraction_ms(text);
  if (!fraction) return std::nullopt;
  const auto offset = take_offset(text);
  const std::chrono::year_month_day date(std::chrono::year(static_cast<int>(part[0])),
                                         std::chrono::month(static_cast<unsigned>(part[1])),
                                         std::chrono::day(static_cast<unsigned>(part[2])));
  // 60: a leap second.
  if (!offset || !text.empty() || !date.ok() || part[3] > 23 || part[4] > 59 || part[5] > 60) return std::nullopt;
  const std::int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  return (((days * 24 + part[3]) * 60 + part[4] - *offset) * 60 + part[5]) * 1000 + *fraction;
}

std::string as_text(const nlohmann::ordered_json& value) {
  if (value.is_string()) return value.get<std::string>();
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace

Outcome<std::int64_t> parse_since(std::string_view text, std::int64_t now_unix_ms) {
  if (const auto ago = parse_duration_ms(text)) return now_unix_ms - *ago;
  if (const auto at = parse_rfc3339(text)) return *at;
  return not_a_time(text);
}

std::string render_record(std::string_view json, bool colour) {
  std::string line;
  const auto parsed = nlohmann::ordered_json::parse(json, nullptr, false);
  if (!parsed.is_object()) return escape_for_terminal(json) + "\n";
  LogRecord record;
  for (const auto& [key, value] : parsed.items()) {
    const std::string text = as_text(value);
    if (key == "time") {
      record.time = text;
    } else if (key == "level") {
      record.level = parse_log_level(text).value_or(LogLevel::kInfo);
    } else if (key == "agent") {
      record.agent = text;
    } else if (key == "event") {
      record.event = text;
    } else if (key == "message") {
      record.message = text;
    } else {
      record.fields.emplace_back(key, text);
    }
  }
  append_log_line(line, record, colour);
  return line + "\n";
}

namespace {

Outcome<control::Request> logs_request(const LogsOptions& options) {
  control::Request request;
  control::Logs& logs = *request.mutable_logs();
  logs.set_id(options.id);
  logs.set_follow(options.follow);
  if (!options.since.empty()) {
    const auto since = parse_since(options.since, unix_ms());
    if (!since) return tl::unexpected(since.error());
    logs.set_since_unix_ms(*since);
  }
  if (options.lines || (options.follow && options.since.empty())) {
    logs.set_has_lines(true);
    logs.set_lines(options.lines.value_or(kFollowLines));
  }
  return request;
}

}  // namespace

Outcome<Answer> logs(const Context& context, const LogsOptions& options) {
  const auto request = logs_request(options);
  if (!request) return tl::unexpected(request.error());
  const auto done = print_records(context, *request, {"the log", options.follow, render_record});
  if (!done) return tl::unexpected(done.error());
  return Answer{"", "", warnings_of(*done)};
}

}  // namespace kai
