#include "agent-host/health.h"

#include <optional>

#include "agent-host/json_text.h"
#include "agent-host/limits.h"
#include "agent-host/timestamp.h"
#include "base/text.h"

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

void append_error(std::string& out, std::string_view type, double count, std::int64_t last, std::string_view message) {
  out += '{';
  append_name(out, "type");
  append_json_string(out, clip_utf8(type, kMaxHealthTextBytes));
  append_name(out, "count");
  append_json_number(out, count);
  append_name(out, "lastOccurrence");
  append_json_string(out, iso_time(last));
  append_name(out, "message");
  append_json_string(out, clip_utf8(message, kMaxHealthTextBytes));
  out += '}';
}

/// The first kMaxHealthErrors well-formed ErrorSummary entries; false: there were others.
bool append_errors(std::string& out, const JsonView& errors) {
  if (!errors.is_array()) return false;
  std::size_t kept = 0;
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
    if (kept == kMaxHealthErrors) return false;
    if (kept++ > 0) out += ',';
    append_error(out, *type, *count, *last, message.value_or(""));
  }
  return whole;
}

std::string assemble(std::string_view status, const HealthBasis& basis, std::optional<double> memory,
                     std::optional<double> cpu, std::string_view errors) {
  std::string json = "{";
  append_name(json, "status");
  append_json_string(json, status);
  append_name(json, "uptime");
  append_json_number(json, static_cast<double>(basis.uptime_ms));
  if (memory) {
    append_name(json, "memoryUsage");
    append_json_number(json, *memory);
  }
  if (cpu) {
    append_name(json, "cpuUsage");
    append_json_number(json, *cpu);
  }
  append_name(json, "lastActivity");
  append_json_string(json, iso_time(basis.last_activity_ms));
  append_name(json, "errors");
  json += '[';
  json += errors;
  json += "]}";
  return json;
}

}  // namespace

std::string rebuilt_health(const JsonView& given, const HealthBasis& basis) {
  Reader reader{given, !given.is_object()};
  std::string status = reader.text("status").value_or("");
  HealthBasis times = basis;
  if (const auto uptime = reader.number("uptime")) times.uptime_ms = static_cast<std::int64_t>(*uptime);
  if (const auto last = reader.time("lastActivity")) times.last_activity_ms = *last;
  const auto memory = reader.number("memoryUsage");
  const auto cpu = reader.number("cpuUsage");
  std::string errors;
  if (const auto list = reader.get("errors"); list && !append_errors(errors, *list)) reader.faulty = true;
  if ((status != "healthy" && status != "critical") || (reader.faulty && status == "healthy")) status = "warning";
  return assemble(status, times, memory, cpu, errors);
}

std::string failed_health(const std::string& error_name, const std::string& message, const HealthBasis& basis) {
  std::string errors;
  append_error(errors, error_name.empty() ? "Error" : error_name, 1, unix_ms(), message);
  return assemble("critical", basis, std::nullopt, std::nullopt, errors);
}

std::string basic_health(const HealthBasis& basis) {
  return assemble("healthy", basis, std::nullopt, std::nullopt, "");
}

}  // namespace kai
