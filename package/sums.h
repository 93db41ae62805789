// SHA256SUMS of a package, as sha256sum(1) of GNU coreutils writes and checks it: `HEX  PATH` a line, `\HEX  PATH`
// where the path has a backslash or a line feed (escaped there). Every regular file of the package is in it but itself
// and its signature. Symlinks, of which sha256sum knows nothing, are in comments, which it passes over:
// `# symlink PATH -> TARGET`, with the same escapes and \> for >, so that the arrow is the line's only one.
#pragma once

#include <array>
#include <map>
#include <string>
#include <string_view>

#include <sodium/crypto_hash_sha256.h>

#include "base/result.h"

namespace kai::package {

inline constexpr std::string_view kSumsFile = "SHA256SUMS";
inline constexpr std::string_view kSignatureFile = "SHA256SUMS.minisig";
inline constexpr std::size_t kMaxSumsBytes = 32 << 20;
inline constexpr std::size_t kMaxSymlinks = 100'000;  ///< lines; no package has more entries

using Sha256 = std::array<unsigned char, 32>;

/// By path relative to the package's root.
struct Sums {
  std::map<std::string, Sha256, std::less<>> files = {};
  std::map<std::string, std::string, std::less<>> symlinks = {};  ///< their texts

  bool operator==(const Sums&) const = default;
};

/// SHA-256 of what comes in pieces.
class Sha256Hash {
 public:
  Sha256Hash();
  void update(std::string_view bytes);
  [[nodiscard]] Sha256 finish();

 private:
  crypto_hash_sha256_state state_;
};

/// Paths as sha256sum prints them below the root: "main.py" or "./main.py", which are the same. The same path twice, an
/// absolute one or one with ".." is an error, as is a line of any other form; of comments, one that begins with
/// `# symlink` and is not as format_sums writes it.
Result<Sums> parse_sums(std::string_view text);
/// Files, then symlinks, in the order of the paths; `sha256sum -c` accepts it.
std::string format_sums(const Sums& sums);

/// What a list says nothing of that sha256sum alone made.
enum class UnlistedSymlinks { kRefused, kAllowed };
/// `listed` against what is there: an error names the first file or symlink that is missing, differs, or is not listed.
Result<> check_sums(const Sums& listed, const Sums& found, UnlistedSymlinks unlisted = UnlistedSymlinks::kRefused);

}  // namespace kai::package
