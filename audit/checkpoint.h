// Tree heads as C2SP writes them: a checkpoint (c2sp.org/tlog-checkpoint) inside a signed note (c2sp.org/signed-note)
// with Ed25519 keys. docs/audit.md shows one.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "audit/merkle.h"
#include "base/result.h"

namespace kai::audit {

/// Longer ones are refused unread. Ours have some 250 bytes; witnesses may add lines.
inline constexpr std::size_t kMaxNote = 8192;

/// A verifier key: "NAME+HASH+BASE64", HASH 8 hex digits, BASE64 of 0x01 and the public key.
struct PublicKey {
  std::string name;
  std::array<std::uint8_t, 32> bytes{};
  std::uint32_t id = 0;  ///< the first four bytes of SHA-256(name ‖ LF ‖ 0x01 ‖ bytes)

  /// White space around it is ignored.
  static Result<PublicKey> parse(std::string_view text);
  [[nodiscard]] std::string text() const;
  friend bool operator==(const PublicKey&, const PublicKey&) = default;
};

class SecretKey {
 public:
  /// `name` empty: a new log, named kai/ and 16 hex digits of SHA-256 of the public key.
  static SecretKey generate(std::string_view name = {});
  /// "PRIVATE+KEY+NAME+HASH+BASE64", BASE64 of 0x01 and the 32 bytes of the seed.
  static Result<SecretKey> parse(std::string_view text);
  [[nodiscard]] std::string text() const;
  [[nodiscard]] const PublicKey& public_key() const { return public_key_; }

  SecretKey(SecretKey&&) noexcept = default;
  SecretKey& operator=(SecretKey&&) noexcept = default;
  ~SecretKey();

  /// The whole note: `text` (lines, each with its LF), an empty line, one signature line.
  [[nodiscard]] std::string sign(std::string_view text) const;

 private:
  SecretKey(std::string_view name, const std::array<std::uint8_t, 32>& seed);
  PublicKey public_key_;
  std::array<std::uint8_t, 64> secret_{};  // libsodium's: seed and public key
};

struct Checkpoint {
  std::string origin;  ///< names the log; ours is the name of its keys
  std::uint64_t size = 0;
  Hash root{};

  [[nodiscard]] std::string text() const;
};

/// What a note says, whoever signed it.
Result<Checkpoint> parse_checkpoint(std::string_view note);
/// The same, if `key` signed it and it is of the log that the key is named after.
Result<Checkpoint> open_checkpoint(std::string_view note, const PublicKey& key);

}  // namespace kai::audit
