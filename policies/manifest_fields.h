// Reading a parsed manifest field by field, collecting every fault with its place instead of stopping at the first.
// Internal to policies/manifest*.cc.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "policies/manifest.h"
#include "policies/wording.h"

namespace kai::manifest {

using Json = nlohmann::ordered_json;  // faults are reported in the document's order

/// `parent` with one more token (RFC 6901). A token that is too long or not fit for a terminal is left out: the fault
/// then points to the parent, and its message shows the name.
std::string child_pointer(const std::string& parent, std::string_view token);
/// A value and where it is. `order` has its position at each level, by which faults are sorted.
struct Place {
  const Json* value = nullptr;
  std::string pointer;
  std::vector<std::size_t> order;
};

class Faults {
 public:
  static constexpr std::size_t kMost = 200;  ///< a hostile megabyte can have hundreds of thousands

  void add(const Place& place, std::string message) { add(place.pointer, place.order, std::move(message)); }
  void add(std::string pointer, std::vector<std::size_t> order, std::string message);
  [[nodiscard]] bool empty() const { return faults_.empty(); }
  /// In document order; the last says how many are left out, if any are.
  std::vector<ManifestError> take();

 private:
  struct Fault {
    std::vector<std::size_t> order;
    ManifestError error;
  };
  std::vector<Fault> faults_;
  std::size_t left_out_ = 0;
};

/// An object's fields. Constructing it reports a value that is no object, and every field that is not in `fields`.
class ObjectReader {
 public:
  ObjectReader(const Place& place, std::initializer_list<std::string_view> fields, Faults& faults);

  /// A missing field is a fault.
  std::optional<Place> required(std::string_view name);
  [[nodiscard]] std::optional<Place> optional(std::string_view name) const;

 private:
  const Place& place_;
  std::vector<std::string_view> fields_;
  Faults& faults_;
  bool is_object_;
};

struct Text {
  std::size_t longest = 0;  ///< in characters
  bool may_be_empty = false;
  bool may_have_lines = false;  ///< tab and line ends; no other control character ever
};
/// nullopt, and a fault, where the value is no such string.
std::optional<std::string> read_string(const Place& place, const Text& text, Faults& faults);
std::optional<bool> read_bool(const Place& place, Faults& faults);
/// A number that is at least 0.
std::optional<double> read_number(const Place& place, Faults& faults);
/// A whole number from 0 to `most`.
std::optional<std::uint32_t> read_count(const Place& place, std::uint32_t most, Faults& faults);
/// The elements; none, and a fault, where the value is no array or has more than `most`.
std::vector<Place> read_array(const Place& place, std::size_t most, Faults& faults);
/// `must be one of …`, with a suggestion where one letter is off.
void add_not_one_of(const Place& place, std::string_view word, std::span<const std::string_view> words, Faults& faults);

template <typename Enum>
using Names = std::span<const std::pair<std::string_view, Enum>>;

template <typename Enum>
std::optional<Enum> read_enum(const Place& place, Names<Enum> names, Faults& faults) {
  const auto word = read_string(place, {.longest = 64}, faults);
  if (!word) return std::nullopt;
  const auto found = std::find_if(names.begin(), names.end(), [&](const auto& entry) { return entry.first == *word; });
  if (found != names.end()) return found->second;
  std::vector<std::string_view> words;
  for (const auto& entry : names) words.push_back(entry.first);
  add_not_one_of(place, *word, words, faults);
  return std::nullopt;
}

/// Writes `read`'s value to `target` if there is one.
template <typename Target, typename Value>
void assign(Target& target, std::optional<Value> read) {
  if (read) target = std::move(*read);
}

}  // namespace kai::manifest
