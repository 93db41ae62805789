#include "supervisor/control/message_signature.h"

#include <secp256k1.h>
#include <sodium.h>

#include <array>

namespace kai {
namespace {

constexpr std::size_t kSecp256k1KeyBytes = 33;
constexpr std::size_t kSecp256k1SignatureBytes = 64;

const unsigned char* bytes_of(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

/// For verifying only; it knows no secrets.
const secp256k1_context* secp256k1() {
  static const secp256k1_context* context = [] {
    secp256k1_selftest();
    return secp256k1_context_static;
  }();
  return context;
}

std::string size_fault(std::string_view kind, std::size_t size, std::size_t right) {
  return "a public key of " + std::string(kind) + " has " + std::to_string(right) + " bytes, this one " +
         std::to_string(size);
}

std::string fault_of(Crypto crypto, std::string_view key) {
  switch (crypto) {
    case Crypto::kNone:
      return key.empty() ? "" : "it has a public key, and its manifest says crypto: none";
    case Crypto::kEd25519:
      if (key.size() != crypto_sign_PUBLICKEYBYTES)
        return size_fault("ed25519", key.size(), crypto_sign_PUBLICKEYBYTES);
      return crypto_core_ed25519_is_valid_point(bytes_of(key)) == 1 ? "" : "its public key is no point of ed25519";
    case Crypto::kSecp256k1: {
      if (key.size() != kSecp256k1KeyBytes) return size_fault("secp256k1", key.size(), kSecp256k1KeyBytes);
      secp256k1_pubkey parsed;
      return secp256k1_ec_pubkey_parse(secp256k1(), &parsed, bytes_of(key), key.size()) == 1
                 ? ""
                 : "its public key is no point of secp256k1";
    }
  }
  return "its crypto is unknown";
}

bool verify_secp256k1(std::string_view key, std::string_view message, std::string_view signature) {
  if (signature.size() != kSecp256k1SignatureBytes) return false;
  secp256k1_pubkey parsed_key;
  secp256k1_ecdsa_signature parsed;
  if (secp256k1_ec_pubkey_parse(secp256k1(), &parsed_key, bytes_of(key), key.size()) != 1) return false;
  if (secp256k1_ecdsa_signature_parse_compact(secp256k1(), &parsed, bytes_of(signature)) != 1) return false;
  std::array<unsigned char, crypto_hash_sha256_BYTES> digest;
  crypto_hash_sha256(digest.data(), bytes_of(message), message.size());
  // An upper s is refused by the library itself.
  return secp256k1_ecdsa_verify(secp256k1(), &parsed, digest.data(), &parsed_key) == 1;
}

}  // namespace

Crypto crypto_named(std::string_view name) {
  if (name == "ed25519") return Crypto::kEd25519;
  return name == "secp256k1" ? Crypto::kSecp256k1 : Crypto::kNone;
}

Result<MessageSignature> MessageSignature::of(Crypto crypto, std::string_view public_key) {
  if (const std::string fault = fault_of(crypto, public_key); !fault.empty()) return failure(fault);
  return MessageSignature(crypto, public_key);
}

bool MessageSignature::verify(std::string_view message, std::string_view signature) const {
  switch (crypto_) {
    case Crypto::kNone:
      return true;
    case Crypto::kEd25519:
      return signature.size() == crypto_sign_BYTES &&
             crypto_sign_verify_detached(bytes_of(signature), bytes_of(message), message.size(), bytes_of(key_)) == 0;
    case Crypto::kSecp256k1:
      return verify_secp256k1(key_, message, signature);
  }
  return false;
}

}  // namespace kai
