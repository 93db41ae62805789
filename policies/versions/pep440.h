// Versions and version specifiers of Python's packages: PEP 440, where it leaves a choice as the package `packaging`
// 23.0 takes it (prereleases at its default). tests/versions holds every answer to that package's own. Pure: no I/O.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace kai {

/// Numbers have any size in PEP 440: each is its decimal digits, without leading zeros.
struct Pep440Version {
  struct PreRelease {
    std::string phase;  ///< a, b or rc
    std::string number;
  };
  std::string epoch = "0";
  std::vector<std::string> release;  ///< at least one number
  std::optional<PreRelease> pre;
  std::optional<std::string> post, dev;
  std::vector<std::string> local;  ///< lower case; empty: none

  /// Takes every spelling that PEP 440 normalizes, in ASCII. nullopt: it is no version.
  static std::optional<Pep440Version> parse(std::string_view text);

  /// Development releases are pre-releases too.
  [[nodiscard]] bool is_pre_release() const { return pre || dev; }
  /// Its normal form.
  [[nodiscard]] std::string text() const;
};

/// Specifiers with commas between them: all must hold.
class Pep440Specifiers {
 public:
  /// An error says which of them is none. No specifier at all has every version but pre-releases.
  static Result<Pep440Specifiers> parse(std::string_view text);
  /// Exactly this version, with whatever local version: ==VERSION.
  static Pep440Specifiers exactly(Pep440Version version);

  /// A pre-release is in them only where one of them (not with !=, <, >) names a pre-release.
  [[nodiscard]] bool has(const Pep440Version& version) const;

 private:
  enum class Operator { kCompatible, kEqual, kNotEqual, kLessEqual, kGreaterEqual, kLess, kGreater, kArbitrary };
  struct Specifier {
    Operator op = Operator::kEqual;
    Pep440Version version;   // of ===: empty where its text is no version
    bool any_below = false;  // ==1.2.*
    std::string text;        // of ===: in lower case
  };
  static std::optional<Specifier> parse_one(std::string_view text);
  static bool holds(const Specifier& specifier, const Pep440Version& version);

  std::vector<Specifier> specifiers_;
};

}  // namespace kai
