// Key pairs of both kinds, and what they sign, for tests.
#pragma once

#include <secp256k1.h>
#include <sodium.h>

#include <array>
#include <cstdlib>
#include <string>
#include <string_view>

namespace kai::test {

inline const unsigned char* octets(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

template <std::size_t Size>
std::string text_of(const std::array<unsigned char, Size>& bytes) {
  return {bytes.begin(), bytes.end()};
}

class Ed25519Key {
 public:
  /// The same seed makes the same key.
  explicit Ed25519Key(unsigned char seed = 1) {
    std::array<unsigned char, crypto_sign_SEEDBYTES> bytes{};
    bytes.fill(seed);
    crypto_sign_seed_keypair(public_.data(), secret_.data(), bytes.data());
  }
  [[nodiscard]] std::string public_key() const { return text_of(public_); }
  [[nodiscard]] std::string sign(std::string_view message) const {
    std::array<unsigned char, crypto_sign_BYTES> signature{};
    crypto_sign_detached(signature.data(), nullptr, octets(message), message.size(), secret_.data());
    return text_of(signature);
  }

 private:
  std::array<unsigned char, crypto_sign_PUBLICKEYBYTES> public_{};
  std::array<unsigned char, crypto_sign_SECRETKEYBYTES> secret_{};
};

class Secp256k1Key {
 public:
  explicit Secp256k1Key(unsigned char seed = 1) { secret_.fill(seed); }
  ~Secp256k1Key() { secp256k1_context_destroy(context_); }
  Secp256k1Key(const Secp256k1Key&) = delete;
  Secp256k1Key& operator=(const Secp256k1Key&) = delete;

  [[nodiscard]] std::string public_key() const {
    secp256k1_pubkey point;
    if (secp256k1_ec_pubkey_create(context_, &point, secret_.data()) != 1) std::abort();
    std::array<unsigned char, 33> bytes{};
    std::size_t size = bytes.size();
    secp256k1_ec_pubkey_serialize(context_, bytes.data(), &size, &point, SECP256K1_EC_COMPRESSED);
    return text_of(bytes);
  }
  [[nodiscard]] std::string sign(std::string_view message) const {
    std::array<unsigned char, crypto_hash_sha256_BYTES> digest{};
    crypto_hash_sha256(digest.data(), octets(message), message.size());
    secp256k1_ecdsa_signature made;
    if (secp256k1_ecdsa_sign(context_, &made, digest.data(), secret_.data(), nullptr, nullptr) != 1) std::abort();
    std::array<unsigned char, 64> signature{};
    secp256k1_ecdsa_signature_serialize_compact(context_, signature.data(), &made);
    return text_of(signature);
  }

 private:
  secp256k1_context* context_ = secp256k1_context_create(SECP256K1_CONTEXT_NONE);
  std::array<unsigned char, 32> secret_{};
};

}  // namespace kai::test
