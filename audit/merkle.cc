#include "audit/merkle.h"

#include <sodium.h>

#include <bit>
#include <cstring>

namespace kai::audit {
namespace {

constexpr unsigned char kLeaf = 0;
constexpr unsigned char kNode = 1;

const unsigned char* unsigned_bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

}  // namespace

Hash leaf_hash(std::string_view record) {
  Hash hash;
  crypto_hash_sha256_state state;
  crypto_hash_sha256_init(&state);
  crypto_hash_sha256_update(&state, &kLeaf, 1);
  crypto_hash_sha256_update(&state, unsigned_bytes(record), record.size());
  crypto_hash_sha256_final(&state, hash.data());
  return hash;
}

Hash node_hash(const Hash& left, const Hash& right) {
  std::array<unsigned char, 65> input;
  input[0] = kNode;
  std::memcpy(input.data() + 1, left.data(), left.size());
  std::memcpy(input.data() + 33, right.data(), right.size());
  Hash hash;
  crypto_hash_sha256(hash.data(), input.data(), input.size());
  return hash;
}

Hash hash_from(std::string_view bytes) {
  Hash hash{};
  std::memcpy(hash.data(), bytes.data(), std::min(bytes.size(), hash.size()));
  return hash;
}

Hash Frontier::root() const {
  Hash hash;
  if (size_ == 0) {
    // RFC 9162, 2.1.1: of no leaves, the hash of the empty string.
    crypto_hash_sha256(hash.data(), nullptr, 0);
    return hash;
  }
  auto height = static_cast<unsigned>(std::countr_zero(size_));
  hash = peaks_[height];
  for (++height; height < 64; ++height) {
    if ((size_ >> height & 1) != 0) hash = node_hash(peaks_[height], hash);
  }
  return hash;
}

std::string Frontier::bytes() const {
  std::string bytes;
  for (unsigned height = 64; height-- > 0;) {
    if ((size_ >> height & 1) != 0) bytes += bytes_of(peaks_[height]);
  }
  return bytes;
}

std::optional<Frontier> Frontier::from(std::uint64_t size, std::string_view bytes) {
  if (bytes.size() != static_cast<std::size_t>(std::popcount(size)) * sizeof(Hash)) return std::nullopt;
  Frontier frontier;
  frontier.size_ = size;
  for (unsigned height = 64; height-- > 0;) {
    if ((size >> height & 1) == 0) continue;
    frontier.peaks_[height] = hash_from(bytes.substr(0, sizeof(Hash)));
    bytes.remove_prefix(sizeof(Hash));
  }
  return frontier;
}

}  // namespace kai::audit
