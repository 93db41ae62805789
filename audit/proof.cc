#include "audit/proof.h"

#include <bit>

namespace kai::audit {
namespace {

/// The largest power of two below `count`, which is at least 2.
std::uint64_t split_of(std::uint64_t count) {
  return std::bit_floor(count - 1);
}

/// MTH(D[begin:begin + count]); `begin` is a multiple of the power of two at or above `count`, as all ranges of the two
/// algorithms are.
Result<Hash> range_hash(HashSource& tree, std::uint64_t begin, std::uint64_t count) {
  if (std::has_single_bit(count)) {
    const auto height = static_cast<unsigned>(std::countr_zero(count));
    return tree.subtree(height, begin >> height);
  }
  const std::uint64_t split = split_of(count);
  const auto left = range_hash(tree, begin, split);
  if (!left) return left;
  const auto right = range_hash(tree, begin + split, count - split);
  if (!right) return right;
  return node_hash(*left, *right);
}

/// PATH(m, D[begin:begin + count]), from the leaf upwards.
Result<> append_path(HashSource& tree, std::uint64_t m, std::uint64_t begin, std::uint64_t count, Path& path) {
  if (count == 1) return {};
  const std::uint64_t split = split_of(count);
  const bool left = m < split;
  const auto below = left ? append_path(tree, m, begin, split, path)
                          : append_path(tree, m - split, begin + split, count - split, path);
  if (!below) return below;
  const auto sibling = left ? range_hash(tree, begin + split, count - split) : range_hash(tree, begin, split);
  if (!sibling) return tl::unexpected(sibling.error());
  path.push_back(*sibling);
  return {};
}

/// SUBPROOF(m, D[begin:begin + count], known).
Result<> append_subproof(HashSource& tree, std::uint64_t m, std::uint64_t begin, std::uint64_t count, bool known,
                         Path& path) {
  if (m == count) {
    if (known) return {};
    const auto whole = range_hash(tree, begin, count);
    if (!whole) return tl::unexpected(whole.error());
    path.push_back(*whole);
    return {};
  }
  const std::uint64_t split = split_of(count);
  const bool left = m <= split;
  const auto below = left ? append_subproof(tree, m, begin, split, known, path)
                          : append_subproof(tree, m - split, begin + split, count - split, false, path);
  if (!below) return below;
  const auto sibling = left ? range_hash(tree, begin + split, count - split) : range_hash(tree, begin, split);
  if (!sibling) return tl::unexpected(sibling.error());
  path.push_back(*sibling);
  return {};
}

}  // namespace

Result<Path> inclusion_path(HashSource& tree, std::uint64_t index, std::uint64_t size) {
  Path path;
  if (auto made = append_path(tree, index, 0, size, path); !made) return tl::unexpected(made.error());
  return path;
}

Result<Path> consistency_path(HashSource& tree, std::uint64_t old_size, std::uint64_t size) {
  Path path;
  if (auto made = append_subproof(tree, old_size, 0, size, true, path); !made) return tl::unexpected(made.error());
  return path;
}

// RFC 9162, 2.1.3.2, with its names.
bool check_inclusion(const Hash& leaf, std::uint64_t index, std::uint64_t size, const Path& path, const Hash& root) {
  if (index >= size) return false;
  std::uint64_t fn = index;
  std::uint64_t sn = size - 1;
  Hash r = leaf;
  for (const Hash& p : path) {
    if (sn == 0) return false;
    if ((fn & 1) != 0 || fn == sn) {
      r = node_hash(p, r);
      while ((fn & 1) == 0 && fn != 0) {
        fn >>= 1;
        sn >>= 1;
      }
    } else {
      r = node_hash(r, p);
    }
    fn >>= 1;
    sn >>= 1;
  }
  return sn == 0 && r == root;
}

// RFC 9162, 2.1.4.2, with its names.
bool check_consistency(std::uint64_t old_size, const Hash& old_root, std::uint64_t size, const Hash& root,
                       const Path& path) {
  if (old_size > size) return false;
  if (old_size == 0) return path.empty();
  if (old_size == size) return path.empty() && old_root == root;
  Path nodes;
  if (std::has_single_bit(old_size)) nodes.push_back(old_root);
  nodes.insert(nodes.end(), path.begin(), path.end());
  if (nodes.empty()) return false;
  std::uint64_t fn = old_size - 1;
  std::uint64_t sn = size - 1;
  while ((fn & 1) != 0) {
    fn >>= 1;
    sn >>= 1;
  }
  Hash fr = nodes[0];
  Hash sr = nodes[0];
  for (std::size_t at = 1; at < nodes.size(); ++at) {
    const Hash& c = nodes[at];
    if (sn == 0) return false;
    if ((fn & 1) != 0 || fn == sn) {
      fr = node_hash(c, fr);
      sr = node_hash(c, sr);
      while ((fn & 1) == 0 && fn != 0) {
        fn >>= 1;
        sn >>= 1;
      }
    } else {
      sr = node_hash(sr, c);
    }
    fn >>= 1;
    sn >>= 1;
  }
  return sn == 0 && fr == old_root && sr == root;
}

}  // namespace kai::audit
