// Inclusion and consistency proofs of RFC 9162, 2.1.3 and 2.1.4: made from a tree that somebody keeps, and checked with
// nothing but hashes.
#pragma once

#include <cstdint>
#include <vector>

#include "audit/merkle.h"
#include "base/result.h"

namespace kai::audit {

/// A tree to make proofs from.
class HashSource {
 public:
  virtual ~HashSource() = default;
  /// Of the complete subtree over the leaves [position · 2^height, (position + 1) · 2^height).
  virtual Result<Hash> subtree(unsigned height, std::uint64_t position) = 0;
};

using Path = std::vector<Hash>;
/// The longest path of a tree of fewer than 2^63 leaves; a longer one is refused unread.
inline constexpr std::size_t kMaxPath = 63;

/// Requires index < size.
Result<Path> inclusion_path(HashSource& tree, std::uint64_t index, std::uint64_t size);
/// Requires 0 < old_size <= size.
Result<Path> consistency_path(HashSource& tree, std::uint64_t old_size, std::uint64_t size);

bool check_inclusion(const Hash& leaf, std::uint64_t index, std::uint64_t size, const Path& path, const Hash& root);
/// An old size of 0 is consistent with everything, by an empty path.
bool check_consistency(std::uint64_t old_size, const Hash& old_root, std::uint64_t size, const Hash& root,
                       const Path& path);

}  // namespace kai::audit
