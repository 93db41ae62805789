#include "base/json_check.h"

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/text.h"

namespace kai {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_hex(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/// Whether the next eight bytes are there and go on a string: no control character, quote or backslash among them.
bool eight_plain(std::string_view text) {
  constexpr std::uint64_t kOnes = 0x0101010101010101U;
  constexpr std::uint64_t kHighs = 0x8080808080808080U;
  std::uint64_t word = 0;
  if (text.size() < sizeof word) return false;
  std::memcpy(&word, text.data(), sizeof word);
  // The classic test for a byte below a limit (0 to 128) in a word; equal to c is below 1 after an exclusive or with c.
  const auto below = [](std::uint64_t bytes, std::uint64_t limit) { return (bytes - kOnes * limit) & ~bytes & kHighs; };
  return (below(word, 0x20) | below(word ^ (kOnes * '"'), 1) | below(word ^ (kOnes * '\\'), 1)) == 0;
}

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  bool whole() {
    while (true) {
      if (!value()) return false;
      if (!after_value()) return false;
      if (done_) return true;
    }
  }

 private:
  enum Container : bool { kArray = false, kObject = true };

  // A scalar, or the opening of containers down to the first scalar or empty container.
  bool value() {
    while (true) {
      space();
      if (at_ == text_.size()) return false;
      const char c = text_[at_];
      if (c == '"') return string();
      if (c == 't') return literal("true");
      if (c == 'f') return literal("false");
      if (c == 'n') return literal("null");
      if (c != '{' && c != '[') return number();
      if (depth_ == kMaxCheckedJsonDepth) return false;
      ++at_;
      stack_[depth_++] = c == '{';
      space();
      if (peek(c == '{' ? '}' : ']')) return true;  // empty: after_value() closes it
      if (c == '{' && !key()) return false;
    }
  }

  // Closes what ends here, and goes to where the next value starts.
  bool after_value() {
    while (true) {
      space();
      if (depth_ == 0) {
        done_ = true;
        return at_ == text_.size();
      }
      const bool object = stack_[depth_ - 1];
      if (peek(object ? '}' : ']')) {
        ++at_;
        --depth_;
        continue;
      }
      if (!take(',')) return false;
      space();
      return !object || key();
    }
  }

  bool key() {
    space();
    if (!peek('"') || !string()) return false;
    space();
    return take(':');
  }

  bool string() {
    for (++at_; at_ < text_.size(); ++at_) {
      while (eight_plain(text_.substr(at_))) at_ += 8;
      if (at_ == text_.size()) return false;
      const char c = text_[at_];
      if (c == '"') return ++at_, true;
      if (static_cast<unsigned char>(c) < 0x20) return false;
      if (c == '\\' && !escape()) return false;
    }
    return false;
  }

  bool escape() {
    if (++at_ == text_.size()) return false;
    if (text_[at_] != 'u') return std::string_view("\"\\/bfnrt").find(text_[at_]) != std::string_view::npos;
    for (int digit = 0; digit < 4; ++digit) {
      if (++at_ == text_.size() || !is_hex(text_[at_])) return false;
    }
    return true;
  }

  bool number() {
    if (peek('-')) ++at_;
    if (peek('0')) {
      ++at_;
    } else if (!digits()) {
      return false;
    }
    if (take('.') && !digits()) return false;
    if (peek('e') || peek('E')) {
      ++at_;
      if (peek('+') || peek('-')) ++at_;
      return digits();
    }
    return true;
  }

  bool digits() {
    const std::size_t start = at_;
    while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
    return at_ > start;
  }

  bool literal(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  void space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) {
      ++at_;
    }
  }
  [[nodiscard]] bool peek(char c) const { return at_ < text_.size() && text_[at_] == c; }
  bool take(char c) {
    if (!peek(c)) return false;
    ++at_;
    return true;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::bitset<kMaxCheckedJsonDepth> stack_;  // true: an object
  unsigned depth_ = 0;
  bool done_ = false;
};

}  // namespace

bool is_json(std::string_view text) {
  return is_utf8(text) && Scanner(text).whole();
}

bool is_json_object(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\n\r");
  return first != std::string_view::npos && text[first] == '{' && is_json(text);
}

}  // namespace kai
