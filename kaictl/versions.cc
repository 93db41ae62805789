#include "kaictl/versions.h"

#include <vector>

#include "base/text.h"
#include "kaictl/ask.h"
#include "kaictl/json_text.h"

namespace kai {
namespace {

std::string or_dash(const std::string& text) {
  return text.empty() ? "-" : text;
}

std::string state_of(const Json& version) {
  if (is_true(version, "active")) return "active";
  if (version.is_object() && version.contains("bad")) return "taken back";
  return is_true(version, "previous") ? "previous" : "-";
}

std::string size_of(const Json& object, std::string_view key) {
  const Json bytes = member(object, key);
  return bytes.is_number() ? readable_size(bytes.get<double>()) : "";
}

}  // namespace

std::string versions_text(std::string_view json) {
  constexpr std::size_t kHashShown = 12;  // enough to tell packages of one agent apart
  const Json document = parse_document(json);
  const Json versions = member(document, "versions");
  std::string reasons;
  std::vector<TableRow> rows = {{"VERSION", "STATE", "REGISTERED", "SIZE", "PACKAGE", "SIGNED BY"}};
  for (const Json& version : versions.is_array() ? versions : Json::array()) {
    const std::string number = text_of(version, "version");
    rows.push_back({or_dash(number), state_of(version), or_dash(text_of(version, "registeredAt")),
                    or_dash(size_of(version, "bytes")), or_dash(text_of(version, "package").substr(0, kHashShown)),
                    or_dash(text_of(version, "signer"))});
    if (const std::string bad = text_of(version, "bad"); !bad.empty()) {
      reasons.append(number).append(" was taken back: ").append(bad);
      reasons += "; it is not tried again until its package is another\n";
    }
  }
  return table(rows) + reasons;
}

std::string prune_text(std::string_view json) {
  const Json document = parse_document(json);
  const Json removed = member(document, "removed");
  std::string names;
  for (const Json& version : removed.is_array() ? removed : Json::array()) {
    const std::string name =
        version.is_string() ? escape_for_terminal(version.get<std::string>()) : text_of(version, "version");
    names += (names.empty() ? "" : ", ") + name;
  }
  const std::string id = text_of(document, "id");
  if (names.empty()) return id + ": nothing was removed\n";
  const std::string freed = size_of(document, "freedBytes");
  return id + ": removed " + names + (freed.empty() ? "" : " (" + freed + " freed)") + "\n";
}

Outcome<Answer> versions(const Context& context, const std::string& id) {
  control::Request request;
  request.mutable_versions()->set_id(id);
  const auto waiting = call_options(context, "versions of " + id, context.timeout.value_or(kLookUpLimit));
  auto answer = ask(context, request, waiting, {}, id_document(id));
  if (answer) answer->text = versions_text(answer->json);
  return answer;
}

Outcome<Answer> prune(const Context& context, const std::string& id, std::uint32_t keep) {
  control::Request request;
  request.mutable_prune()->set_id(id);
  request.mutable_prune()->set_keep(keep);
  const auto waiting = call_options(context, "prune " + id, context.timeout.value_or(kRegisterLimit));
  auto answer = ask(context, request, waiting, {}, id_document(id));
  if (answer) answer->text = prune_text(answer->json);
  return answer;
}

}  // namespace kai
