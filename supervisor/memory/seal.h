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

/// The node's key: 32 random bytes in a file of mode 0600. Made where there is none and `make`; read and checked else.
Result<SealKey> load_node_key(const std::string& path, bool make);
/// BLAKE2b of the agent's id, keyed with the node's key (libsodium's crypto_generichash).
SealKey agent_key(const SealKey& node_key, std::string_view agent_id);

[[nodiscard]] std::string seal(const SealKey& key, std::string_view value, std::string_view place);
/// nullopt: it was not sealed with this key at this place.
[[nodiscard]] std::optional<std::string> unseal(const SealKey& key, std::string_view sealed, std::string_view place);

}  // namespace kai
