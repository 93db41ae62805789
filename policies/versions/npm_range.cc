#include "policies/versions/npm_range.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace kai {
namespace {

constexpr std::size_t kMaxText = 256;
constexpr std::uint64_t kMaxNumber = 9007199254740991;  // Number.MAX_SAFE_INTEGER: npm takes no larger one
constexpr std::string_view kSpaces = " \t\n\v\f\r";

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_identifier_char(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-';
}
bool is_number(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}

std::vector<std::string_view> split(std::string_view text, std::string_view separator) {
  std::vector<std::string_view> parts;
  for (std::size_t at = 0;;) {
    const std::size_t end = text.find(separator, at);
    parts.push_back(text.substr(at, end - at));
    if (end == std::string_view::npos) return parts;
    at = end + separator.size();
  }
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  for (std::size_t at = text.find_first_not_of(kSpaces); at != std::string_view::npos;) {
    const std::size_t end = std::min(text.find_first_of(kSpaces, at), text.size());
    words.emplace_back(text.substr(at, end - at));
    at = text.find_first_not_of(kSpaces, end);
  }
  return words;
}

std::string join(const std::vector<std::string>& words, std::size_t from, std::size_t to) {
  std::string text;
  for (std::size_t at = from; at < to; ++at) text += (at == from ? "" : " ") + words[at];
  return text;
}

std::string_view trim(std::string_view text) {
  const std::size_t from = text.find_first_not_of(kSpaces);
  return from == std::string_view::npos ? "" : text.substr(from, text.find_last_not_of(kSpaces) - from + 1);
}

/// A number without leading zeros.
std::optional<std::uint64_t> take_number(std::string_view& text) {
  std::size_t digits = 0;
  std::uint64_t number = 0;
  while (digits < text.size() && is_digit(text[digits])) {
    number = std::min(number * 10 + static_cast<std::uint64_t>(text[digits] - '0'), kMaxNumber + 1);
    ++digits;
  }
  if (digits == 0 || (digits > 1 && text[0] == '0')) return std::nullopt;
  text.remove_prefix(digits);
  return number;
}

bool take(std::string_view& text, std::string_view expected) {
  if (!text.starts_with(expected)) return false;
  text.remove_prefix(expected.size());
  return true;
}

/// "rc.1" as its identifiers; nullopt: one is empty, has another character, or is a number with leading zeros.
std::optional<std::vector<std::string>> identifiers_of(std::string_view text) {
  std::vector<std::string> identifiers;
  for (const std::string_view part : split(text, ".")) {
    if (part.empty() || !std::all_of(part.begin(), part.end(), is_identifier_char)) return std::nullopt;
    if (is_number(part) && part.size() > 1 && part[0] == '0') return std::nullopt;
    identifiers.emplace_back(part);
  }
  return identifiers;
}

std::strong_ordering compare_identifiers(std::string_view a, std::string_view b) {
  const bool a_number = is_number(a), b_number = is_number(b);
  if (a_number && b_number) return std::pair(a.size(), a) <=> std::pair(b.size(), b);
  if (a_number != b_number) return a_number ? std::strong_ordering::less : std::strong_ordering::greater;
  return a <=> b;
}

/// Drops every +build.
std::string without_build(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    if (text[0] != '+' || text.size() == 1 || !is_identifier_char(text[1])) {
      out += text[0];
      text.remove_prefix(1);
      continue;
    }
    text.remove_prefix(1);
    while (!text.empty() &&
           (is_identifier_char(text[0]) || (text[0] == '.' && text.size() > 1 && is_identifier_char(text[1])))) {
      text.remove_prefix(1);
    }
  }
  return out;
}

/// 1, 1.2, 1.2.3, 1.2.3-rc.1, and the same with x, X or * in the place of numbers. What is missing is an x.
struct Partial {
  std::optional<std::uint64_t> major, minor, patch;
  std::vector<std::string> pre_release;
  bool plain = true;  // nothing but a v before it

  [[nodiscard]] bool full() const { return major && minor && patch; }
  /// 1.x.3: a number behind an x.
  [[nodiscard]] bool has_gap() const { return (!major && minor) || ((!major || !minor) && patch); }
};

bool take_part(std::string_view& text, std::optional<std::uint64_t>& part) {
  if (take(text, "x") || take(text, "X") || take(text, "*")) return true;
  part = take_number(text);
  return part.has_value();
}

std::optional<Partial> parse_partial(std::string_view text) {
  Partial partial;
  const std::size_t start = std::min(text.find_first_not_of("v= "), text.size());
  partial.plain = start == 0 || text.substr(0, start) == "v";
  text.remove_prefix(start);
  if (!take_part(text, partial.major)) return std::nullopt;
  if (take(text, ".")) {
    if (!take_part(text, partial.minor)) return std::nullopt;
    const bool has_patch = take(text, ".");
    if (has_patch && !take_part(text, partial.patch)) return std::nullopt;
    if (has_patch && take(text, "-")) {
      auto identifiers = identifiers_of(text);
      if (!identifiers) return std::nullopt;
      partial.pre_release = std::move(*identifiers);
      text = {};
    }
  }
  if (!text.empty()) return std::nullopt;
  return partial;
}

NpmVersion release(std::uint64_t major, std::uint64_t minor = 0, std::uint64_t patch = 0) {
  return {major, minor, patch, {}};
}
/// What is below every pre-release of it too.
NpmVersion floor_of(std::uint64_t major, std::uint64_t minor = 0, std::uint64_t patch = 0) {
  return {major, minor, patch, {"0"}};
}

}  // namespace

std::strong_ordering compare(const NpmVersion& a, const NpmVersion& b) {
  if (const auto order = std::tie(a.major, a.minor, a.patch) <=> std::tie(b.major, b.minor, b.patch); order != 0) {
    return order;
  }
  // A release is greater than each of its pre-releases.
  if (a.pre_release.empty() || b.pre_release.empty()) return a.pre_release.empty() <=> b.pre_release.empty();
  return std::lexicographical_compare_three_way(a.pre_release.begin(), a.pre_release.end(), b.pre_release.begin(),
                                                b.pre_release.end(), compare_identifiers);
}

std::optional<NpmVersion> NpmVersion::parse(std::string_view text) {
  if (text.size() > kMaxText) return std::nullopt;
  std::string_view rest = trim(text);
  take(rest, "v");
  NpmVersion version;
  const auto major = take_number(rest);
  if (!major || !take(rest, ".")) return std::nullopt;
  const auto minor = take_number(rest);
  if (!minor || !take(rest, ".")) return std::nullopt;
  const auto patch = take_number(rest);
  if (!patch || std::max({*major, *minor, *patch}) > kMaxNumber) return std::nullopt;
  version = release(*major, *minor, *patch);
  const std::size_t plus = rest.find('+');
  if (plus != std::string_view::npos) {
    for (const std::string_view part : split(rest.substr(plus + 1), ".")) {
      if (part.empty() || !std::all_of(part.begin(), part.end(), is_identifier_char)) return std::nullopt;
    }
    rest = rest.substr(0, plus);
  }
  if (take(rest, "-")) {
    auto identifiers = identifiers_of(rest);
    if (!identifiers) return std::nullopt;
    version.pre_release = std::move(*identifiers);
    return version;
  }
  if (!rest.empty()) return std::nullopt;
  return version;
}

/// One alternative of a range, from the left to the right as npm rewrites it.
class NpmRangeParser {
 public:
  using Operator = NpmRange::Operator;

  /// false: it is none, and fault() says what.
  bool parse(std::string_view text) {
    std::vector<std::string> words = words_of(without_build(text));
    if (!expand_hyphen(words)) attach_operators(words);
    for (const std::string& word : words) {
      if (fault_.empty() && !parse_word(word)) fault_ = word;
    }
    return fault_.empty();
  }

  /// Nothing can be in it.
  [[nodiscard]] bool impossible() const {
    return std::any_of(bounds_.begin(), bounds_.end(), [](const NpmRange::Bound& bound) {
      return bound.op == Operator::kLess && compare(bound.version, floor_of(0)) == 0;
    });
  }
  [[nodiscard]] const std::string& fault() const { return fault_; }
  NpmRange::Bounds take_bounds() { return std::move(bounds_); }

 private:
  bool add(Operator op, NpmVersion version) {
    if (std::max({version.major, version.minor, version.patch}) > kMaxNumber) return false;
    // >=0.0.0 is what every release is.
    const bool everything = op == Operator::kGreaterEqual && compare(version, release(0)) == 0;
    if (!everything) bounds_.push_back({op, std::move(version)});
    return true;
  }
  bool between(NpmVersion from, NpmVersion below) {
    const bool fits = add(Operator::kGreaterEqual, std::move(from));
    return add(Operator::kLess, std::move(below)) && fits;
  }

  /// "1.2 - 3" → ">=1.2.0", "<4.0.0-0". false: it is no hyphen range. One that is none after all is left as it is.
  bool expand_hyphen(std::vector<std::string>& words) {
    const auto hyphen = std::find(words.begin(), words.end(), "-");
    if (hyphen == words.end()) return false;
    const auto at = static_cast<std::size_t>(hyphen - words.begin());
    const std::string low = join(words, 0, at), high = join(words, at + 1, words.size());
    const auto from = parse_partial(low), to = parse_partial(high);
    if (!from || !to) return false;
    const bool exact_from = from->full(), exact_to = to->full() && to->pre_release.empty();
    if ((exact_from && !from->plain) || (exact_to && !to->plain)) {
      fault_ = from->plain ? high : low;
      return true;
    }
    words.clear();
    bool fits = true;
    if (exact_from) {
      fits = add(Operator::kGreaterEqual, {*from->major, *from->minor, *from->patch, from->pre_release});
    } else if (from->major) {
      fits = add(Operator::kGreaterEqual, release(*from->major, from->minor.value_or(0)));
    }
    if (to->full()) {
      fits = add(Operator::kLessEqual, {*to->major, *to->minor, *to->patch, to->pre_release}) && fits;
    } else if (to->major) {
      fits = add(Operator::kLess, to->minor ? floor_of(*to->major, *to->minor + 1) : floor_of(*to->major + 1)) && fits;
    }
    if (!fits) fault_ = low + " - " + high;
    return true;
  }

  /// "> 1.2" → ">1.2".
  static void attach_operators(std::vector<std::string>& words) {
    std::vector<std::string> attached;
    for (const std::string& word : words) {
      const std::string_view before = attached.empty() ? " " : std::string_view(attached.back());
      const char last = before.back();
      // To npm a second = begins the version.
      const bool compares =
          last == '<' || last == '>' || (last == '=' && !before.ends_with("==") && !before.ends_with("v="));
      const bool only_prefix = word.find_first_not_of("v=") == std::string::npos;
      if ((compares && !only_prefix) || last == '~' || last == '^') {
        attached.back() += word;
      } else {
        attached.push_back(word);
      }
    }
    words = std::move(attached);
  }

  bool parse_word(std::string_view word) {
    if (std::string_view rest = word; take(rest, "^")) {
      if (const auto partial = parse_partial(rest)) return add_caret(*partial);
    }
    if (std::string_view rest = word; take(rest, "~")) {
      take(rest, ">");
      if (const auto partial = parse_partial(rest)) return add_tilde(*partial);
    }
    std::string_view rest = word;
    const std::string_view op = take_operator(rest);
    const auto partial = parse_partial(rest);
    if (partial && !partial->full() && !partial->has_gap()) return add_x_range(op, *partial);
    return add_exact(word);
  }

  static std::string_view take_operator(std::string_view& text) {
    std::size_t size = !text.empty() && (text[0] == '<' || text[0] == '>') ? 1 : 0;
    if (text.size() > size && text[size] == '=') ++size;
    const std::string_view op = text.substr(0, size);
    text.remove_prefix(size);
    return op;
  }

  bool add_caret(const Partial& p) {
    if (!p.major) return true;
    const std::uint64_t major = *p.major;
    if (!p.minor) return between(release(major), floor_of(major + 1));
    const std::uint64_t minor = *p.minor;
    if (!p.patch) return between(release(major, minor), major == 0 ? floor_of(0, minor + 1) : floor_of(major + 1));
    const NpmVersion from{major, minor, *p.patch, p.pre_release};
    if (major != 0) return between(from, floor_of(major + 1));
    return between(from, minor != 0 ? floor_of(0, minor + 1) : floor_of(0, 0, *p.patch + 1));
  }

  bool add_tilde(const Partial& p) {
    if (!p.major) return true;
    if (!p.minor) return between(release(*p.major), floor_of(*p.major + 1));
    const NpmVersion below = floor_of(*p.major, *p.minor + 1);
    if (!p.patch) return between(release(*p.major, *p.minor), below);
    return between({*p.major, *p.minor, *p.patch, p.pre_release}, below);
  }

  bool add_x_range(std::string_view op, const Partial& p) {
    if (!p.major) return op == ">" || op == "<" ? add(Operator::kLess, floor_of(0)) : true;
    const NpmVersion next = p.minor ? release(*p.major, *p.minor + 1) : release(*p.major + 1);
    const NpmVersion below_next{next.major, next.minor, next.patch, {"0"}};
    const std::uint64_t minor = p.minor.value_or(0);
    if (op == ">") return add(Operator::kGreaterEqual, next);
    if (op == ">=") return add(Operator::kGreaterEqual, release(*p.major, minor));
    if (op == "<") return add(Operator::kLess, floor_of(*p.major, minor));
    if (op == "<=") return add(Operator::kLess, below_next);
    return between(release(*p.major, minor), below_next);
  }

  /// A whole version behind an operator, or nothing; npm strikes a star that stands where none has a meaning.
  bool add_exact(std::string_view word) {
    std::string text(word);
    if (std::size_t star = text.find('*'); star != std::string::npos) {
      std::size_t from = star;
      if (from > 0 && text[from - 1] == '=') --from;
      if (from > 0 && (text[from - 1] == '<' || text[from - 1] == '>')) --from;
      text.erase(from, star + 1 - from);
    }
    if (text.empty()) return true;
    std::string_view rest = text;
    const std::string_view op = take_operator(rest);
    auto version = NpmVersion::parse(rest);
    if (!version) return false;
    if (op == "<") return add(Operator::kLess, std::move(*version));
    if (op == "<=") return add(Operator::kLessEqual, std::move(*version));
    if (op == ">") return add(Operator::kGreater, std::move(*version));
    if (op == ">=") return add(Operator::kGreaterEqual, std::move(*version));
    return add(Operator::kEqual, std::move(*version));
  }

  NpmRange::Bounds bounds_;
  std::string fault_;
};

Result<NpmRange> NpmRange::parse(std::string_view text) {
  if (text.size() > kMaxText) return failure("the range has more than " + std::to_string(kMaxText) + " characters");
  NpmRange range;
  for (const std::string_view alternative : split(text, "||")) {
    NpmRangeParser parser;
    if (!parser.parse(alternative)) return failure("'" + parser.fault() + "' is no version or comparison of npm's");
    if (parser.impossible()) continue;
    range.alternatives_.push_back(parser.take_bounds());
  }
  // Where one alternative is every release, npm forgets the others, with the pre-releases that they would let in.
  const auto everything = std::find_if(range.alternatives_.begin(), range.alternatives_.end(),
                                       [](const Bounds& bounds) { return bounds.empty(); });
  if (everything != range.alternatives_.end()) range.alternatives_ = {{}};
  return range;
}

bool NpmRange::has(const NpmVersion& version) const {
  const auto holds = [&](const Bound& bound) {
    const auto order = compare(version, bound.version);
    switch (bound.op) {
      case Operator::kLess:
        return order < 0;
      case Operator::kLessEqual:
        return order <= 0;
      case Operator::kGreater:
        return order > 0;
      case Operator::kGreaterEqual:
        return order >= 0;
      case Operator::kEqual:
        return order == 0;
    }
    return false;
  };
  const auto names_it = [&](const Bound& bound) {
    return !bound.version.pre_release.empty() &&
           std::tie(bound.version.major, bound.version.minor, bound.version.patch) ==
               std::tie(version.major, version.minor, version.patch);
  };
  return std::any_of(alternatives_.begin(), alternatives_.end(), [&](const Bounds& bounds) {
    return std::all_of(bounds.begin(), bounds.end(), holds) &&
           (version.pre_release.empty() || std::any_of(bounds.begin(), bounds.end(), names_it));
  });
}

}  // namespace kai
