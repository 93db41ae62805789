#include "kaictl/quarantine.h"

#include <algorithm>
#include <array>

#include "base/text.h"
#include "kaictl/ask.h"
#include "kaictl/events.h"
#include "kaictl/json_text.h"
#include "kaictl/logs.h"
#include "kaictl/policy.h"

namespace kai {
namespace {

constexpr std::string_view kIndent = "    ";

std::string indented(std::string_view lines) {
  std::string text;
  while (!lines.empty()) {
    const std::size_t end = std::min(lines.find('\n'), lines.size());
    text.append(kIndent).append(lines.substr(0, end)).append("\n");
    lines.remove_prefix(std::min(end + 1, lines.size()));
  }
  return text;
}

/// One entry of a list of evidence: a record of the log or an event as such, anything else as key=value.
std::string entry_text(const Json& entry) {
  if (entry.is_object() && entry.contains("level")) return render_record(dump(entry), false);
  if (entry.is_object() && entry.contains("event")) return render_event(dump(entry), false);
  if (!entry.is_object()) return escaped_lines(entry.is_string() ? entry.get<std::string>() : dump(entry));
  std::string line;
  for (const auto& [key, value] : entry.items()) {
    line += (line.empty() ? "" : " ") + escape_for_terminal(key) + "=" + text_of(entry, key);
  }
  return line + "\n";
}

std::string section_text(const Json& content) {
  if (content.is_string()) return escaped_lines(content.get<std::string>());
  std::string text;
  for (const Json& entry : content.is_array() ? content : Json::array()) text += entry_text(entry);
  return text;
}

struct Section {
  const char* key;
  const char* title;
};
constexpr std::array<Section, 4> kSections = {{{"log", "last log lines"},
                                               {"denials", "what it was refused"},
                                               {"processes", "control groups and processes"},
                                               {"messages", "last messages, headers only"}}};

std::string evidence_text(const Json& evidence) {
  if (!evidence.is_object()) return "\nno evidence was kept\n";
  std::string text = "\nevidence";
  if (const std::string taken = text_of(evidence, "takenAt"); !taken.empty()) text += ", taken " + taken;
  text += "\n";
  for (const auto& [key, title] : kSections) {
    const Json content = member(evidence, key);
    const std::string missing = text_of(evidence, std::string(key) + "Missing");
    text += std::string("  ") + title;
    if (content.is_array()) text += " (" + std::to_string(content.size()) + ")";
    const std::string lines = missing.empty() ? section_text(content) : "missing: " + missing + "\n";
    text += "\n" + indented(lines.empty() ? "none\n" : lines);
  }
  return text;
}

bool names_force(const Failure& failure) {
  return failure.hint.find("--force") != std::string::npos || failure.message.find("--force") != std::string::npos;
}

/// The failure of `recover`, with the way out where kaid did not name it.
Failure with_way_out(Failure failure, const std::string& id, bool forced) {
  const bool exceeded = failure.message.find("max_retries_exceeded") != std::string::npos ||
                        failure.details_json.find("max_retries_exceeded") != std::string::npos;
  if (failure.code != "QUARANTINED" || forced || names_force(failure) || !(exceeded || failure.hint.empty())) {
    return failure;
  }
  failure.hint =
      "Look at: kaictl quarantine show " + id + "; if it is to run all the same: kaictl recover " + id + " --force";
  return failure;
}

}  // namespace

std::string quarantine_show_text(const std::string& id, std::string_view json) {
  const Json document = parse_document(json);
  const Json record = member(document, "quarantine");
  const Json evidence = member(document, "evidence");
  const Json reason = member(record, "reason");
  const std::string name = escape_for_terminal(id);
  std::string text = name + ": in quarantine since " + text_of(record, "quarantinedAt") + "\n";
  text += "  reason      " + text_of(reason, "type") + ", severity " + text_of(reason, "severity") + ": " +
          text_of(reason, "description") + "\n";
  text += "  found       " + text_of(reason, "timestamp") + "\n";
  text += "  recoveries  " + recoveries_text(record) + "\n";
  if (const std::string end = last_end_text(member(evidence, "lastEnd")); !end.empty()) {
    text += "  last end    " + end + "\n";
  }
  const std::string recover = "kaictl recover " + name;
  text += "  next        " +
          (retries_left(record) > 0
               ? "when the cause is gone, start it anew with: " + recover
               : "no recovery is left; when the cause is gone: " + recover + " --force, which the audit records") +
          "\n";
  return text + evidence_text(evidence);
}

Outcome<Answer> quarantine(const Context& context, const QuarantineOptions& options) {
  if (options.reason.empty()) return usage_failure("--reason is empty", "Say why, for whoever finds the agent later");
  control::Request request;
  control::Quarantine& quarantine = *request.mutable_quarantine();
  quarantine.set_id(options.id);
  quarantine.set_reason(options.reason);
  quarantine.set_type(options.type);
  quarantine.set_severity(options.severity);
  const auto waiting = call_options(context, "quarantine " + options.id, context.timeout.value_or(kChangeLimit));
  auto answer = ask(context, request, waiting, {}, id_document(options.id));
  const std::string name = escape_for_terminal(options.id);
  if (answer) {
    answer->text = name + ": quarantined; look at it with: kaictl quarantine show " + name +
                   ", let it out with: kaictl recover " + name + "\n";
  }
  return answer;
}

Outcome<Answer> quarantine_show(const Context& context, const std::string& id) {
  control::Request request;
  request.mutable_quarantine_show()->set_id(id);
  const auto waiting = call_options(context, "evidence of " + id, context.timeout.value_or(kLookUpLimit));
  auto answer = ask(context, request, waiting, {}, id_document(id));
  if (answer) answer->text = quarantine_show_text(id, answer->json);
  return answer;
}

Outcome<Answer> recover(const Context& context, const std::string& id, bool force) {
  const Times times = times_of(context, kChangeLimit);
  control::Request request;
  control::Recover& recover = *request.mutable_recover();
  recover.set_id(id);
  recover.set_force(force);
  recover.set_timeout_ms(times.daemon_ms);
  auto answer = ask(context, request, call_options(context, "recover " + id, times.limit), {}, id_document(id));
  if (!answer) return tl::unexpected(with_way_out(answer.error(), id, force));
  answer->text = state_text(id, "recovered", answer->json);
  return answer;
}

}  // namespace kai
