// minisign's formats (https://jedisct1.github.io/minisign/#signature-format, minisign 0.10): public keys, secret keys
// and detached signatures, both the hashed form ("ED", over BLAKE2b-512 of the file) and the legacy one ("Ed", over the
// file itself). What this signs, minisign -V accepts, and the other way round. Pure but for memory: no files, no
// terminal.
//
// What is parsed here came with a package from somebody who is not trusted: an error says what is wrong with it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace kai::package {

struct MinisignPublicKey {
  std::array<unsigned char, 8> id{};
  std::array<unsigned char, 32> key{};  ///< Ed25519

  /// The base64 line of a .pub file: "RW…", as operator policies have it under trustedKeys.
  [[nodiscard]] std::string text() const;
  bool operator==(const MinisignPublicKey&) const = default;
};

/// A .pub file, or its base64 line alone.
Result<MinisignPublicKey> parse_public_key(std::string_view text);

struct MinisignSignature {
  bool hashed = true;  ///< "ED"; false: the legacy "Ed"
  std::array<unsigned char, 8> key_id{};
  std::array<unsigned char, 64> signature{};
  std::string trusted_comment;                       ///< covered by global_signature
  std::array<unsigned char, 64> global_signature{};  ///< over signature and trusted_comment
};
inline constexpr std::size_t kMaxSignatureBytes = 16 << 10;  ///< of a .minisig file

Result<MinisignSignature> parse_signature(std::string_view text);

/// Both signatures hold, and are by `key`. An error says which does not.
Result<> verify(const MinisignSignature& signature, const MinisignPublicKey& key, std::string_view message);

/// Held only as long as it is needed: the destructor wipes it.
class MinisignSecretKey {
 public:
  MinisignSecretKey(const MinisignSecretKey&) = delete;
  MinisignSecretKey& operator=(const MinisignSecretKey&) = delete;
  MinisignSecretKey(MinisignSecretKey&&) noexcept;
  MinisignSecretKey& operator=(MinisignSecretKey&&) noexcept;
  ~MinisignSecretKey();

  [[nodiscard]] MinisignPublicKey public_key() const;
  /// A whole .minisig file, hashed form. `trusted_comment`: one line.
  [[nodiscard]] std::string sign(std::string_view message, std::string_view trusted_comment) const;

 private:
  friend Result<MinisignSecretKey> parse_secret_key(std::string_view text, std::string_view password);
  MinisignSecretKey() = default;
  std::array<unsigned char, 8> id_{};
  std::array<unsigned char, 64> key_{};
};

/// Whether a secret key file is encrypted: `minisign -G` asks for a password, `minisign -G -W` does not.
Result<bool> needs_password(std::string_view secret_key_file);
/// A secret key file. A wrong password is an error that says so; `password` is ignored where none is needed. The key is
/// derived by scrypt with the file's own limits, up to those that minisign itself writes.
Result<MinisignSecretKey> parse_secret_key(std::string_view text, std::string_view password);

/// Overwrites a password or a secret key's text that is needed no longer, and empties it.
void wipe(std::string& secret);

}  // namespace kai::package
