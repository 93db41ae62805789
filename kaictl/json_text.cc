#include "kaictl/json_text.h"

#include <algorithm>

#include "base/text.h"
#include "kaictl/output.h"

namespace kai {
namespace {

// Printing a document goes as deep as it nests; what an agent nests deeper than this is shown as it came.
constexpr int kMaxDepth = 128;

bool too_deep(std::string_view json) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t at = 0; at < json.size(); ++at) {
    const char c = json[at];
    if (in_string && c == '\\') {
      ++at;
    } else if (c == '"') {
      in_string = !in_string;
    } else if (!in_string && (c == '[' || c == '{')) {
      if (++depth > kMaxDepth) return true;
    } else if (!in_string && (c == ']' || c == '}')) {
      --depth;
    }
  }
  return false;
}

}  // namespace

Json parse_document(std::string_view text) {
  return too_deep(text) ? Json(Json::value_t::discarded) : Json::parse(text, nullptr, false);
}

std::string dump(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

std::string text_of(const Json& object, std::string_view key) {
  if (!object.is_object()) return {};
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return {};
  return escape_for_terminal(found->is_string() ? found->get_ref<const std::string&>() : dump(*found));
}

Json member(const Json& object, std::string_view key) {
  if (!object.is_object()) return {};
  const auto found = object.find(key);
  return found == object.end() ? Json() : *found;
}

bool is_true(const Json& object, std::string_view key) {
  const Json value = member(object, key);
  return value.is_boolean() && value.get<bool>();
}

std::string duration_of(const Json& object, std::string_view key) {
  const Json value = member(object, key);
  return value.is_number() ? readable_duration(static_cast<std::int64_t>(value.get<double>())) : std::string();
}

std::string joined(const Json& list) {
  std::string text;
  if (!list.is_array()) return text;
  for (const Json& item : list) {
    if (!text.empty()) text += ", ";
    text += escape_for_terminal(item.is_string() ? item.get_ref<const std::string&>() : dump(item));
  }
  return text;
}

std::int64_t retries_left(const Json& record) {
  const auto number = [&](std::string_view key) {
    const Json value = member(record, key);
    return value.is_number_integer() ? value.get<std::int64_t>() : 0;
  };
  return std::max<std::int64_t>(number("maxRetries") - number("retryCount"), 0);
}

std::string recoveries_text(const Json& record) {
  return text_of(record, "retryCount") + " of " + text_of(record, "maxRetries") + " failed, " +
         std::to_string(retries_left(record)) + " left";
}

std::string last_end_text(const Json& end) {
  std::string text = text_of(end, "cause");
  if (text.empty()) return text;
  const std::string signal = text_of(end, "signal");
  const std::string code = text_of(end, "exitCode");
  if (!signal.empty()) {
    text += " (" + signal + ")";
  } else if (!code.empty()) {
    text += " (exit code " + code + ")";
  }
  if (const std::string message = text_of(end, "message"); !message.empty()) text += ": " + message;
  return text;
}

}  // namespace kai
