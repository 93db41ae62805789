#include "policies/wording.h"

#include <algorithm>

#include "base/text.h"

namespace kai {
namespace {

constexpr std::size_t kLongestShown = 64;

bool continues_character(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool same_but_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) { return lower(x) == lower(y); });
}

/// Whether one insertion, deletion, replacement or swap of neighbours makes `a` of `b`.
bool one_letter_off(std::string_view a, std::string_view b) {
  if (a.size() > b.size()) std::swap(a, b);
  if (b.size() - a.size() > 1) return false;
  std::size_t at = 0;
  while (at < a.size() && a[at] == b[at]) ++at;
  if (a.size() < b.size()) return a.substr(at) == b.substr(at + 1);
  if (a.substr(std::min(at + 1, a.size())) == b.substr(std::min(at + 1, b.size()))) return true;
  return at + 1 < a.size() && a[at] == b[at + 1] && a[at + 1] == b[at] && a.substr(at + 2) == b.substr(at + 2);
}

}  // namespace

std::string shown(std::string_view text) {
  std::size_t end = 0;
  for (std::size_t characters = 0; end < text.size(); ++end) {
    if (!continues_character(text[end]) && ++characters > kLongestShown) break;
  }
  return "\"" + escape_for_terminal(text.substr(0, end)) + (end < text.size() ? "…\"" : "\"");
}

std::size_t length_of(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return !continues_character(c); }));
}

std::optional<std::string_view> suggestion(std::string_view word, std::span<const std::string_view> words) {
  for (const std::string_view known : words) {
    if (one_letter_off(word, known) || same_but_case(word, known)) return known;
  }
  return std::nullopt;
}

bool has_control_character(std::string_view text, bool may_have_lines) {
  for (std::size_t at = 0; at < text.size(); ++at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (may_have_lines && (byte == '\n' || byte == '\t' || byte == '\r')) continue;
    if (byte < 0x20 || byte == 0x7F) return true;
    if (byte == 0xC2 && at + 1 < text.size() && static_cast<unsigned char>(text[at + 1]) < 0xA0) return true;  // C1
  }
  return false;
}

}  // namespace kai
