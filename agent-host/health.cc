#include "agent-host/health.h"

#include <optional>

#include "agent-host/json_text.h"
#include "agent-host/limits.h"
#include "base/text.h"
#include "base/timestamp.h"

namespace kai {
namespace {

constexpr double kMaxNumber = 1e15;  // beyond every duration, size and count that can be true

/// A field that is absent or null is no fault; one of the wrong type or range is.
struct Reader {
  const JsonView& object;
  bool faulty = false;

  std::optional<JsonView> get(std::string_view name) const {
    auto value = object.member(name);
    if (value && value->is_null()) return std::nullopt;
    return value;
  }
  std::optional<double> number(std::string_view name) {
    const auto value = get(name);
    if (!value) return std::nullopt;
    const auto number = value->number();
    if (number && *number >= 0 && *number <= kMaxNumber) return number;
    faulty = true;
    return std::nullopt;
  }
  std::optional<std::string> text(std::string_view name) {
    const auto value = get(name);
    if (!value) return std::nullopt;
    auto text = value->string();
    if (!text) faulty = true;
    return text;
  }
  std::optional<std::int64_t> time(std::string_view name) {
    const auto written = text(name);
    if (!written) return std::nullopt;
    auto ms = parse_iso_time(*written);
    if (!ms) faulty = true;
    return ms;
  }
};

void add_error(klp::HealthReport& report, std::string_view type, std::uint64_t count, std::int64_t last,
               std::string_view message) {
  klp::ErrorSummary& error = *report.add_errors();
  error.set_type(std::string(clip_utf8(type, kMaxHealthTextBytes)));
  error.set_count(count);
  error.set_last_occurrence_unix_ms(last);
  error.set_message(std::string(clip_utf8(message, kMaxHealthTextBytes)));
}

/// The first kMaxHealthErrors well-formed ErrorSummary entries; false: there were others.
bool add_errors(klp::HealthReport& report, const JsonView& errors) {
  if (!errors.is_array()) return false;
  bool whole = true;
  for (JsonView::Items items(errors); items.next();) {
    const JsonView entry = items.value();
    Reader reader{entry};
    const auto type = reader.text("type");
    const auto count = reader.number("count");
    const auto last = reader.time("lastOccurrence");
    const auto message = reader.text("message");
    if (reader.faulty || !type || !count || !last) {
      whole = false;
      continue;
    }
    if (static_cast<std::size_t>(report.errors_size()) == kMaxHealthErrors) return false;
    add_error(report, *type, static_cast<std::uint64_t>(*count), *last, message.value_or(""));
  }
  return whole;
}

klp::HealthReport report_of(klp::HealthReport::Status status, const HealthBasis& basis) {
  klp::HealthReport report;
  report.set_status(status);
  report.set_uptime_ms(static_cast<std::uint64_t>(basis.uptime_ms));
  report.set_last_activity_unix_ms(basis.last_activity_ms);
  return report;
}

}  // namespace

klp::HealthReport rebuilt_health(const JsonView& given, const HealthBasis& basis) {
  Reader reader{given, !given.is_object()};
  const std::string status = reader.text("status").value_or("");
  HealthBasis times = basis;
  if (const auto uptime = reader.number("uptime")) times.uptime_ms = static_cast<std::int64_t>(*uptime);
  if (const auto last = reader.time("lastActivity")) times.last_activity_ms = *last;
  klp::HealthReport report = report_of(klp::HealthReport::WARNING, times);
  if (const auto list = reader.get("errors"); list && !add_errors(report, *list)) reader.faulty = true;
  if (status == "critical") report.set_status(klp::HealthReport::CRITICAL);
  if (status == "healthy" && !reader.faulty) report.set_status(klp::HealthReport::HEALTHY);
  return report;
}

klp::HealthReport failed_health(const FailedChecks& failed, const std::string& message, const HealthBasis& basis) {
  klp::HealthReport report = report_of(klp::HealthReport::CRITICAL, basis);
  const std::string_view type = failed.error_name.empty() ? "Error" : std::string_view(failed.error_name);
  add_error(report, type, failed.in_a_row, unix_ms(), message);
  return report;
}

klp::HealthReport basic_health(const HealthBasis& basis) {
  return report_of(klp::HealthReport::HEALTHY, basis);
}

}  // namespace kai
