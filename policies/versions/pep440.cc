#include "policies/versions/pep440.h"

#include <algorithm>
#include <array>
#include <compare>
#include <tuple>
#include <utility>

namespace kai {
namespace {

constexpr std::size_t kMaxText = 256;
constexpr std::string_view kSpaces = " \t\n\v\f\r\x1c\x1d\x1e\x1f";  // Python's, in ASCII
constexpr std::string_view kSeparators = "-_.";

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_alphanumeric(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z');
}
bool is_number(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}

std::string_view trim(std::string_view text) {
  const std::size_t from = text.find_first_not_of(kSpaces);
  return from == std::string_view::npos ? "" : text.substr(from, text.find_last_not_of(kSpaces) - from + 1);
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

/// Reads a version in lower case from left to right.
class VersionReader {
 public:
  explicit VersionReader(std::string_view text) : rest_(text) {}

  std::optional<Pep440Version> read() {
    Pep440Version version;
    take("v");
    auto number = take_number();
    if (!number) return std::nullopt;
    if (take("!")) {
      version.epoch = std::move(*number);
      number = take_number();
      if (!number) return std::nullopt;
    }
    version.release.push_back(std::move(*number));
    while (rest_.size() > 1 && rest_[0] == '.' && is_digit(rest_[1])) {
      rest_.remove_prefix(1);
      version.release.push_back(*take_number());
    }
    version.pre = take_pre();
    version.post = take_post();
    version.dev = take_labelled("dev");
    if (take("+") && !take_local(version.local)) return std::nullopt;
    if (!rest_.empty()) return std::nullopt;
    return version;
  }

 private:
  bool take(std::string_view expected) {
    if (!rest_.starts_with(expected)) return false;
    rest_.remove_prefix(expected.size());
    return true;
  }

  std::optional<std::string> take_number() {
    std::size_t digits = 0;
    while (digits < rest_.size() && is_digit(rest_[digits])) ++digits;
    if (digits == 0) return std::nullopt;
    const std::size_t first = std::min(rest_.find_first_not_of('0'), digits - 1);
    std::string number(rest_.substr(first, digits - first));
    rest_.remove_prefix(digits);
    return number;
  }

  void take_separator() {
    if (!rest_.empty() && kSeparators.find(rest_[0]) != std::string_view::npos) rest_.remove_prefix(1);
  }

  /// [-_.]LABEL[-_.]NUMBER, where the separators and the number may be missing: no number is 0.
  std::optional<std::string> take_labelled(std::string_view label) {
    const std::string_view before = rest_;
    take_separator();
    if (!take(label)) {
      rest_ = before;
      return std::nullopt;
    }
    take_separator();
    return take_number().value_or("0");
  }

  std::optional<Pep440Version::PreRelease> take_pre() {
    // A label stands before those that begin it.
    constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kLabels = {{{"alpha", "a"},
                                                                                       {"beta", "b"},
                                                                                       {"preview", "rc"},
                                                                                       {"pre", "rc"},
                                                                                       {"rc", "rc"},
                                                                                       {"a", "a"},
                                                                                       {"b", "b"},
                                                                                       {"c", "rc"}}};
    for (const auto& [label, phase] : kLabels) {
      if (auto number = take_labelled(label)) return Pep440Version::PreRelease{std::string(phase), std::move(*number)};
    }
    return std::nullopt;
  }

  std::optional<std::string> take_post() {
    if (rest_.size() > 1 && rest_[0] == '-' && is_digit(rest_[1])) {
      rest_.remove_prefix(1);
      return take_number();
    }
    for (const std::string_view label : {"post", "rev", "r"}) {
      if (auto number = take_labelled(label)) return number;
    }
    return std::nullopt;
  }

  bool take_local(std::vector<std::string>& local) {
    for (;;) {
      std::size_t size = 0;
      while (size < rest_.size() && is_alphanumeric(rest_[size])) ++size;
      if (size == 0) return false;
      VersionReader part(rest_.substr(0, size));
      local.push_back(is_number(part.rest_) ? *part.take_number() : std::string(part.rest_));
      rest_.remove_prefix(size);
      if (rest_.empty()) return true;
      if (kSeparators.find(rest_[0]) == std::string_view::npos) return false;
      rest_.remove_prefix(1);
    }
  }

  std::string_view rest_;
};

std::strong_ordering compare_numbers(const std::string& a, const std::string& b) {
  return std::tuple(a.size(), std::string_view(a)) <=> std::tuple(b.size(), std::string_view(b));
}

const std::string& number_at(const std::vector<std::string>& release, std::size_t at) {
  static const std::string zero = "0";
  return at < release.size() ? release[at] : zero;
}

/// Of the first `count` numbers; missing ones are 0.
std::strong_ordering compare_releases(const Pep440Version& a, const Pep440Version& b, std::size_t count) {
  for (std::size_t at = 0; at < count; ++at) {
    const auto order = compare_numbers(number_at(a.release, at), number_at(b.release, at));
    if (order != 0) return order;
  }
  return std::strong_ordering::equal;
}

/// Epoch and release.
std::strong_ordering compare_base(const Pep440Version& a, const Pep440Version& b) {
  if (const auto order = compare_numbers(a.epoch, b.epoch); order != 0) return order;
  return compare_releases(a, b, std::max(a.release.size(), b.release.size()));
}

/// .dev of a release comes before its pre-releases, and these before the release: which of the three, in that order.
int phase_of(const Pep440Version& version) {
  if (version.pre) return 1;
  return version.dev && !version.post ? 0 : 2;
}

/// `missing`: where a version that has none stands to one that has.
std::strong_ordering compare_optional(const std::optional<std::string>& a, const std::optional<std::string>& b,
                                      std::strong_ordering missing) {
  if (a && b) return compare_numbers(*a, *b);
  if (a || b) return a ? 0 <=> missing : missing;
  return std::strong_ordering::equal;
}

std::strong_ordering compare_local(const std::string& a, const std::string& b) {
  const bool a_number = is_number(a), b_number = is_number(b);
  if (a_number && b_number) return compare_numbers(a, b);
  if (a_number != b_number) return a_number ? std::strong_ordering::greater : std::strong_ordering::less;
  return a <=> b;
}

/// Without their local versions.
std::strong_ordering compare_public(const Pep440Version& a, const Pep440Version& b) {
  if (const auto order = compare_base(a, b); order != 0) return order;
  if (const auto order = phase_of(a) <=> phase_of(b); order != 0) return order;
  if (a.pre && b.pre) {
    if (const auto order = a.pre->phase <=> b.pre->phase; order != 0) return order;
    if (const auto order = compare_numbers(a.pre->number, b.pre->number); order != 0) return order;
  }
  if (const auto order = compare_optional(a.post, b.post, std::strong_ordering::less); order != 0) return order;
  return compare_optional(a.dev, b.dev, std::strong_ordering::greater);
}

std::strong_ordering compare(const Pep440Version& a, const Pep440Version& b) {
  if (const auto order = compare_public(a, b); order != 0) return order;
  return std::lexicographical_compare_three_way(a.local.begin(), a.local.end(), b.local.begin(), b.local.end(),
                                                compare_local);
}

bool has_suffix(const Pep440Version& version) {
  return version.pre || version.post || version.dev || !version.local.empty();
}

/// `count` numbers of the specifier's release begin the version's.
bool begins(const Pep440Version& specified, std::size_t count, const Pep440Version& version) {
  return specified.epoch == version.epoch && compare_releases(specified, version, count) == 0;
}

}  // namespace

std::optional<Pep440Version> Pep440Version::parse(std::string_view text) {
  if (text.size() > kMaxText) return std::nullopt;
  const std::string lowered = lower(trim(text));
  return VersionReader(lowered).read();
}

std::string Pep440Version::text() const {
  std::string out = epoch == "0" ? "" : epoch + "!";
  for (std::size_t at = 0; at < release.size(); ++at) out += (at == 0 ? "" : ".") + release[at];
  if (pre) out += pre->phase + pre->number;
  if (post) out += ".post" + *post;
  if (dev) out += ".dev" + *dev;
  for (std::size_t at = 0; at < local.size(); ++at) out += (at == 0 ? "+" : ".") + local[at];
  return out;
}

std::optional<Pep440Specifiers::Specifier> Pep440Specifiers::parse_one(std::string_view text) {
  // An operator stands before those that begin it.
  constexpr std::array<std::pair<std::string_view, Operator>, 8> kOperators = {{{"===", Operator::kArbitrary},
                                                                                {"==", Operator::kEqual},
                                                                                {"!=", Operator::kNotEqual},
                                                                                {"~=", Operator::kCompatible},
                                                                                {"<=", Operator::kLessEqual},
                                                                                {">=", Operator::kGreaterEqual},
                                                                                {"<", Operator::kLess},
                                                                                {">", Operator::kGreater}}};
  const auto found = std::find_if(kOperators.begin(), kOperators.end(),
                                  [&](const auto& candidate) { return text.starts_with(candidate.first); });
  if (found == kOperators.end()) return std::nullopt;
  Specifier specifier;
  specifier.op = found->second;
  std::string_view rest = trim(text.substr(found->first.size()));
  if (specifier.op == Operator::kArbitrary) {
    if (rest.find_first_of(";)") != std::string_view::npos || rest.find_first_of(kSpaces) != std::string_view::npos) {
      return std::nullopt;
    }
    specifier.text = lower(rest);
    specifier.version = Pep440Version::parse(rest).value_or(Pep440Version());
    return specifier;
  }
  const bool equality = specifier.op == Operator::kEqual || specifier.op == Operator::kNotEqual;
  if (equality && rest.ends_with(".*")) {
    specifier.any_below = true;
    rest.remove_suffix(2);
    if (rest.empty() || !is_digit(rest.back())) return std::nullopt;
  }
  auto version = Pep440Version::parse(rest);
  if (!version) return std::nullopt;
  specifier.version = std::move(*version);
  if (specifier.any_below && has_suffix(specifier.version)) return std::nullopt;
  if (!equality && !specifier.version.local.empty()) return std::nullopt;
  if (specifier.op == Operator::kCompatible && specifier.version.release.size() < 2) return std::nullopt;
  return specifier;
}

Result<Pep440Specifiers> Pep440Specifiers::parse(std::string_view text) {
  if (text.size() > kMaxText) return failure("the specifier has more than " + std::to_string(kMaxText) + " characters");
  Pep440Specifiers specifiers;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::string_view part = trim(text.substr(at, end - at));
    at = end + 1;
    if (part.empty()) continue;
    auto specifier = parse_one(part);
    if (!specifier) return failure("'" + std::string(part) + "' is no version specifier of PEP 440");
    specifiers.specifiers_.push_back(std::move(*specifier));
  }
  return specifiers;
}

Pep440Specifiers Pep440Specifiers::exactly(Pep440Version version) {
  Pep440Specifiers specifiers;
  specifiers.specifiers_.push_back({Operator::kEqual, std::move(version), false, {}});
  return specifiers;
}

bool Pep440Specifiers::holds(const Specifier& specifier, const Pep440Version& version) {
  const Pep440Version& named = specifier.version;
  const auto equal = [&] {
    if (specifier.any_below) return begins(named, named.release.size(), version);
    return (named.local.empty() ? compare_public(version, named) : compare(version, named)) == 0;
  };
  switch (specifier.op) {
    case Operator::kCompatible:
      return compare_public(version, named) >= 0 && begins(named, named.release.size() - 1, version);
    case Operator::kEqual:
      return equal();
    case Operator::kNotEqual:
      return !equal();
    case Operator::kLessEqual:
      return compare_public(version, named) <= 0;
    case Operator::kGreaterEqual:
      return compare_public(version, named) >= 0;
    case Operator::kLess:
      // <3.1 has no pre-release of 3.1, unless it names one itself.
      return compare(version, named) < 0 &&
             (named.is_pre_release() || !version.is_pre_release() || compare_base(version, named) != 0);
    case Operator::kGreater:
      // >3.1 has neither post-releases nor local versions of 3.1, unless it names a post-release itself.
      return compare(version, named) > 0 &&
             ((version.local.empty() && (named.post || !version.post)) || compare_base(version, named) != 0);
    case Operator::kArbitrary:
      return version.text() == specifier.text;
  }
  return false;
}

bool Pep440Specifiers::has(const Pep440Version& version) const {
  const auto names_pre_release = [](const Specifier& specifier) {
    return specifier.op != Operator::kNotEqual && specifier.op != Operator::kLess &&
           specifier.op != Operator::kGreater && specifier.version.is_pre_release();
  };
  if (version.is_pre_release() && std::none_of(specifiers_.begin(), specifiers_.end(), names_pre_release)) return false;
  return std::all_of(specifiers_.begin(), specifiers_.end(),
                     [&](const Specifier& specifier) { return holds(specifier, version); });
}

}  // namespace kai
