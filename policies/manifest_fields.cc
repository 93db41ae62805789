#include "policies/manifest_fields.h"

#include <cmath>

#include "base/text.h"

namespace kai::manifest {
namespace {

constexpr std::size_t kLongestToken = 128;

std::string kind_of(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "an array";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::boolean:
      return value.get<bool>() ? "true" : "false";
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
    case Json::value_t::number_float:
      return "the number " + value.dump();
    default:
      return "something else";
  }
}

void add_wrong_type(const Place& place, const char* wanted, Faults& faults) {
  faults.add(place, std::string("must be ") + wanted + ", not " + kind_of(*place.value));
}

}  // namespace

std::string child_pointer(const std::string& parent, std::string_view token) {
  if (token.size() > kLongestToken || escape_for_terminal(token) != token) return parent;
  std::string pointer = parent + "/";
  for (const char c : token) {
    if (c == '~') {
      pointer += "~0";
    } else if (c == '/') {
      pointer += "~1";
    } else {
      pointer += c;
    }
  }
  return pointer;
}

void Faults::add(std::string pointer, std::vector<std::size_t> order, std::string message) {
  if (faults_.size() < kMost) {
    faults_.push_back({std::move(order), {std::move(pointer), std::move(message)}});
  } else {
    ++left_out_;
  }
}

std::vector<ManifestError> Faults::take() {
  std::stable_sort(faults_.begin(), faults_.end(), [](const Fault& a, const Fault& b) { return a.order < b.order; });
  std::vector<ManifestError> errors;
  for (Fault& fault : faults_) errors.push_back(std::move(fault.error));
  if (left_out_ > 0) errors.push_back({"", "and " + std::to_string(left_out_) + " more errors"});
  return errors;
}

ObjectReader::ObjectReader(const Place& place, std::initializer_list<std::string_view> fields, Faults& faults)
    : place_(place), fields_(fields), faults_(faults), is_object_(place.value->is_object()) {
  if (!is_object_) {
    add_wrong_type(place, "an object", faults);
    return;
  }
  std::size_t position = 0;
  for (const auto& [name, value] : place.value->items()) {
    std::vector<std::size_t> order = place.order;
    order.push_back(position++);
    if (std::find(fields_.begin(), fields_.end(), name) != fields_.end()) continue;
    const auto meant = suggestion(name, fields_);
    faults.add(child_pointer(place.pointer, name), std::move(order),
               "unknown field " + shown(name) + (meant ? ": did you mean \"" + std::string(*meant) + "\"?" : ""));
  }
}

std::optional<Place> ObjectReader::required(std::string_view name) {
  auto place = optional(name);
  if (!place && is_object_) {
    std::vector<std::size_t> order = place_.order;  // after what is there, in the order of the specification
    const auto field = std::find(fields_.begin(), fields_.end(), name);
    order.push_back(place_.value->size() + static_cast<std::size_t>(field - fields_.begin()));
    faults_.add(child_pointer(place_.pointer, name), std::move(order), "is missing");
  }
  return place;
}

std::optional<Place> ObjectReader::optional(std::string_view name) const {
  if (!is_object_) return std::nullopt;
  const auto found = place_.value->find(std::string(name));
  if (found == place_.value->end()) return std::nullopt;
  Place place{&*found, child_pointer(place_.pointer, name), place_.order};
  place.order.push_back(static_cast<std::size_t>(std::distance(place_.value->begin(), found)));
  return place;
}

std::optional<std::string> read_string(const Place& place, const Text& text, Faults& faults) {
  if (!place.value->is_string()) {
    add_wrong_type(place, "a string", faults);
    return std::nullopt;
  }
  const auto& value = place.value->get_ref<const std::string&>();
  const std::size_t length = length_of(value);
  if (length > text.longest) {
    faults.add(place, "has " + std::to_string(length) + " characters, at most " + std::to_string(text.longest) +
                          " are allowed");
    return std::nullopt;
  }
  if (value.empty() && !text.may_be_empty) {
    faults.add(place, "must not be empty");
    return std::nullopt;
  }
  if (has_control_character(value, text.may_have_lines)) {
    faults.add(place, "has a control character: " + shown(value));
    return std::nullopt;
  }
  return value;
}

std::optional<bool> read_bool(const Place& place, Faults& faults) {
  if (place.value->is_boolean()) return place.value->get<bool>();
  add_wrong_type(place, "true or false", faults);
  return std::nullopt;
}

// Seconds or megabytes: beyond what a computer has of either, and far below where arithmetic with it overflows.
constexpr double kLargestNumber = 1e12;

std::optional<double> read_number(const Place& place, Faults& faults) {
  if (!place.value->is_number()) {
    add_wrong_type(place, "a number", faults);
    return std::nullopt;
  }
  const auto number = place.value->get<double>();
  if (number >= 0 && number <= kLargestNumber) return number == 0 ? 0.0 : number;  // -0 is 0
  faults.add(place, "must be a number from 0 to 1000000000000, not " + place.value->dump());
  return std::nullopt;
}

std::optional<std::uint32_t> read_count(const Place& place, std::uint32_t most, Faults& faults) {
  if (!place.value->is_number()) {
    add_wrong_type(place, "a whole number", faults);
    return std::nullopt;
  }
  const auto number = place.value->get<double>();
  if (number >= 0 && number <= most && std::floor(number) == number) return static_cast<std::uint32_t>(number);
  faults.add(place, "must be a whole number from 0 to " + std::to_string(most) + ", not " + place.value->dump());
  return std::nullopt;
}

std::vector<Place> read_array(const Place& place, std::size_t most, Faults& faults) {
  std::vector<Place> elements;
  if (!place.value->is_array()) {
    add_wrong_type(place, "an array", faults);
    return elements;
  }
  if (place.value->size() > most) {
    faults.add(place, "has " + std::to_string(place.value->size()) + " elements, at most " + std::to_string(most) +
                          " are allowed");
    return elements;
  }
  for (std::size_t at = 0; at < place.value->size(); ++at) {
    Place element{&(*place.value)[at], child_pointer(place.pointer, std::to_string(at)), place.order};
    element.order.push_back(at);
    elements.push_back(std::move(element));
  }
  return elements;
}

void add_not_one_of(const Place& place, std::string_view word, std::span<const std::string_view> words,
                    Faults& faults) {
  std::string list;
  for (const std::string_view known : words) list += (list.empty() ? "" : ", ") + std::string(known);
  const auto meant = suggestion(word, words);
  faults.add(place, "must be one of " + list + ", not " + shown(word) +
                        (meant ? ": did you mean \"" + std::string(*meant) + "\"?" : ""));
}

}  // namespace kai::manifest
