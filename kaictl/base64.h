// Base64 of RFC 4648, as payloadBase64 has it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace kai {

/// nullopt: a character that is none of the alphabet, or a length that no encoder makes.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace kai
