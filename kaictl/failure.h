// How a command fails: the exit codes of contracts.md, and the one line or one document that says so.
#pragma once

#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "base/result.h"

namespace kai {

enum class OutputFormat { kText, kJson };

/// Exit codes of kaictl (contracts.md). `run` has its own: 125, 126, 127 and the program's.
inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitUnreachable = 3;
inline constexpr int kExitNotFound = 4;
inline constexpr int kExitRefused = 5;
inline constexpr int kExitQuarantined = 6;
inline constexpr int kExitTimeout = 7;
inline constexpr int kExitRunFailed = 125;
inline constexpr int kExitRunNotExecutable = 126;
inline constexpr int kExitRunNotFound = 127;

struct Failure {
  int exit_code = kExitFailed;
  std::string code = "INTERNAL";  ///< of klp.md's list
  std::string message;            ///< what and why, without a full stop
  std::string hint;               ///< what to do next; may be empty
  std::string details_json;       ///< a JSON object, or empty
  bool retryable = false;
  std::string document;  ///< goes to standard output in JSON mode, instead of {"error":…}: status not_found
};

template <typename T = void>
using Outcome = tl::expected<T, Failure>;

/// The exit code that contracts.md gives an error code.
int exit_code_of(std::string_view code);

/// A failure whose exit code follows from its code.
[[nodiscard]] tl::unexpected<Failure> fail(std::string_view code, std::string message, std::string hint = {});
/// A failure on the operator's own side (a file that cannot be read): exit code 1.
[[nodiscard]] tl::unexpected<Failure> local_failure(std::string what, const Error& error, std::string hint = {});

/// One line without its LF, control characters escaped: "kaictl: MESSAGE (CODE). HINT".
std::string failure_text(const Failure& failure);
/// {"error":{code,message,details,retryable,hint}}, without LF.
std::string failure_json(const Failure& failure);

/// Writes the failure where contracts.md wants it and returns its exit code.
int report(const Failure& failure, OutputFormat format);

}  // namespace kai
