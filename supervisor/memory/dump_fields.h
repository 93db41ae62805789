// A line of exported memory taken apart. All text here is JSON that was checked (base/json_check.h): what is looked for
// is there. Values stay where they are, so that they can be had byte for byte.
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace kai {

/// Without the white space around it.
std::string_view trim_json(std::string_view json);
/// Where what begins at `at` ends: at a comma or closing bracket of its own level.
std::size_t json_value_end(std::string_view text, std::size_t at);
/// nullopt: it is no string.
std::optional<std::string> text_in(std::string_view json);
/// Of a string in base64.
std::optional<std::string> bytes_in(std::string_view json);
/// nullopt: it is no number from 0, of digits alone, or too large for its type.
template <typename Number>
std::optional<Number> number_in(std::string_view json) {
  json = trim_json(json);
  Number number = 0;
  const auto [end, error] = std::from_chars(json.data(), json.data() + json.size(), number);
  if (error != std::errc{} || end != json.data() + json.size()) return std::nullopt;
  return number;
}

/// The members of one object, each to be taken once. The first thing that is wrong is kept.
class DumpFields {
 public:
  explicit DumpFields(std::string_view object);

  /// Which kind of line it is; empty: there is none.
  [[nodiscard]] std::string_view first() const;
  /// With what stands around it; nullopt: it is not there.
  std::optional<std::string_view> take(std::string_view name);

  template <typename Number>
  Number number(std::string_view name, Number least = 0) {
    const auto json = take(name);
    const auto number = json ? number_in<Number>(*json) : std::nullopt;
    if (!number || *number < least) wrong(std::string(name) + " is not there, or no number as it should be");
    return number.value_or(0);
  }
  bool flag(std::string_view name);
  std::string bytes(std::string_view name);
  /// NAME, or NAMEBase64.
  std::string text(std::string_view name);
  /// NAME as it stands there, or NAMEJsonBase64.
  std::string json(std::string_view name);

  void wrong(std::string problem);
  /// Empty: nothing is wrong, and nothing is left over.
  [[nodiscard]] std::string problem();

 private:
  struct Member {
    std::string_view name, value;
  };
  std::string kept(std::string_view name, std::optional<std::string> value);

  std::array<Member, 8> members_;
  std::size_t count_ = 0;
  std::string problem_;
};

}  // namespace kai
