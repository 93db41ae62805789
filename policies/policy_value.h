// One value of a policy file, read as what its key wants: count, duration, text, list. The first fault counts; what is
// read after it is of no use. Internal to policies/policy*.cc.
#pragma once

#include <chrono>
#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "policies/policy.h"
#include "policies/policy_tree.h"

namespace kai::policy_file {

/// What reading a file collects: the first fault, and the places of what was said.
class Reading {
 public:
  Reading(std::string file, Policy& policy) : file_(std::move(file)), policy_(policy) {}

  void fail(const Place& place, std::string message) {
    if (!fault_) fault_ = Fault{place, std::move(message)};
  }
  [[nodiscard]] const std::optional<Fault>& fault() const { return fault_; }
  /// "10-calendar.yaml:14".
  [[nodiscard]] std::string rule(const Place& place) const { return file_ + ":" + std::to_string(place.line); }
  void said(const std::string& key, const Place& place) { policy_.places[key] = rule(place); }

 private:
  std::string file_;
  Policy& policy_;
  std::optional<Fault> fault_;
};

/// nullptr: well-formed; else what is wrong, for "must …" or "is …".
using Format = const char* (*)(std::string_view);

class Value {
 public:
  /// `key`: dotted, as Policy::places has it.
  Value(const Node& node, std::string key, Reading& reading);

  void fail(std::string message) const;

  void boolean(bool& target) const;
  /// A whole number. `unit` is for messages: "MB", or "".
  void count(std::uint32_t& target, std::uint32_t least, std::uint32_t most, const char* unit = "") const;
  /// 0 to `most`, with a fraction.
  void fraction(double& target, double most) const;
  void duration(std::chrono::milliseconds& target, std::chrono::milliseconds least,
                std::chrono::milliseconds most) const;
  /// The position of the word in `words`.
  std::optional<std::size_t> one_of(std::initializer_list<std::string_view> words) const;
  void text(std::string& target, std::size_t longest, Format format) const;

  /// Calls `read` with each element, whose key is this one's with .0, .1 and so on.
  void list(std::size_t most, const std::function<void(const Value&)>& read) const;
  /// Texts that are all different.
  void texts(std::vector<std::string>& target, std::size_t most, std::size_t longest, Format format) const;
  void words(std::vector<std::string>& target, std::initializer_list<std::string_view> known) const;
  /// Calls `read` with each name (its place is the value's key_place) and value.
  void mapping(std::size_t most, const std::function<void(const std::string&, const Value&)>& read) const;
  /// A mapping of only these keys; `read` gets the known ones.
  void fields(std::initializer_list<std::string_view> names,
              const std::function<void(std::string_view, const Value&)>& read) const;
  void unknown_key(const Node& child, const std::vector<std::string_view>& known, std::string_view where) const;

  [[nodiscard]] const Node& node() const { return node_; }
  [[nodiscard]] const std::string& key() const { return key_; }
  [[nodiscard]] Reading& reading() const { return reading_; }

 private:
  bool is(Node::Kind kind, const char* wanted) const;

  const Node& node_;
  std::string key_;
  Reading& reading_;
};

/// 1.5 → "90s", "10m", "500ms": the shortest exact form.
std::string duration_text(std::chrono::milliseconds duration);

}  // namespace kai::policy_file
