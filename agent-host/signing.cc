#include "agent-host/signing.h"

#include <secp256k1.h>
#include <string.h>
#include <sys/random.h>

#include <cerrno>

#include <sodium/crypto_hash_sha256.h>
#include <sodium/crypto_sign_ed25519.h>

namespace kai {
namespace {

constexpr std::size_t kSignatureBytes = 64;  // of both kinds
constexpr std::size_t kSecp256k1KeyBytes = 32;
using Seed = std::array<unsigned char, 32>;

const unsigned char* unsigned_bytes(std::string_view bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

Result<> fill_random(unsigned char* out, std::size_t size) {
  // Up to 256 bytes come whole or not at all (getrandom(2)).
  ssize_t count = 0;
  do {
    count = getrandom(out, size, 0);
  } while (count < 0 && errno == EINTR);
  if (count != static_cast<ssize_t>(size)) return errno_failure("getrandom");
  return {};
}

}  // namespace

// libsodium without sodium_init(): that chooses among implementations of other primitives, and would link and touch
// them all. Ed25519 from a given seed and SHA-256 have one implementation, and no state.

SigningKey::~SigningKey() {
  explicit_bzero(secret_.data(), secret_.size());
  if (secp256k1_ != nullptr) secp256k1_context_destroy(secp256k1_);
}

Result<> SigningKey::make(std::string_view crypto) {
  if (crypto.empty() || crypto == "none") return {};
  if (crypto == "ed25519") return make_ed25519();
  if (crypto == "secp256k1") return make_secp256k1();
  return failure("unknown signature scheme", std::string(crypto));
}

Result<> SigningKey::make_ed25519() {
  static_assert(crypto_sign_ed25519_SECRETKEYBYTES == sizeof secret_ && crypto_sign_ed25519_SEEDBYTES == sizeof(Seed));
  static_assert(crypto_sign_ed25519_BYTES == kSignatureBytes);
  Seed seed;
  if (auto done = fill_random(seed.data(), seed.size()); !done) return done;
  std::array<unsigned char, crypto_sign_ed25519_PUBLICKEYBYTES> key;
  crypto_sign_ed25519_seed_keypair(key.data(), secret_.data(), seed.data());
  explicit_bzero(seed.data(), seed.size());
  public_key_.assign(key.begin(), key.end());
  kind_ = Kind::kEd25519;
  return {};
}

Result<> SigningKey::make_secp256k1() {
  secp256k1_ = secp256k1_context_create(SECP256K1_CONTEXT_NONE);
  if (secp256k1_ == nullptr) return failure("secp256k1_context_create");
  // Blinds the arithmetic with the secret against timing and power measurements.
  Seed blind;
  if (auto done = fill_random(blind.data(), blind.size()); !done) return done;
  const int randomized = secp256k1_context_randomize(secp256k1_, blind.data());
  explicit_bzero(blind.data(), blind.size());
  if (randomized != 1) return failure("secp256k1_context_randomize");
  do {  // again only for zero and for numbers over the group's order: once in 2^127
    if (auto done = fill_random(secret_.data(), kSecp256k1KeyBytes); !done) return done;
  } while (secp256k1_ec_seckey_verify(secp256k1_, secret_.data()) != 1);
  secp256k1_pubkey point;
  if (secp256k1_ec_pubkey_create(secp256k1_, &point, secret_.data()) != 1) return failure("secp256k1_ec_pubkey_create");
  std::array<unsigned char, 33> key;
  std::size_t size = key.size();
  secp256k1_ec_pubkey_serialize(secp256k1_, key.data(), &size, &point, SECP256K1_EC_COMPRESSED);
  public_key_.assign(key.begin(), key.end());
  kind_ = Kind::kSecp256k1;
  return {};
}

std::string SigningKey::sign(std::string_view bytes) const {
  if (kind_ == Kind::kNone) return {};
  std::array<unsigned char, kSignatureBytes> signature{};
  if (kind_ == Kind::kEd25519) {
    crypto_sign_ed25519_detached(signature.data(), nullptr, unsigned_bytes(bytes), bytes.size(), secret_.data());
  } else {
    std::array<unsigned char, crypto_hash_sha256_BYTES> hash;
    crypto_hash_sha256(hash.data(), unsigned_bytes(bytes), bytes.size());
    secp256k1_ecdsa_signature made;
    // RFC 6979: no random number whose fault would give the key away. It fails only for a key that is not valid.
    secp256k1_ecdsa_sign(secp256k1_, &made, hash.data(), secret_.data(), nullptr, nullptr);
    secp256k1_ecdsa_signature_serialize_compact(secp256k1_, signature.data(), &made);
  }
  return std::string(signature.begin(), signature.end());
}

}  // namespace kai
