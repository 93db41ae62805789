// A policy file's text as a tree in which every key and value knows its line and column. YAML as far as it says what
// JSON can say: no anchors, aliases, tags or merge keys. Internal to policies/policy*.cc.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "policies/policy_yaml.h"

namespace kai::policy_file {

/// 1-based; columns count characters.
struct Place {
  int line = 1;
  int column = 1;
};

struct Node {
  enum class Kind { kNothing, kScalar, kList, kMapping };

  Kind kind = Kind::kNothing;
  Place place;         ///< of the value; of its key where the value is nothing, or begins on a line of its own
  std::string text;    ///< of a scalar
  bool plain = false;  ///< a scalar without quotes
  std::string key;     ///< in a mapping
  Place key_place;
  std::vector<Node> children;  ///< of a list or mapping, in the document's order
};

struct Fault {
  Place place;
  std::string message;
};

inline constexpr std::size_t kMaxDepth = 8;
inline constexpr std::size_t kMaxNodes = 100'000;
inline constexpr std::size_t kMaxKeys = 1024;  ///< of one mapping: they are searched in line

/// The first fault, or the document; kNothing for a file that has none. Keys that come twice are faults.
struct Tree {
  std::optional<Fault> fault;
  Node root;
};
Tree read_tree(std::string_view text);

}  // namespace kai::policy_file
