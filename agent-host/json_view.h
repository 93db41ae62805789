// JSON that an agent wrote, read without building a tree: base/json_check looks at the text once, then values are views
// into it. So a payload passes through byte for byte (no number loses digits, no key changes place), nothing is
// recursive, and a hostile line of a million empty objects costs its own length and no more.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kai {

/// One value inside text that parse() has accepted; the text has to outlive it.
class JsonView {
 public:
  /// The whole text as one value. nullopt: not JSON (RFC 8259), not UTF-8, a number beyond double, or nested deeper
  /// than kMaxJsonDepth.
  static std::optional<JsonView> parse(std::string_view text);

  /// The value's own bytes, without white space around it.
  [[nodiscard]] std::string_view text() const { return text_; }
  [[nodiscard]] bool is_object() const { return text_.front() == '{'; }
  [[nodiscard]] bool is_array() const { return text_.front() == '['; }
  [[nodiscard]] bool is_string() const { return text_.front() == '"'; }
  [[nodiscard]] bool is_null() const { return text_.front() == 'n'; }

  /// Of an object; of several with one name the last, as JavaScript and Python read it.
  [[nodiscard]] std::optional<JsonView> member(std::string_view name) const;
  /// nullopt where the value is of another type; a string also where it has half of a surrogate pair, a number where it
  /// is beyond double, an integer where its text has a fraction or exponent.
  [[nodiscard]] std::optional<std::string> string() const;
  [[nodiscard]] std::optional<double> number() const;
  [[nodiscard]] std::optional<std::uint64_t> unsigned_integer() const;
  [[nodiscard]] std::optional<bool> boolean() const;

  /// Walks an object's members or an array's elements in the order of the text. next() is false at the end.
  class Items {
   public:
    explicit Items(const JsonView& container);
    bool next();
    /// Whether the member's name, its escapes decoded, is `name`.
    [[nodiscard]] bool name_is(std::string_view name) const;
    [[nodiscard]] JsonView value() const { return JsonView(value_); }

   private:
    std::string_view rest_;  // of the container, after what was given out
    bool named_ = false;     // an object
    std::string_view name_;  // as a JSON string, quotes included
    std::string_view value_;
  };

 private:
  explicit JsonView(std::string_view text) : text_(text) {}
  std::string_view text_;  // never empty
};

}  // namespace kai
