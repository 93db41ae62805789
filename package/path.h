// What a package's tar may have: names, symlinks, how much of it may be compressed. kaictl refuses them when it makes
// or checks a package, control when it takes one: by the same rules, which are these.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace kai::package {

inline constexpr std::size_t kMaxName = 255;   ///< bytes of one component, as the kernel has it
inline constexpr std::size_t kMaxPath = 1024;  ///< bytes of a path or a symlink's text

/// A member's name as a path below the root: without leading "./" and trailing "/"; "" is the root. Absolute names,
/// "..", control characters, bytes that are not UTF-8 and what is over the limits are refused.
Result<std::string> member_path(std::string_view name, std::size_t max_depth);

/// Whether a symlink at `path` with this text stays inside the package however its target is reached: relative, ".."
/// only at its beginning, and not more of them than there are directories above it.
Result<> check_symlink(std::string_view path, std::string_view target);

/// Whether an archive of `packed` bytes is a bomb: it gives more than kMaxRatio times as many unpacked ones. Source
/// text comes to about 5. Up to kRatioFrom the ratio says nothing: a tar's headers are mostly zeros.
bool is_bomb(std::uint64_t packed, std::uint64_t unpacked);
inline constexpr std::uint64_t kMaxRatio = 100;
inline constexpr std::uint64_t kRatioFrom = 64ULL << 20;

/// The error for a package that is at fault: errno 0, and a message for the operator that names the member.
tl::unexpected<Error> refused(std::string_view member, std::string_view why);

}  // namespace kai::package
