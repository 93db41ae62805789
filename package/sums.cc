#include "package/sums.h"

#include <sodium.h>

#include <algorithm>
#include <optional>

#include "base/text.h"

namespace kai::package {
namespace {

constexpr std::size_t kHexLength = 2 * std::tuple_size_v<Sha256>;
constexpr std::size_t kMaxShown = 200;
constexpr std::string_view kSymlink = "# symlink";
constexpr std::string_view kArrow = " -> ";

std::string shown(std::string_view path) {
  std::string text = escape_for_terminal(path.substr(0, kMaxShown));
  if (path.size() > kMaxShown) text += "...";
  return text;
}

tl::unexpected<Error> bad_line(std::size_t number, std::string_view why) {
  return failure("line " + std::to_string(number) + " of SHA256SUMS " + std::string(why));
}

/// What is written as a backslash and a letter.
struct Escapes {
  std::string_view characters;
  std::string_view letters;  // one for each
};
constexpr Escapes kOfFiles = {"\\\n\r", "\\nr"};
constexpr Escapes kOfSymlinks = {"\\\n\r>", "\\nr>"};

/// nullopt: a backslash before anything but those letters.
std::optional<std::string> unescape(std::string_view text, const Escapes& escapes) {
  std::string path;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '\\') {
      path += text[at];
      continue;
    }
    const std::size_t which = ++at < text.size() ? escapes.letters.find(text[at]) : std::string_view::npos;
    if (which == std::string_view::npos) return std::nullopt;
    path += escapes.characters[which];
  }
  return path;
}

std::string escape(std::string_view path, const Escapes& escapes) {
  std::string text;
  for (const char letter : path) {
    const std::size_t which = escapes.characters.find(letter);
    if (which == std::string_view::npos) {
      text += letter;
    } else {
      text += '\\';
      text += escapes.letters[which];
    }
  }
  return text;
}

/// Whether each component is a name: not empty, "." or "..".
bool is_plain_path(std::string_view path) {
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    begin = end + 1;
  }
  return path.find('\0') == std::string_view::npos;
}

Result<> check_path(std::string_view path, std::size_t number) {
  if (!is_plain_path(path)) {
    return bad_line(number, "names " + shown(path) + ", which is no path below the package's root; make it there");
  }
  if (path == kSumsFile || path == kSignatureFile) {
    return bad_line(number, "names " + std::string(path) + ", which cannot be listed in SHA256SUMS itself");
  }
  return {};
}

Result<> take_file(Sums& sums, std::string_view line, std::size_t number) {
  const bool escaped = line.starts_with('\\');
  if (escaped) line.remove_prefix(1);
  Sha256 sum;
  std::size_t decoded = 0;
  // "  " was read as text, " *" as binary, which is the same here.
  const bool separated = line.size() > kHexLength + 2 && line[kHexLength] == ' ' &&
                         (line[kHexLength + 1] == ' ' || line[kHexLength + 1] == '*');
  if (!separated || sodium_hex2bin(sum.data(), sum.size(), line.data(), kHexLength, nullptr, &decoded, nullptr) != 0 ||
      decoded != sum.size()) {
    return bad_line(number, "is not of the form that sha256sum writes: 64 hex digits, two spaces, path");
  }
  line.remove_prefix(kHexLength + 2);
  auto path = escaped ? unescape(line, kOfFiles) : std::string(line);
  if (!path) return bad_line(number, "has a backslash that begins no \\\\, \\n or \\r, as sha256sum would write it");
  while (path->starts_with("./")) path->erase(0, 2);
  if (auto checked = check_path(*path, number); !checked) return checked;
  if (!sums.files.emplace(*path, sum).second) return bad_line(number, "names " + shown(*path) + " a second time");
  return {};
}

std::string symlink_line(std::string_view path, std::string_view target) {
  std::string line(kSymlink);
  line += ' ';
  line += escape(path, kOfSymlinks);
  line += kArrow;
  line += escape(target, kOfSymlinks);
  return line;
}

Result<> take_symlink(Sums& sums, std::string_view line, std::size_t number) {
  const std::size_t begin = kSymlink.size() + 1;
  const std::size_t arrow = line.find(kArrow, std::min(begin, line.size()));
  std::optional<std::string> path;
  std::optional<std::string> target;
  if (arrow != std::string_view::npos) {
    path = unescape(line.substr(begin, arrow - begin), kOfSymlinks);
    target = unescape(line.substr(arrow + kArrow.size()), kOfSymlinks);
  }
  // One way to write it and no other: nothing else can be read into the line.
  if (!path || !target || target->empty() || line != symlink_line(*path, *target)) {
    return bad_line(number,
                    "begins as a symlink's and is not of its form: # symlink PATH -> TARGET, with \\ before \\ and >");
  }
  if (auto checked = check_path(*path, number); !checked) return checked;
  if (sums.symlinks.size() == kMaxSymlinks) {
    return bad_line(number, "is of one symlink more than the " + std::to_string(kMaxSymlinks) + " that may be listed");
  }
  if (!sums.symlinks.emplace(*path, *target).second) {
    return bad_line(number, "names " + shown(*path) + " a second time");
  }
  return {};
}

Result<> take_line(Sums& sums, std::string_view line, std::size_t number) {
  if (line.starts_with(kSymlink)) return take_symlink(sums, line, number);
  if (line.starts_with('#')) return {};
  return take_file(sums, line, number);
}

template <typename Value>
using ByPath = std::map<std::string, Value, std::less<>>;

/// `kind`: "file"; `difference`: what is wrong with one whose value is another.
template <typename Value>
Result<> check_each(const ByPath<Value>& listed, const ByPath<Value>& found, std::string_view kind,
                    std::string_view difference, bool all_listed) {
  const auto wrong = [kind](std::string_view path, std::string_view why) {
    return failure("the " + std::string(kind) + " " + shown(path) + " " + std::string(why));
  };
  // Both are sorted: side by side, the first difference in the order of the paths is the one to name.
  auto expected = listed.begin();
  auto actual = found.begin();
  while (expected != listed.end() || actual != found.end()) {
    if (actual == found.end() || (expected != listed.end() && expected->first < actual->first)) {
      return wrong(expected->first, "is listed in SHA256SUMS but is not in the package");
    }
    if (expected == listed.end() || actual->first < expected->first) {
      if (all_listed) return wrong(actual->first, "is in the package but is not listed in SHA256SUMS");
      ++actual;
      continue;
    }
    if (expected->second != actual->second) return wrong(actual->first, difference);
    ++expected;
    ++actual;
  }
  return {};
}

}  // namespace

Sha256Hash::Sha256Hash() : state_() {
  crypto_hash_sha256_init(&state_);
}

void Sha256Hash::update(std::string_view bytes) {
  crypto_hash_sha256_update(&state_, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
}

Sha256 Sha256Hash::finish() {
  Sha256 sum;
  crypto_hash_sha256_final(&state_, sum.data());
  return sum;
}

Result<Sums> parse_sums(std::string_view text) {
  if (text.size() > kMaxSumsBytes) {
    return failure("SHA256SUMS is larger than " + std::to_string(kMaxSumsBytes >> 20) + " MB");
  }
  Sums sums;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (auto taken = take_line(sums, text.substr(0, end), number); !taken) return tl::unexpected(taken.error());
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return sums;
}

std::string format_sums(const Sums& sums) {
  std::string text;
  for (const auto& [path, sum] : sums.files) {
    std::array<char, kHexLength + 1> hex;
    sodium_bin2hex(hex.data(), hex.size(), sum.data(), sum.size());
    const std::string escaped = escape(path, kOfFiles);
    if (escaped != path) text += '\\';
    text += hex.data();
    text += "  ";
    text += escaped;
    text += '\n';
  }
  for (const auto& [path, target] : sums.symlinks) text += symlink_line(path, target) + '\n';
  return text;
}

Result<> check_sums(const Sums& listed, const Sums& found, UnlistedSymlinks unlisted) {
  auto files = check_each(listed.files, found.files, "file", "does not have the check sum that SHA256SUMS lists", true);
  if (!files) return files;
  return check_each(listed.symlinks, found.symlinks, "symlink", "does not lead where SHA256SUMS says",
                    unlisted == UnlistedSymlinks::kRefused);
}

}  // namespace kai::package
