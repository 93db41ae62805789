// What writer and reader of exported memory share.
#pragma once

#include <sodium.h>

#include <array>
#include <string>
#include <string_view>

namespace kai {

inline constexpr std::string_view kDumpFormat = "kai-memory/1";

/// SHA-256 of lines, each with its LF.
class DumpSum {
 public:
  DumpSum() { crypto_hash_sha256_init(&state_); }
  void add(std::string_view line) {
    const unsigned char end = '\n';
    crypto_hash_sha256_update(&state_, reinterpret_cast<const unsigned char*>(line.data()), line.size());
    crypto_hash_sha256_update(&state_, &end, 1);
  }
  /// Lower-case hex of the lines so far.
  [[nodiscard]] std::string hex() const {
    crypto_hash_sha256_state copy = state_;
    std::array<unsigned char, crypto_hash_sha256_BYTES> hash;
    crypto_hash_sha256_final(&copy, hash.data());
    std::array<char, 2 * crypto_hash_sha256_BYTES + 1> text;
    return sodium_bin2hex(text.data(), text.size(), hash.data(), hash.size());
  }

 private:
  crypto_hash_sha256_state state_;
};

}  // namespace kai
