// What an agent's program writes, made harmless for the operator's terminal.
#pragma once

#include <string>
#include <string_view>

namespace kai {

/// Escapes everything that could drive a terminal but line feeds and tabs. Takes bytes in any pieces: a character
/// that is not whole yet waits for the rest of it.
class TerminalFilter {
 public:
  std::string feed(std::string_view bytes);
  /// What was waiting, at the end of the stream.
  std::string finish();

 private:
  std::string waiting_;  // at most 3 bytes
};

}  // namespace kai
