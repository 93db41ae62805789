#include "audit/merkle.h"

#include <bit>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "audit/proof.h"

namespace kai::audit {
namespace {

std::string hex(const Hash& hash) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : hash) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

/// The definition of RFC 9162, 2.1.1, as it stands there.
Hash mth(const std::vector<Hash>& leaves, std::size_t begin, std::size_t count) {
  if (count == 1) return leaves[begin];
  const std::size_t split = std::bit_floor(count - 1);
  return node_hash(mth(leaves, begin, split), mth(leaves, begin + split, count - split));
}

class Leaves : public HashSource {
 public:
  explicit Leaves(std::size_t count) {
    for (std::size_t at = 0; at < count; ++at) leaves.push_back(leaf_hash("leaf " + std::to_string(at)));
  }
  Result<Hash> subtree(unsigned height, std::uint64_t position) override {
    return mth(leaves, position << height, std::size_t{1} << height);
  }
  std::vector<Hash> leaves;
};

TEST_CASE("the roots that Certificate Transparency publishes for its test leaves") {
  const std::vector<std::string> leaves = {"",
                                           std::string(1, '\0'),
                                           "\x10",
                                           "\x20\x21",
                                           "\x30\x31",
                                           "\x40\x41\x42\x43",
                                           "\x50\x51\x52\x53\x54\x55\x56\x57",
                                           "\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f"};
  const std::vector<std::string> roots = {"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                                          "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                                          "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
                                          "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
                                          "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                                          "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
                                          "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
                                          "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
                                          "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"};
  Frontier tree;
  CHECK(hex(tree.root()) == roots[0]);
  for (std::size_t at = 0; at < leaves.size(); ++at) {
    tree.append(leaf_hash(leaves[at]));
    CHECK(hex(tree.root()) == roots[at + 1]);
  }
}

TEST_CASE("a frontier gives the root of the definition, also after it was stored") {
  const Leaves tree(130);
  Frontier frontier;
  for (std::size_t size = 1; size <= tree.leaves.size(); ++size) {
    frontier.append(tree.leaves[size - 1]);
    CHECK(frontier.root() == mth(tree.leaves, 0, size));
    const auto again = Frontier::from(size, frontier.bytes());
    REQUIRE(again);
    CHECK(again->root() == frontier.root());
    CHECK_FALSE(Frontier::from(size, frontier.bytes() + "x"));
    CHECK_FALSE(Frontier::from(size, frontier.bytes().substr(32)));
  }
}

TEST_CASE("complete subtrees are told as they are completed") {
  const Leaves tree(64);
  Frontier frontier;
  std::size_t told = 0;
  for (std::size_t at = 0; at < 64; ++at) {
    frontier.append(tree.leaves[at], [&](unsigned height, const Hash& hash) {
      ++told;
      CHECK(hash == mth(tree.leaves, (at >> height) << height, std::size_t{1} << height));
    });
  }
  CHECK(told == 63);
}

TEST_CASE("every inclusion proof of every small tree holds, and for nothing else") {
  Leaves tree(40);
  for (std::uint64_t size = 1; size <= 40; ++size) {
    const Hash root = mth(tree.leaves, 0, size);
    for (std::uint64_t index = 0; index < size; ++index) {
      auto path = *inclusion_path(tree, index, size);
      CHECK(check_inclusion(tree.leaves[index], index, size, path, root));
      CHECK_FALSE(check_inclusion(tree.leaves[(index + 1) % 40], index, size, path, root));
      CHECK_FALSE(check_inclusion(tree.leaves[index], size, size, path, root));
      // The same path can hold for another index of the same shape only if the leaf were another.
      if (size > 1) CHECK_FALSE(check_inclusion(tree.leaves[index], (index + 1) % size, size, path, root));
      Path longer = path;
      longer.push_back(root);
      CHECK_FALSE(check_inclusion(tree.leaves[index], index, size, longer, root));
      if (path.empty()) continue;
      Path shorter(path.begin(), path.end() - 1);
      CHECK_FALSE(check_inclusion(tree.leaves[index], index, size, shorter, root));
      path.front()[0] ^= 1;
      CHECK_FALSE(check_inclusion(tree.leaves[index], index, size, path, root));
    }
  }
}

TEST_CASE("every consistency proof of every pair of small trees holds, and for nothing else") {
  Leaves tree(40);
  for (std::uint64_t size = 1; size <= 40; ++size) {
    const Hash root = mth(tree.leaves, 0, size);
    CHECK(check_consistency(0, Frontier().root(), size, root, {}));
    for (std::uint64_t old_size = 1; old_size <= size; ++old_size) {
      const Hash old_root = mth(tree.leaves, 0, old_size);
      auto path = *consistency_path(tree, old_size, size);
      CHECK(check_consistency(old_size, old_root, size, root, path));
      CHECK_FALSE(check_consistency(old_size, leaf_hash("another"), size, root, path));
      CHECK_FALSE(check_consistency(old_size, old_root, size, leaf_hash("another"), path));
      CHECK_FALSE(check_consistency(size + 1, old_root, size, root, path));
      Path longer = path;
      longer.push_back(root);
      CHECK_FALSE(check_consistency(old_size, old_root, size, root, longer));
      if (path.empty()) continue;
      path.back()[31] ^= 1;
      CHECK_FALSE(check_consistency(old_size, old_root, size, root, path));
    }
  }
}

}  // namespace
}  // namespace kai::audit
