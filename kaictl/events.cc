#include "kaictl/events.h"

#include <algorithm>
#include <array>

#include "base/log_line.h"
#include "base/text.h"
#include "kaictl/ask.h"
#include "kaictl/json_text.h"
#include "kaictl/records.h"

namespace kai {
namespace {

/// How much an event matters to whoever watches the stream; the rest is the ordinary course of things.
LogLevel level_of(std::string_view event) {
  static constexpr std::array<std::string_view, 2> kErrors = {"error", "kai.crashed"};
  static constexpr std::array<std::string_view, 4> kWarnings = {"quarantined", "kai.backoff", "kai.denied",
                                                                "kai.degraded"};
  static constexpr std::array<std::string_view, 2> kTraffic = {"message_received", "message_sent"};
  const auto is_one_of = [&](const auto& names) { return std::find(names.begin(), names.end(), event) != names.end(); };
  if (is_one_of(kErrors)) return LogLevel::kError;
  if (is_one_of(kWarnings)) return LogLevel::kWarn;
  return is_one_of(kTraffic) ? LogLevel::kDebug : LogLevel::kInfo;
}

/// Unescaped: append_log_line escapes.
std::string plain(const Json& value) {
  return value.is_string() ? value.get<std::string>() : dump(value);
}

void append_metadata(LogRecord& record, const Json& metadata) {
  for (const auto& [key, value] : metadata.items()) {
    if (value.is_null()) continue;
    if (key == "message" && value.is_string()) {
      record.message = value.get<std::string>();
    } else {
      record.fields.emplace_back(key, plain(value));
    }
  }
}

}  // namespace

std::string render_event(std::string_view json, bool colour) {
  const Json event = parse_document(json);
  if (!event.is_object()) return escape_for_terminal(json) + "\n";
  LogRecord record;
  for (const auto& [key, value] : event.items()) {
    if (key == "time" || key == "timestamp") {
      record.time = plain(value);
    } else if (key == "agentId") {
      record.agent = plain(value);
    } else if (key == "event") {
      record.event = plain(value);
      record.level = level_of(record.event);
    } else if (key == "metadata" && value.is_object()) {
      append_metadata(record, value);
    } else if (key == "seq" || key == "state") {
      record.fields.emplace_back(key, plain(value));
    }
  }
  std::string line;
  append_log_line(line, record, colour);
  return line + "\n";
}

Outcome<Answer> events(const Context& context, const EventsOptions& options) {
  control::Request request;
  control::Events& events = *request.mutable_events();
  events.set_id(options.id);
  events.set_follow(options.follow);
  if (options.lines || options.follow) {
    events.set_has_lines(true);
    events.set_lines(options.lines.value_or(kFollowLines));
  }
  const auto done = print_records(context, request, {"the events", options.follow, render_event});
  if (!done) return tl::unexpected(done.error());
  return Answer{"", "", warnings_of(*done)};
}

}  // namespace kai
