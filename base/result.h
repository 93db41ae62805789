// Errors as values. Libraries return them, only programs print or log them (docs/architecture.md).
#pragma once

#include <cerrno>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

namespace kai {

/// What went wrong, in three parts: the operation that failed, errno where the kernel said why (else 0), and what it
/// was tried on. An agent's end is not an Error: see proto/keeper.proto, AgentExited.
struct Error {
  std::string what;      ///< the operation, as a step or system call: "mount /proc", "openat2"
  int error_number = 0;  ///< errno, or 0
  std::string context;   ///< path, name or value it was tried on; may be empty

  /// One line: "openat2 /agent/main.ts: No such file or directory".
  [[nodiscard]] std::string message() const;
};

template <typename T = void>
using Result = tl::expected<T, Error>;

/// An Error from a message alone.
[[nodiscard]] inline tl::unexpected<Error> failure(std::string what, std::string context = {}) {
  return tl::unexpected(Error{std::move(what), 0, std::move(context)});
}

/// An Error from errno, which is read before anything else can change it.
[[nodiscard]] inline tl::unexpected<Error> errno_failure(std::string_view what, std::string_view context = {}) {
  const int saved = errno;
  return tl::unexpected(Error{std::string(what), saved, std::string(context)});
}

}  // namespace kai
