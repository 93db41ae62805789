// The signatures of an agent's messages (klp.md, Identity), by the kind of key that its manifest names:
//   ed25519    RFC 8032; key 32 bytes, signature 64.
//   secp256k1  ECDSA over SHA-256; key 33 bytes (compressed point), signature 64: r and s, most significant byte first,
//              with s in the lower half of the order, so that nobody can make a second signature of a message's one.
//   none       no key, no signatures.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "policies/manifest.h"

namespace kai {

/// SandboxSpec.crypto, which compile() writes: ed25519, secp256k1, none or empty.
Crypto crypto_named(std::string_view name);

class MessageSignature {
 public:
  /// Takes the public key of a hello. An error says what is wrong with it: its size, or it is no point of the curve.
  static Result<MessageSignature> of(Crypto crypto, std::string_view public_key);

  /// Of none, every message has its signature.
  [[nodiscard]] bool verify(std::string_view message, std::string_view signature) const;
  [[nodiscard]] bool required() const { return crypto_ != Crypto::kNone; }
  /// As it came; empty for none.
  [[nodiscard]] const std::string& public_key() const { return key_; }

 private:
  MessageSignature(Crypto crypto, std::string_view key) : crypto_(crypto), key_(key) {}
  Crypto crypto_;
  std::string key_;
};

}  // namespace kai
