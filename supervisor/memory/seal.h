// Encryption at rest (the policy's memoryEncryption): values as XChaCha20-Poly1305 with a random nonce, under a key of
// the agent's own that is derived from the node's. The place of a value (its key, its store) is authenticated with it:
// what was moved to another place does not open. Keys are not encrypted: the store has to find and order them.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace kai {

using SealKey = std::array<unsigned char, 32>;

inline constexpr std::size_t kSealOverheadBytes = 24 + 16;  ///< nonce and tag

/// The node's key: 32 random bytes in a file of mode 0600. Made where there never was one and `make`; read and checked
/// else. That there was one is kept beside it, in PATH.made: a key that is missing then is not made again, as what was
/// encrypted with the first would be lost by it.
Result<SealKey> load_node_key(const std::string& path, bool make);
/// Memory may have been encrypted with a key of this path: load_node_key() makes none there.
[[nodiscard]] bool node_key_was_made(const std::string& path);
/// BLAKE2b of the agent's id, keyed with the node's key (libsodium's crypto_generichash).
SealKey agent_key(const SealKey& node_key, std::string_view agent_id);

[[nodiscard]] std::string seal(const SealKey& key, std::string_view value, std::string_view place);
/// nullopt: it was not sealed with this key at this place.
[[nodiscard]] std::optional<std::string> unseal(const SealKey& key, std::string_view sealed, std::string_view place);

}  // namespace kai
