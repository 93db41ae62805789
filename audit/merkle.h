// The Merkle tree of RFC 9162 over records: SHA-256, leaves hashed as 0x00 ‖ bytes, nodes as 0x01 ‖ left ‖ right. What
// is kept to append is the frontier: one hash for each 1 bit of the size.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kai::audit {

using Hash = std::array<std::uint8_t, 32>;

Hash leaf_hash(std::string_view record);
Hash node_hash(const Hash& left, const Hash& right);

[[nodiscard]] inline std::string_view bytes_of(const Hash& hash) {
  return {reinterpret_cast<const char*>(hash.data()), hash.size()};
}
/// `bytes` must be 32 long.
Hash hash_from(std::string_view bytes);

/// The right edge of a tree: enough to append and to tell the root.
class Frontier {
 public:
  /// `completed(height, hash)` is called for each complete subtree of 2^height leaves, height > 0, that ends here.
  template <typename Completed>
  void append(const Hash& leaf, Completed&& completed) {
    Hash hash = leaf;
    unsigned height = 0;
    for (std::uint64_t left = size_; (left & 1) != 0; left >>= 1) {
      hash = node_hash(peaks_[height], hash);
      completed(++height, hash);
    }
    peaks_[height] = hash;
    ++size_;
  }
  void append(const Hash& leaf) {
    append(leaf, [](unsigned, const Hash&) {});
  }

  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] Hash root() const;

  /// The hashes of the 1 bits of the size, the highest first: what a database keeps of it.
  [[nodiscard]] std::string bytes() const;
  /// nullopt: not as many hashes as `size` has 1 bits.
  static std::optional<Frontier> from(std::uint64_t size, std::string_view bytes);

 private:
  std::uint64_t size_ = 0;
  std::array<Hash, 64> peaks_{};  // [height], where that bit of the size is 1
};

}  // namespace kai::audit
