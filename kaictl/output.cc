#include "kaictl/output.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include "base/base64.h"
#include "base/text.h"
#include "kaictl/json_text.h"

namespace kai {
namespace {

/// Characters, as columns: what an escaped text holds is one column each, wide scripts aside.
std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string or_dash(const std::string& text) {
  return text.empty() ? "-" : text;
}

std::string health_text(const Json& health) {
  std::string text = text_of(health, "status");
  if (text.empty()) return text;
  if (const std::string memory = text_of(health, "memoryUsage"); !memory.empty()) text += ", " + memory + " MB";
  if (const std::string cpu = text_of(health, "cpuUsage"); !cpu.empty()) text += ", " + cpu + " % of a core";
  if (const std::string last = text_of(health, "lastActivity"); !last.empty()) text += ", last active " + last;
  const Json errors = member(health, "errors");
  if (errors.is_array() && !errors.empty())
    text += ", " + std::to_string(errors.size()) + (errors.size() == 1 ? " kind of error" : " kinds of errors");
  return text;
}

void append_quarantine(std::string& out, const Json& record) {
  const Json reason = member(record, "reason");
  const std::string type = text_of(reason, "type");
  if (type.empty()) return;
  append_field(out, "quarantine",
               type + ", severity " + text_of(reason, "severity") + ", since " + text_of(record, "quarantinedAt") +
                   ": " + text_of(reason, "description"));
  append_field(out, "recoveries", recoveries_text(record));
}

/// Restarts that wait: "next start at T, after a pause of 4s".
std::string backoff_text(const Json& backoff) {
  std::string text = text_of(backoff, "until");
  if (!text.empty()) text = "next start at " + text;
  if (const std::string pause = duration_of(backoff, "delay"); !pause.empty()) {
    text += (text.empty() ? "" : ", after ") + ("a pause of " + pause);
  }
  return text;
}

/// What an upgrade has left to do. A probation is at most 24 hours: its end is told by the time of day.
std::string upgrade_text_of(const Json& upgrade) {
  const std::string phase = text_of(upgrade, "phase");
  const std::string from = text_of(upgrade, "from");
  const std::string to = text_of(upgrade, "to");
  if (phase == "underWay") return to + " takes the place of " + from + " (" + text_of(upgrade, "type") + ")";
  if (phase == "leaving") return to + " serves; the process of " + from + " is being stopped";
  if (phase != "probation") return {};
  std::string until = text_of(upgrade, "until");
  if (until.size() == sizeof "2026-05-04T13:00:30.000Z" - 1) until = until.substr(11, 8) + "Z";
  return to + " is on probation" + (until.empty() ? "" : " until " + until) + ", and " + from + " what it goes back to";
}

/// "0.35 of 10: /tmp 0.1, network 0.25".
std::string exposure_text(const Json& exposure) {
  std::string text = text_of(exposure, "score");
  if (text.empty()) return text;
  text += " of 10";
  const Json items = member(exposure, "items");
  const char* before = ": ";
  for (const Json& item : items.is_array() ? items : Json::array()) {
    text += before + text_of(item, "name") + " " + text_of(item, "points");
    before = ", ";
  }
  return text;
}

/// What an operator would type now.
std::string next_step(const Json& status, const std::string& id) {
  const std::string state = text_of(status, "state");
  const std::string cause = text_of(member(status, "lastEnd"), "cause");
  const bool failed = !cause.empty() && cause != "stopped" && cause != "exit";
  const std::string logs = "kaictl logs " + id;
  if (text_of(status, "status") == "quarantined") {
    const bool left = retries_left(member(status, "quarantine")) > 0;
    return "find out why with: kaictl quarantine show " + id + ", then: kaictl recover " + id +
           (left ? "" : " --force (no recovery is left)");
  }
  if (state == "backoff") return "kaid starts it again by itself; why it ended: " + logs;
  if (state == "terminated") return "begin anew with: kaictl start " + id + ", or remove it: kaictl unregister " + id;
  if (state == "registered" || state == "stopped") {
    return (failed ? "find out why it ended with: " + logs + ", then: kaictl start " : "start it with: kaictl start ") +
           id;
  }
  return {};
}

}  // namespace

void append_field(std::string& out, std::string_view key, const std::string& value) {
  if (value.empty()) return;
  constexpr std::size_t kKeyWidth = 12;
  out += "  ";
  out += key;
  out.append(kKeyWidth - std::min(key.size(), kKeyWidth), ' ');
  out += value + "\n";
}

std::string table(const std::vector<TableRow>& rows) {
  std::vector<std::size_t> widths(rows.empty() ? 0 : rows.front().size());
  for (const TableRow& row : rows) {
    for (std::size_t at = 0; at < row.size(); ++at) widths[at] = std::max(widths[at], width(row[at]));
  }
  std::string text;
  for (const TableRow& row : rows) {
    std::string line;
    for (std::size_t at = 0; at < row.size(); ++at) {
      line += row[at];
      line.append(widths[at] - width(row[at]) + 2, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string readable_duration(std::int64_t ms) {
  const std::int64_t seconds = ms / 1000;
  const auto pair = [](std::int64_t large, const char* large_unit, std::int64_t small, const char* small_unit) {
    std::string text = std::to_string(large) + large_unit;
    if (small != 0) text += " " + std::to_string(small) + small_unit;
    return text;
  };
  if (ms < 1000) return std::to_string(ms) + "ms";
  if (seconds < 60) return std::to_string(seconds) + "." + std::to_string(ms % 1000 / 100) + "s";
  if (seconds < 3600) return pair(seconds / 60, "m", seconds % 60, "s");
  if (seconds < 86400) return pair(seconds / 3600, "h", seconds % 3600 / 60, "m");
  return pair(seconds / 86400, "d", seconds % 86400 / 3600, "h");
}

std::string readable_size(double bytes) {
  static constexpr std::array<const char*, 5> kUnits = {" B", " KB", " MB", " GB", " TB"};
  std::size_t unit = 0;
  // 1023.95 and more would be printed as 1024.0.
  for (; bytes >= 1023.95 && unit + 1 < kUnits.size(); ++unit) bytes /= 1024;
  std::array<char, 32> text;
  std::snprintf(text.data(), text.size(), "%.*f", unit == 0 ? 0 : 1, bytes);
  std::string number(text.data());
  if (number.ends_with(".0")) number.resize(number.size() - 2);
  return number + kUnits[unit];
}

std::string list_text(std::string_view json) {
  const Json agents = member(parse_document(json), "agents");
  if (!agents.is_array() || agents.empty())
    return "no agents are registered; register one with: kaictl register PATH\n";
  std::string out_of_service;
  std::vector<TableRow> rows = {{"ID", "VERSION", "STATE", "UPTIME", "RESTARTS", "POLICY", "NAME"}};
  for (const Json& agent : agents) {
    std::string state = text_of(agent, "state");
    const std::string desired = text_of(agent, "desired");
    // Only what is not as the operator wants it needs a word.
    if (state == "quarantined") {
      out_of_service +=
          text_of(agent, "id") + " is in quarantine: kaictl quarantine show " + text_of(agent, "id") + "\n";
    } else if (state != desired && desired == "running") {
      state += " (should run)";
    }
    rows.push_back({text_of(agent, "id"), text_of(agent, "version"), state,
                    or_dash(text_of(agent, "uptime") == "0" ? "" : duration_of(agent, "uptime")),
                    or_dash(text_of(agent, "restarts")), or_dash(text_of(agent, "policy")), text_of(agent, "name")});
  }
  return table(rows) + out_of_service;
}

std::string status_text(std::string_view json) {
  const Json status = parse_document(json);
  const std::string id = text_of(status, "id");
  std::string text = id;
  if (const std::string version = text_of(status, "version"); !version.empty()) text += " " + version;
  text += ": " + or_dash(text_of(status, "state")) + " (" + text_of(status, "status") + ")\n";
  append_field(text, "desired", text_of(status, "desired"));
  // 0: it does not run
  if (text_of(status, "uptime") != "0") append_field(text, "uptime", duration_of(status, "uptime"));
  append_field(text, "pid", text_of(status, "pid"));
  append_field(text, "upgrade", upgrade_text_of(member(status, "upgrade")));
  append_field(text, "soft swaps", text_of(status, "softSwaps"));
  append_field(text, "health", health_text(member(status, "health")));
  const Json crashes = member(status, "crashes");
  if (const std::string count = text_of(crashes, "count"); !count.empty()) {
    append_field(text, "crashes", count + " in " + or_dash(duration_of(crashes, "window")));
  }
  append_field(text, "last end", last_end_text(member(status, "lastEnd")));
  append_field(text, "backoff", backoff_text(member(status, "backoff")));
  append_quarantine(text, member(status, "quarantine"));
  append_field(text, "policy", text_of(status, "policy"));
  append_field(text, "degraded", joined(member(status, "degraded")));
  append_field(text, "grants", joined(member(status, "grants")));
  append_field(text, "denials", text_of(status, "denials"));
  append_field(text, "exposure", exposure_text(member(status, "exposure")));
  append_field(text, "next", next_step(status, id));
  return text;
}

std::string register_text(std::string_view json) {
  const Json document = parse_document(json);
  const std::string id = text_of(document, "id");
  if (id.empty()) return "registered\n";
  std::string text = "registered " + id;
  if (const std::string version = text_of(document, "version"); !version.empty()) text += " " + version;
  if (const std::string policy = text_of(document, "policy"); !policy.empty()) text += " under policy " + policy;
  return text + "; start it with: kaictl start " + id + "\n";
}

std::string state_text(const std::string& id, std::string_view done, std::string_view json) {
  const std::string state = text_of(parse_document(json), "state");
  return escape_for_terminal(id) + ": " + (state.empty() ? std::string(done) : state) + "\n";
}

std::string message_json(std::string_view json) {
  Json message = parse_document(json);
  if (!message.is_object()) return std::string(json);
  const auto encoded = message.find("payloadBase64");
  const std::string type = text_of(message, "contentType");
  const bool is_json = type.empty() || type == "application/json";
  if (encoded == message.end() || !encoded->is_string() || !is_json) return std::string(json);
  const auto payload = decode_base64(encoded->get_ref<const std::string&>());
  if (!payload || !Json::accept(*payload)) return std::string(json);
  message.erase("payloadBase64");
  std::string text = dump(message);
  text.pop_back();
  return text + (message.empty() ? "" : ",") + "\"payload\":" + *payload + "}";
}

namespace {

bool is_plain(std::string_view lines) {
  while (!lines.empty()) {
    const std::size_t end = std::min(lines.find('\n'), lines.size());
    if (escape_for_terminal(lines.substr(0, end)) != lines.substr(0, end)) return false;
    lines.remove_prefix(std::min(end + 1, lines.size()));
  }
  return true;
}

}  // namespace

std::string value_text(std::string_view json, const std::string& name, bool pretty) {
  const Json document = parse_document(json);
  if (document.is_discarded()) return escape_for_terminal(json) + "\n";
  const Json value = member(document, name);
  if (!document.is_object() || !document.contains(name)) {
    const std::string encoded = text_of(document, name + "Base64");
    return encoded.empty() ? std::string() : encoded + "\n";
  }
  std::string_view rest;
  std::string lines = dump(value, pretty ? 2 : -1);
  // What would drive a terminal is written with JSON's own escapes, so that the text stays JSON.
  if (!is_plain(lines)) lines = value.dump(pretty ? 2 : -1, ' ', true, Json::error_handler_t::replace);
  std::string text;
  for (rest = lines; !rest.empty();) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    text += escape_for_terminal(rest.substr(0, end)) + "\n";
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return text;
}

Outcome<std::string> checked_document(const control::Done& done, std::string fallback) {
  if (done.json().empty()) return fallback;
  if (Json::accept(done.json())) return done.json();
  return fail("INTERNAL", "kaid's answer is not JSON", "Compare versions with: kaictl version");
}

}  // namespace kai
