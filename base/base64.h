// Base64 (RFC 4648, section 4) for payloads that are not JSON.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace kai {

void append_base64(std::string& out, std::string_view bytes);
/// nullopt: a character outside the alphabet, wrong padding, or bits that no byte holds.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace kai
