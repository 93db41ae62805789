// The agent's own key pair (security.crypto): made here when the agent starts, and gone with this process. The public
// half goes to control with the hello; no one else ever has the secret, the runner neither: it is made after the runner
// was exec'd, and this process cannot be looked into (it is not dumpable, sandbox/confine.h).
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "base/result.h"

struct secp256k1_context_struct;

namespace kai {

class SigningKey {
 public:
  SigningKey() = default;
  ~SigningKey();
  SigningKey(const SigningKey&) = delete;
  SigningKey& operator=(const SigningKey&) = delete;

  /// `crypto` is ed25519, secp256k1, none or empty; with the last two the key stays empty and signs nothing.
  Result<> make(std::string_view crypto);

  /// False for none.
  [[nodiscard]] bool makes_signatures() const { return kind_ != Kind::kNone; }
  /// ed25519: 32 bytes (RFC 8032); secp256k1: 33 bytes (SEC 1, compressed); none: empty.
  [[nodiscard]] const std::string& public_key() const { return public_key_; }
  /// 64 bytes; none: empty. secp256k1: ECDSA over SHA-256 of `bytes`, r and s big-endian, s in the lower half.
  [[nodiscard]] std::string sign(std::string_view bytes) const;

 private:
  enum class Kind { kNone, kEd25519, kSecp256k1 };
  Result<> make_ed25519();
  Result<> make_secp256k1();

  Kind kind_ = Kind::kNone;
  std::string public_key_;
  std::array<unsigned char, 64> secret_{};         // ed25519: seed and public key; secp256k1: 32 bytes
  secp256k1_context_struct* secp256k1_ = nullptr;  // made for the agents that need it, a few hundred bytes
};

}  // namespace kai
