#include "kaictl/upgrade.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <vector>

#include "base/text.h"
#include "kaictl/ask.h"
#include "kaictl/json_text.h"
#include "kaictl/package_tar.h"
#include "kaictl/progress.h"

namespace kai {
namespace {

// Each of its steps may take as long as the policy's deadlines say, and TypeScript is compiled first: as long as kaid
// shows a sign of life.
constexpr Milliseconds kUpgradeLimit{300'000};

/// "1.1.0", "1.1.0-rc.1": by its beginning, which no other name has to have.
bool is_version(std::string_view text) {
  for (int number = 0; number < 3; ++number) {
    const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    if (digits == 0) return false;
    text.remove_prefix(digits);
    if (number < 2 && !text.starts_with('.')) return false;
    if (number < 2) text.remove_prefix(1);
  }
  return text.empty() || text.front() == '-' || text.front() == '+';
}

/// Never by what lies in the working directory, where a name is that of a version: others may have put it there.
bool is_path(const std::string& target) {
  if (target.find('/') != std::string::npos || target.ends_with(".tar.gz") || target.ends_with(".tgz")) return true;
  return !is_version(target) && access(target.c_str(), F_OK) == 0;
}

/// "0.4 ms", "12 ms", "1.2s".
std::string milliseconds_text(const Json& value) {
  if (!value.is_number()) return {};
  const double ms = value.get<double>();
  if (ms >= 1000) return readable_duration(static_cast<std::int64_t>(ms));
  std::array<char, 32> text;
  static_cast<void>(std::snprintf(text.data(), text.size(), ms < 10 ? "%.1f ms" : "%.0f ms", ms));
  return text.data();
}

/// "load 12 ms, drain 0.1 ms", or of a plan "load, drain".
std::string steps_text(const Json& steps) {
  std::string text;
  for (const Json& step : steps.is_array() ? steps : Json::array()) {
    const std::string name = step.is_string() ? escape_for_terminal(step.get<std::string>()) : text_of(step, "step");
    const std::string ms = milliseconds_text(member(step, "ms"));
    text += (text.empty() ? "" : ", ") + name + (ms.empty() ? "" : " " + ms);
  }
  return text;
}

constexpr const char* kSoft = "soft: in the process that runs";
constexpr const char* kHard = "hard: in a new process";
constexpr const char* kReplaced = "it does not run: the new version is what is started next";

/// `how`: of a result, or the type of a plan.
std::string how_text(const std::string& how) {
  if (how == "soft") return kSoft;
  if (how == "hard") return kHard;
  return how == "replaced" || how == "replace" ? kReplaced : "";
}

std::string pause_text(const Json& result) {
  const std::string held = text_of(result, "messagesHeld");
  if (held.empty()) return {};
  if (held == "0") return "none: no message had to wait";
  return milliseconds_text(member(result, "pauseMs")) + ": " + held + (held == "1" ? " message" : " messages") +
         " waited, and went on";
}

std::string next_text(const Json& result) {
  std::string way_back = is_true(result, "rollbackAvailable")
                             ? "kaictl rollback " + text_of(result, "id") + " goes back to " + text_of(result, "from")
                             : "";
  const Json probation = member(result, "probationMs");
  if (!probation.is_number() || probation.get<double>() <= 0) return way_back;
  return "on probation for " + duration_of(result, "probationMs") +
         ": should it crash or fail its health check, kaid goes back by itself" +
         (way_back.empty() ? "" : "; " + way_back);
}

Outcome<Answer> change_version(const Context& context, const control::Request& request, std::span<const int> fds,
                               const std::string& activity, std::string fallback) {
  const auto waiting = call_options(context, activity, context.timeout.value_or(kUpgradeLimit));
  auto answer = ask(context, request, waiting, fds, std::move(fallback));
  if (answer) answer->text = upgrade_text(answer->json);
  return answer;
}

/// "note", its kind, where in the manifest, and what.
std::string finding_text(const Json& finding) {
  std::string text = text_of(finding, "kind");
  if (const std::string pointer = text_of(finding, "pointer"); !pointer.empty()) text += " " + pointer;
  text += ": " + text_of(finding, "message");
  if (const std::string rule = text_of(finding, "rule"); !rule.empty()) text += " (" + rule + ")";
  return text;
}

/// The findings of one weight together. How many there are.
int append_findings(std::string& out, const Json& findings, std::string_view weight, std::string_view heading) {
  int found = 0;
  for (const Json& finding : findings.is_array() ? findings : Json::array()) {
    if (text_of(finding, "weight") != weight) continue;
    append_field(out, found++ == 0 ? heading : "", finding_text(finding));
  }
  return found;
}

/// What its process cannot be given is refused of a soft upgrade only.
bool is_refused_softly(const Json& findings) {
  for (const Json& finding : findings.is_array() ? findings : Json::array()) {
    if (text_of(finding, "kind") == "soft" && text_of(finding, "weight") == "refused") return true;
  }
  return false;
}

/// After a plan that is not done. `refused`: how many findings --force does not help against.
std::string plan_next(int refused, bool not_softly, bool needs_force) {
  if (refused > (not_softly ? 1 : 0)) return "mend what is refused; --force does not help there";
  const std::string force = "where all that is meant, --force does it; the audit has who asked";
  if (not_softly) return "use --type hard" + (needs_force ? ", and " + force : "");
  return needs_force ? force : "";
}

}  // namespace

std::string upgrade_text(std::string_view json) {
  const Json result = parse_document(json);
  const bool back = text_of(result, "type") == "rollback";
  std::string text = text_of(result, "id") + ": " + (back ? "rolled back" : "upgraded") + " from " +
                     text_of(result, "from") + " to " + text_of(result, "to") + "\n";
  const std::string how = text_of(result, "how");
  append_field(text, "how", how_text(how));
  append_field(text, "why", text_of(result, "reason"));
  append_field(text, "steps", steps_text(member(result, "steps")));
  if (how != "replaced") append_field(text, "pause", pause_text(result));
  append_field(text, "backup", text_of(result, "backup"));
  append_field(text, "next", next_text(result));
  return text;
}

std::string plan_text(std::string_view json, bool forced) {
  const Json plan = parse_document(json);
  const bool allowed = is_true(plan, "allowed");
  const Json findings = member(plan, "findings");
  const bool not_softly = is_refused_softly(findings);
  std::string text = text_of(plan, "id") + ": from " + text_of(plan, "from") + " to " + text_of(plan, "to") +
                     (allowed ? " can be done" : " is not done") + "; nothing was changed\n";
  // What kind of upgrade it would be, and its steps, are those of a hard one then, which was not asked for.
  if (!not_softly) append_field(text, "how", how_text(text_of(plan, "type")));
  if (!not_softly) append_field(text, "why", text_of(plan, "why"));
  const int refused = append_findings(text, findings, "refused", "refused");
  const int needing_force = append_findings(text, findings, "needs_force", forced ? "forced" : "needs force");
  append_findings(text, findings, "note", "notes");
  if (!not_softly) append_field(text, "steps", steps_text(member(plan, "steps")));
  if (!allowed) append_field(text, "next", plan_next(refused, not_softly, needing_force > 0 && !forced));
  return text;
}

Outcome<Answer> upgrade(const Context& context, const std::string& id, const std::string& target,
                        const UpgradeOptions& options) {
  control::Request request;
  control::Upgrade& asked = *request.mutable_upgrade();
  asked.set_id(id);
  asked.set_type(options.type);
  asked.set_force(options.force);
  asked.set_no_backup(options.no_backup);
  asked.set_dry_run(options.dry_run);
  std::vector<int> fds;
  OpenedPackage package;
  if (is_path(target)) {
    const Progress progress(context.show_progress, "reading " + target);
    auto opened = open_package(target);
    if (!opened) return tl::unexpected(opened.error());
    package = std::move(*opened);
    fds.push_back(package.tar.get());
    asked.set_label(target);
    asked.set_directory(package.is_directory);
  } else {
    asked.set_version(target);
  }
  auto answer = change_version(context, request, fds, "upgrade " + id + " to " + target, id_document(id));
  if (!answer || !options.dry_run) return answer;
  answer->text = plan_text(answer->json, options.force);
  if (!is_true(parse_document(answer->json), "allowed")) answer->exit_code = kExitRefused;
  return answer;
}

Outcome<Answer> rollback(const Context& context, const std::string& id, const std::string& version) {
  control::Request request;
  request.mutable_rollback()->set_id(id);
  request.mutable_rollback()->set_version(version);
  return change_version(context, request, {}, "roll back " + id, id_document(id));
}

}  // namespace kai
