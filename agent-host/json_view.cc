#include "agent-host/json_view.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdlib>

#include "agent-host/limits.h"
#include "base/json_check.h"

namespace kai {
namespace {

static_assert(kMaxJsonDepth == kMaxCheckedJsonDepth);

// What follows relies on is_json(): brackets match, strings end, escapes are whole.

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

std::string_view skip_space(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  return text;
}

std::size_t string_length(std::string_view text) {
  for (std::size_t at = text.find('"', 1); at != std::string_view::npos; at = text.find('"', at + 1)) {
    // The quote is the end unless it is escaped: an odd number of backslashes stands before it.
    std::size_t first = at;
    while (text[first - 1] == '\\') --first;
    if ((at - first) % 2 == 0) return at + 1;
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

void append_utf8(std::string& out, std::uint32_t point) {
  const auto put = [&](std::uint32_t byte) { out += static_cast<char>(static_cast<std::uint8_t>(byte)); };
  if (point < 0x80) return put(point);
  if (point < 0x800) {
    put(0xC0 | point >> 6);
  } else if (point < 0x10000) {
    put(0xE0 | point >> 12);
    put(0x80 | (point >> 6 & 0x3F));
  } else {
    put(0xF0 | point >> 18);
    put(0x80 | (point >> 12 & 0x3F));
    put(0x80 | (point >> 6 & 0x3F));
  }
  put(0x80 | (point & 0x3F));
}

/// The four digits of a \\uNNNN that `text` begins with; nullopt: it begins with something else.
std::optional<std::uint32_t> code_unit(std::string_view text) {
  if (text.size() < 6 || text[0] != '\\' || text[1] != 'u') return std::nullopt;
  std::uint32_t unit = 0;
  std::from_chars(text.data() + 2, text.data() + 6, unit, 16);
  return unit;
}

/// Takes one escape from the front of `text`; false: half of a surrogate pair, which no UTF-8 can say.
bool take_escape(std::string_view& text, std::string& out) {
  constexpr std::string_view kNames = "bfnrt";
  constexpr std::string_view kMeanings = "\b\f\n\r\t";
  const auto unit = code_unit(text);
  if (!unit) {
    const std::size_t known = kNames.find(text[1]);
    out += known == std::string_view::npos ? text[1] : kMeanings[known];
    text.remove_prefix(2);
    return true;
  }
  text.remove_prefix(6);
  if (*unit < 0xD800 || *unit > 0xDFFF) {
    append_utf8(out, *unit);
    return true;
  }
  const auto low = code_unit(text);
  if (*unit > 0xDBFF || !low || *low < 0xDC00 || *low > 0xDFFF) return false;
  text.remove_prefix(6);
  append_utf8(out, 0x10000 + ((*unit - 0xD800) << 10) + (*low - 0xDC00));
  return true;
}

}  // namespace

std::optional<JsonView> JsonView::parse(std::string_view text) {
  if (!is_json(text)) return std::nullopt;
  text = skip_space(text);
  while (is_space(text.back())) text.remove_suffix(1);
  return JsonView(text);
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
  std::string_view rest = text_.substr(1, text_.size() - 2);
  std::string decoded;
  while (!rest.empty()) {
    const std::size_t plain = std::min(rest.find('\\'), rest.size());
    decoded += rest.substr(0, plain);
    rest.remove_prefix(plain);
    if (!rest.empty() && !take_escape(rest, decoded)) return std::nullopt;
  }
  return decoded;
}

std::optional<double> JsonView::number() const {
  if (text_.front() != '-' && (text_.front() < '0' || text_.front() > '9')) return std::nullopt;
  const double value = std::strtod(std::string(text_).c_str(), nullptr);
  if (!std::isfinite(value)) return std::nullopt;
  return value;
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
