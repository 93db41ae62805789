#include "supervisor/memory/dump_fields.h"

#include <span>

#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/json_check.h"
#include "base/text.h"

namespace kai {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

/// Where the string that begins at `at` ends, behind its quote.
std::size_t string_end(std::string_view text, std::size_t at) {
  for (++at; text[at] != '"'; ++at) {
    if (text[at] == '\\') ++at;
  }
  return at + 1;
}

}  // namespace

std::string_view trim_json(std::string_view json) {
  const std::size_t first = json.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return json.substr(first, json.find_last_not_of(kSpace) - first + 1);
}

std::size_t json_value_end(std::string_view text, std::size_t at) {
  for (std::size_t depth = 0;; ++at) {
    switch (text[at]) {
      case '"':
        at = string_end(text, at) - 1;
        break;
      case '{':
      case '[':
        ++depth;
        break;
      case '}':
      case ']':
        if (depth == 0) return at;
        --depth;
        break;
      case ',':
        if (depth == 0) return at;
        break;
      default:
        break;
    }
  }
}

std::optional<std::string> text_in(std::string_view json) {
  json = trim_json(json);
  if (!json.starts_with('"')) return std::nullopt;
  if (json.find('\\') == std::string_view::npos) return std::string(json.substr(1, json.size() - 2));
  const auto parsed = nlohmann::json::parse(json, nullptr, false);  // refuses lone surrogates
  if (!parsed.is_string()) return std::nullopt;
  return parsed.get<std::string>();
}

std::optional<std::string> bytes_in(std::string_view json) {
  const auto text = text_in(json);
  return text ? decode_base64(*text) : std::nullopt;
}

DumpFields::DumpFields(std::string_view object) {
  std::size_t at = object.find('{') + 1;
  while (true) {
    at = object.find_first_not_of(kSpace, at);
    if (object[at] != '"') return;  // the end of an empty one
    const std::size_t name_end = string_end(object, at);
    const std::size_t colon = object.find(':', name_end);
    const std::size_t end = json_value_end(object, colon + 1);
    if (count_ == members_.size()) {
      wrong("it has more members than any line of exported memory");
      return;
    }
    members_[count_++] = {object.substr(at + 1, name_end - at - 2), object.substr(colon + 1, end - colon - 1)};
    if (object[end] != ',') return;
    at = end + 1;
  }
}

std::string_view DumpFields::first() const {
  return count_ == 0 ? std::string_view() : members_[0].name;
}

std::optional<std::string_view> DumpFields::take(std::string_view name) {
  for (Member& member : std::span(members_).first(count_)) {
    if (member.name != name || member.name.data() == nullptr) continue;
    member.name = {};  // a second one of that name is left over
    return member.value;
  }
  return std::nullopt;
}

bool DumpFields::flag(std::string_view name) {
  const std::string_view json = trim_json(take(name).value_or(""));
  if (json != "true" && json != "false") wrong(std::string(name) + " is not there, or neither true nor false");
  return json == "true";
}

std::string DumpFields::bytes(std::string_view name) {
  return kept(name, bytes_in(take(name).value_or("")));
}

std::string DumpFields::text(std::string_view name) {
  const auto json = take(name);
  return json ? kept(name, text_in(*json)) : bytes(std::string(name) + "Base64");
}

std::string DumpFields::json(std::string_view name) {
  if (const auto inline_json = take(name)) return std::string(*inline_json);
  std::string json = bytes(std::string(name) + "JsonBase64");
  if (!is_json(json)) wrong(std::string(name) + " is no JSON");
  return json;
}

void DumpFields::wrong(std::string problem) {
  if (problem_.empty()) problem_ = std::move(problem);
}

std::string DumpFields::problem() {
  for (const Member& member : std::span(members_).first(count_)) {
    if (member.name.data() == nullptr) continue;
    wrong("the member " + escape_for_terminal(clip_utf8(member.name, 64)) + " does not belong there");
  }
  return problem_;
}

std::string DumpFields::kept(std::string_view name, std::optional<std::string> value) {
  if (!value) wrong(std::string(name) + " is not there, or not written as it should be");
  return std::move(value).value_or("");
}

}  // namespace kai
