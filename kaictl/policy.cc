#include "kaictl/policy.h"

#include <sys/stat.h>

#include <algorithm>
#include <charconv>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/unix.h"

namespace kai {
namespace {

using Json = nlohmann::ordered_json;

constexpr Milliseconds kLimit{10'000};
constexpr std::size_t kManifestBytes = 1 << 20;

std::string text_of(const Json& object, const char* key) {
  if (!object.is_object() || !object.contains(key)) return {};
  const Json& value = object[key];
  if (value.is_string()) return escape_for_terminal(value.get<std::string>());
  return value.is_primitive() && !value.is_null() ? escape_for_terminal(value.dump()) : std::string();
}

Outcome<std::string> read_manifest(const std::string& path) {
  struct stat status {};
  const bool directory = stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
  const std::string file = directory ? path + "/manifest.json" : path;
  auto text = read_file(file, kManifestBytes);
  if (!text) return local_failure("cannot read the manifest", text.error());
  return std::move(*text);
}

bool is_path(std::string_view subject) {
  return subject.find('/') != std::string_view::npos || subject.ends_with(".json") || subject.ends_with(".yaml") ||
         subject.ends_with(".yml");
}

CallOptions options_of(const Context& context, std::string activity) {
  CallOptions options;
  options.limit = context.timeout.value_or(kLimit);
  options.activity = std::move(activity);
  options.show_progress = context.show_progress;
  return options;
}

/// NAME:PORT; [ADDRESS]:PORT too.
Outcome<> set_connect(const std::string& connect, control::PolicyExplain& request) {
  const std::size_t colon = connect.rfind(':');
  const std::string_view digits = colon == std::string::npos ? "" : std::string_view(connect).substr(colon + 1);
  unsigned port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  const bool number = error == std::errc() && end == digits.data() + digits.size();
  // kaid makes A-labels of a name in Unicode.
  const bool plain = is_utf8(connect) && std::none_of(connect.begin(), connect.end(), [](char c) {
                       return static_cast<unsigned char>(c) <= ' ' || c == 0x7f;
                     });
  if (!number || !plain || colon == 0 || port == 0 || port > 65535) {
    Failure failure;
    failure.exit_code = kExitUsage;
    failure.code = "INVALID";
    failure.message = "--connect needs NAME:PORT, as in api.example.com:443";
    return tl::unexpected(failure);
  }
  std::string name = connect.substr(0, colon);
  if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
  request.set_connect_name(name);
  request.set_connect_port(port);
  return {};
}

std::string verdict_line(const Json& item) {
  std::string line = "  " + text_of(item, "verdict");
  line.resize(std::max<std::size_t>(line.size() + 1, 12), ' ');
  line += text_of(item, "pointer");
  if (const std::string asked = text_of(item, "asked"); !asked.empty()) line += " (" + asked + ")";
  line += ": " + text_of(item, "reason");
  if (const std::string rule = text_of(item, "rule"); !rule.empty()) line += " [" + rule + "]";
  return line + "\n";
}

/// One verdict as a block; `connect`: as the operator typed it.
std::string connect_text(const std::string& connect, const Json& verdict) {
  return escape_for_terminal(connect) + ": " + text_of(verdict, "verdict") + "\n  why       " +
         text_of(verdict, "reason") + "\n  rule      " + text_of(verdict, "rule") + "\n  manifest  " +
         text_of(verdict, "pointer") + "\n";
}

}  // namespace

Outcome<Answer> reload(const Context& context) {
  control::Request request;
  request.mutable_reload();
  const auto done = call(context.socket, request, {}, options_of(context, "reload the configuration"));
  if (!done) return tl::unexpected(done.error());
  auto document = checked_document(*done, R"({"policies":[]})");
  if (!document) return tl::unexpected(document.error());
  const Json json = Json::parse(*document, nullptr, false);
  std::string names;
  for (const Json& name : json.value("policies", Json::array())) {
    names += (names.empty() ? "" : ", ") + (name.is_string() ? escape_for_terminal(name.get<std::string>()) : "");
  }
  return Answer{"reloaded; policies in force: " + names + "\n",
                std::move(*document),
                {done->warnings().begin(), done->warnings().end()}};
}

Outcome<Answer> policy_check(const Context& context, const std::string& path) {
  auto manifest = read_manifest(path);
  if (!manifest) return tl::unexpected(manifest.error());
  control::Request request;
  request.mutable_policy_check()->set_manifest(std::move(*manifest));
  const auto done = call(context.socket, request, {}, options_of(context, "check the manifest"));
  if (!done && done.error().document.empty()) return tl::unexpected(done.error());
  Answer answer;
  answer.json = done ? done->json() : done.error().document;
  answer.text = policy_check_text(answer.json);
  answer.exit_code = done ? kExitDone : done.error().exit_code;
  return answer;
}

Outcome<Answer> policy_explain(const Context& context, const std::string& subject, const std::string& connect) {
  control::Request request;
  control::PolicyExplain& explain = *request.mutable_policy_explain();
  if (is_path(subject)) {
    auto manifest = read_manifest(subject);
    if (!manifest) return tl::unexpected(manifest.error());
    explain.set_manifest(std::move(*manifest));
  } else {
    explain.set_id(subject);
  }
  if (!connect.empty()) {
    if (auto set = set_connect(connect, explain); !set) return tl::unexpected(set.error());
  }
  const auto done = call(context.socket, request, {}, options_of(context, "explain " + subject));
  if (!done) return tl::unexpected(done.error());
  auto document = checked_document(*done, "{}");
  if (!document) return tl::unexpected(document.error());
  Answer answer;
  answer.text =
      connect.empty() ? escaped_lines(done->text()) : connect_text(connect, Json::parse(*document, nullptr, false));
  answer.json = std::move(*document);
  return answer;
}

std::string escaped_lines(std::string_view text) {
  std::string lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    lines += escape_for_terminal(text.substr(0, end)) + "\n";
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

std::string policy_check_text(std::string_view json) {
  const Json check = Json::parse(json, nullptr, false);
  std::string text = text_of(check, "result");
  if (const std::string policy = text_of(check, "policy"); !policy.empty()) text += " under policy " + policy;
  text += "\n";
  for (const Json& error : check.value("errors", Json::array())) {
    const std::string pointer = text_of(error, "pointer");
    text += "  error     " + (pointer.empty() ? "document" : pointer) + ": " + text_of(error, "message") + "\n";
  }
  for (const Json& item : check.value("items", Json::array())) text += verdict_line(item);
  return text;
}

}  // namespace kai
