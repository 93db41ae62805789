#include "policies/policy_value.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "policies/wording.h"

namespace kai::policy_file {
namespace {

using Milliseconds = std::chrono::milliseconds;

std::string kind_of(const Node& node) {
  switch (node.kind) {
    case Node::Kind::kNothing:
      return "nothing";
    case Node::Kind::kScalar:
      return node.plain ? shown(node.text) : "the text " + shown(node.text);
    case Node::Kind::kList:
      return "a list";
    case Node::Kind::kMapping:
      return "a mapping";
  }
  return "something else";
}

std::string listed(const std::vector<std::string_view>& words) {
  std::string text;
  for (const std::string_view word : words) text += (text.empty() ? "" : ", ") + std::string(word);
  return text;
}

std::string meant(std::string_view word, const std::vector<std::string_view>& known) {
  const auto found = suggestion(word, known);
  return found ? ": did you mean \"" + std::string(*found) + "\"?" : "";
}

bool is_digits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

/// Digits with at most one dot between digits; no sign, exponent or white space.
std::optional<double> decimal(std::string_view text) {
  const std::size_t dot = text.find('.');
  if (!is_digits(text.substr(0, dot))) return std::nullopt;
  if (dot != std::string_view::npos && !is_digits(text.substr(dot + 1))) return std::nullopt;
  constexpr std::size_t kLongest = 20;
  if (text.size() > kLongest) return HUGE_VAL;
  double value = 0;
  (void)std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

struct Unit {
  std::string_view name;
  double milliseconds;
};
constexpr std::array<Unit, 4> kUnits = {{{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}}};

}  // namespace

std::string duration_text(Milliseconds duration) {
  const auto count = duration.count();
  if (count == 0) return "0s";
  if (count % 3'600'000 == 0) return std::to_string(count / 3'600'000) + "h";
  if (count % 60'000 == 0) return std::to_string(count / 60'000) + "m";
  if (count % 1000 == 0) return std::to_string(count / 1000) + "s";
  return std::to_string(count) + "ms";
}

Value::Value(const Node& node, std::string key, Reading& reading)
    : node_(node), key_(std::move(key)), reading_(reading) {
  reading_.said(key_, node.key.empty() ? node.place : node.key_place);
}

void Value::fail(std::string message) const {
  reading_.fail(node_.place, key_ + " " + message);
}

bool Value::is(Node::Kind kind, const char* wanted) const {
  if (node_.kind == kind) return true;
  fail(std::string("must be ") + wanted + ", not " + kind_of(node_));
  return false;
}

void Value::boolean(bool& target) const {
  const bool yes = node_.plain && node_.text == "true";
  if (!yes && !(node_.plain && node_.text == "false")) return fail("must be true or false, not " + kind_of(node_));
  target = yes;
}

void Value::count(std::uint32_t& target, std::uint32_t least, std::uint32_t most, const char* unit) const {
  const std::string of = *unit == '\0' ? "" : std::string(" of ") + unit;
  const std::string bounds = "must be a plain whole number" + of + " from " + std::to_string(least) + " to " +
                             std::to_string(most) + ", not " + kind_of(node_);
  // A sign or a unit is no digit; 010 would be 8 to some.
  const bool well_formed = node_.kind == Node::Kind::kScalar && node_.plain && is_digits(node_.text) &&
                           (node_.text.size() == 1 || node_.text.front() != '0');
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(node_.text.data(), node_.text.data() + node_.text.size(), value);
  if (!well_formed || error != std::errc{} || value < least || value > most) return fail(bounds);
  target = static_cast<std::uint32_t>(value);
}

void Value::fraction(double& target, double most) const {
  const auto value = node_.kind == Node::Kind::kScalar && node_.plain ? decimal(node_.text) : std::nullopt;
  if (!value || *value > most) {
    return fail("must be a number from 0 to " + std::to_string(static_cast<int>(most)) + ", not " + kind_of(node_));
  }
  target = *value;
}

void Value::duration(Milliseconds& target, Milliseconds least, Milliseconds most) const {
  constexpr const char* kForm = "must be a duration: a number with its unit ms, s, m or h, as in 500ms or 1.5s";
  if (node_.kind != Node::Kind::kScalar) return fail(std::string(kForm) + ", not " + kind_of(node_));
  const std::string_view text = node_.text;
  const std::size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const std::string_view name = text.substr(digits);
  const auto number = decimal(text.substr(0, digits));
  const auto* unit = std::find_if(kUnits.begin(), kUnits.end(), [&](const Unit& each) { return each.name == name; });
  const bool bare_zero = number == 0.0 && name.empty();
  if (!number || (unit == kUnits.end() && !bare_zero)) return fail(std::string(kForm) + ", not " + kind_of(node_));
  const double value = bare_zero ? 0 : *number * unit->milliseconds;
  if (value < static_cast<double>(least.count()) || value > static_cast<double>(most.count())) {
    return fail("must be from " + duration_text(least) + " to " + duration_text(most) + ", not " + kind_of(node_));
  }
  const double whole = std::round(value);
  if (std::abs(value - whole) > 1e-6) return fail("must be a whole number of milliseconds, not " + kind_of(node_));
  target = Milliseconds(static_cast<std::int64_t>(whole));
}

std::optional<std::size_t> Value::one_of(std::initializer_list<std::string_view> words) const {
  const auto found = std::find(words.begin(), words.end(), std::string_view(node_.text));
  if (node_.kind == Node::Kind::kScalar && found != words.end()) return static_cast<std::size_t>(found - words.begin());
  fail("must be one of " + listed(words) + ", not " + kind_of(node_) + meant(node_.text, words));
  return std::nullopt;
}

void Value::text(std::string& target, std::size_t longest, Format format) const {
  if (!is(Node::Kind::kScalar, "text")) return;
  if (node_.text.empty()) return fail("must not be empty");
  if (length_of(node_.text) > longest) {
    return fail("has " + std::to_string(length_of(node_.text)) + " characters, at most " + std::to_string(longest) +
                " are allowed");
  }
  if (const char* fault = format(node_.text)) return fail(std::string(fault) + ", not " + shown(node_.text));
  target = node_.text;
}

void Value::list(std::size_t most, const std::function<void(const Value&)>& read) const {
  if (!is(Node::Kind::kList, "a list")) return;
  if (node_.children.size() > most) {
    return fail("has " + std::to_string(node_.children.size()) + " entries, at most " + std::to_string(most) +
                " are allowed");
  }
  for (std::size_t at = 0; at < node_.children.size(); ++at) {
    read(Value(node_.children[at], key_ + "." + std::to_string(at), reading_));
  }
}

void Value::texts(std::vector<std::string>& target, std::size_t most, std::size_t longest, Format format) const {
  target.clear();
  list(most, [&](const Value& element) {
    std::string text;
    element.text(text, longest, format);
    if (std::find(target.begin(), target.end(), text) != target.end()) element.fail("is there twice: " + shown(text));
    target.push_back(std::move(text));
  });
}

void Value::words(std::vector<std::string>& target, std::initializer_list<std::string_view> known) const {
  target.clear();
  list(known.size() + 1, [&](const Value& element) {
    const auto at = element.one_of(known);
    if (!at) return;
    const std::string word(known.begin()[*at]);
    if (std::find(target.begin(), target.end(), word) != target.end()) element.fail("is there twice: " + shown(word));
    target.push_back(word);
  });
}

void Value::mapping(std::size_t most, const std::function<void(const std::string&, const Value&)>& read) const {
  if (!is(Node::Kind::kMapping, "a mapping")) return;
  if (node_.children.size() > most) {
    return fail("has " + std::to_string(node_.children.size()) + " entries, at most " + std::to_string(most) +
                " are allowed");
  }
  for (const Node& child : node_.children) read(child.key, Value(child, key_ + "." + child.key, reading_));
}

void Value::fields(std::initializer_list<std::string_view> names,
                   const std::function<void(std::string_view, const Value&)>& read) const {
  if (!is(Node::Kind::kMapping, "a mapping")) return;
  for (const Node& child : node_.children) {
    const auto known = std::find(names.begin(), names.end(), std::string_view(child.key));
    if (known == names.end()) {
      unknown_key(child, names, key_);
    } else {
      read(*known, Value(child, key_ + "." + child.key, reading_));
    }
  }
}

void Value::unknown_key(const Node& child, const std::vector<std::string_view>& known, std::string_view where) const {
  const std::string hint = meant(child.key, known);
  reading_.fail(child.key_place, "unknown key " + shown(child.key) + " in " + std::string(where) +
                                     (hint.empty() ? "; known are " + listed(known) : hint));
}

}  // namespace kai::policy_file
