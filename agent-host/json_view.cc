#include "agent-host/json_view.h"

#include <charconv>
#include <cstddef>
#include <vector>

#include <nlohmann/json.hpp>

#include "agent-host/limits.h"

namespace kai {
namespace {

/// nlohmann's SAX interface: accepts everything but depth, and keeps the last scalar for the one who asked for it.
class Checker {
 public:
  std::string text;
  double number = 0;

  bool null() { return true; }
  bool boolean(bool) { return true; }
  bool number_integer(std::int64_t value) {
    number = static_cast<double>(value);
    return true;
  }
  bool number_unsigned(std::uint64_t value) {
    number = static_cast<double>(value);
    return true;
  }
  bool number_float(double value, const std::string&) {
    number = value;
    return true;
  }
  bool string(std::string& value) {
    if (keep_text_) text = std::move(value);
    return true;
  }
  bool binary(std::vector<std::uint8_t>&) { return false; }  // not JSON
  bool start_object(std::size_t) { return ++depth_ <= kMaxJsonDepth; }
  bool start_array(std::size_t) { return ++depth_ <= kMaxJsonDepth; }
  bool key(std::string&) { return true; }
  bool end_object() {
    --depth_;
    return true;
  }
  bool end_array() {
    --depth_;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) { return false; }

  explicit Checker(bool keep_text) : keep_text_(keep_text) {}

 private:
  bool keep_text_;
  int depth_ = 0;
};

bool check(std::string_view text, Checker& checker) {
  // The parser takes a NUL for the end of its input, and skips a byte order mark: both would make its idea of the text
  // another one than ours.
  if (text.empty() || text.find('\0') != std::string_view::npos || text.front() == '\xEF') return false;
  return nlohmann::json::sax_parse(text.data(), text.data() + text.size(), &checker);
}

// What follows relies on check(): brackets match, strings end.

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

std::string_view skip_space(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  return text;
}

std::size_t string_length(std::string_view text) {
  for (std::size_t at = 1; at < text.size(); ++at) {
    if (text[at] == '\\') {
      ++at;
    } else if (text[at] == '"') {
      return at + 1;
    }
  }
  return text.size();
}

/// Bytes of the value that `text` begins with.
std::size_t value_length(std::string_view text) {
  if (text.front() == '"') return string_length(text);
  if (text.front() != '{' && text.front() != '[') {
    const std::size_t end = text.find_first_of(",]} \t\r\n");
    return end == std::string_view::npos ? text.size() : end;
  }
  int depth = 0;
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == '"') {
      at += string_length(text.substr(at));
      continue;
    }
    if (c == '{' || c == '[') ++depth;
    if ((c == '}' || c == ']') && --depth == 0) return at + 1;
    ++at;
  }
  return text.size();
}

std::string_view take(std::string_view& text, std::size_t length) {
  const std::string_view taken = text.substr(0, length);
  text.remove_prefix(taken.size());
  return taken;
}

}  // namespace

std::optional<JsonView> JsonView::parse(std::string_view text) {
  Checker checker(false);
  if (!check(text, checker)) return std::nullopt;
  const std::string_view rest = skip_space(text);
  return JsonView(rest.substr(0, value_length(rest)));
}

std::optional<JsonView> JsonView::member(std::string_view name) const {
  std::optional<JsonView> found;
  if (!is_object()) return found;
  for (Items items(*this); items.next();) {
    if (items.name_is(name)) found = items.value();
  }
  return found;
}

std::optional<std::string> JsonView::string() const {
  if (!is_string()) return std::nullopt;
  if (text_.find('\\') == std::string_view::npos) return std::string(text_.substr(1, text_.size() - 2));
  Checker checker(true);
  if (!check(text_, checker)) return std::nullopt;
  return std::move(checker.text);
}

std::optional<double> JsonView::number() const {
  if (text_.front() != '-' && (text_.front() < '0' || text_.front() > '9')) return std::nullopt;
  Checker checker(false);
  if (!check(text_, checker)) return std::nullopt;
  return checker.number;
}

std::optional<std::uint64_t> JsonView::unsigned_integer() const {
  std::uint64_t value = 0;
  const char* const end = text_.data() + text_.size();
  const auto [stopped, error] = std::from_chars(text_.data(), end, value);
  if (error != std::errc() || stopped != end) return std::nullopt;
  return value;
}

std::optional<bool> JsonView::boolean() const {
  if (text_ == "true") return true;
  if (text_ == "false") return false;
  return std::nullopt;
}

JsonView::Items::Items(const JsonView& container) : named_(container.is_object()) {
  if (!container.is_object() && !container.is_array()) return;
  rest_ = container.text_.substr(1, container.text_.size() - 2);
}

bool JsonView::Items::next() {
  rest_ = skip_space(rest_);
  if (!rest_.empty() && rest_.front() == ',') rest_ = skip_space(rest_.substr(1));
  if (rest_.empty()) return false;
  if (named_) {
    name_ = take(rest_, string_length(rest_));
    rest_ = skip_space(skip_space(rest_).substr(1));  // the colon
  }
  value_ = take(rest_, value_length(rest_));
  return true;
}

bool JsonView::Items::name_is(std::string_view name) const {
  if (!named_) return false;
  if (name_.find('\\') == std::string_view::npos) return name_.substr(1, name_.size() - 2) == name;
  return JsonView(name_).string() == name;
}

}  // namespace kai
