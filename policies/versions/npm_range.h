// Ranges of versions as npm reads them (its package `semver`, strict, without includePrerelease): comparators, ^, ~,
// x-ranges, hyphen ranges, ||. tests/versions holds every answer to that package's own. Pure: no I/O.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace kai {

/// Semantic Versioning 2.0.0, without build metadata, which takes no part in any comparison.
struct NpmVersion {
  std::uint64_t major = 0, minor = 0, patch = 0;
  std::vector<std::string> pre_release;  ///< identifiers; empty: it is a release

  /// nullopt: it is none. A leading v and white space around it are left off, as npm does.
  static std::optional<NpmVersion> parse(std::string_view text);
};
/// Precedence of Semantic Versioning 2.0.0.
std::strong_ordering compare(const NpmVersion& a, const NpmVersion& b);

class NpmRange {
 public:
  /// An error says which part of the range is none.
  static Result<NpmRange> parse(std::string_view text);

  /// A pre-release is in a range only where one of its bounds is a pre-release of the same version.
  [[nodiscard]] bool has(const NpmVersion& version) const;

 private:
  enum class Operator { kLess, kLessEqual, kGreater, kGreaterEqual, kEqual };
  struct Bound {
    Operator op = Operator::kEqual;
    NpmVersion version;
  };
  using Bounds = std::vector<Bound>;  // all must hold; none: every release is in it
  friend class NpmRangeParser;

  std::vector<Bounds> alternatives_;
};

}  // namespace kai
