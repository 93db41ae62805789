#include "kaictl/failure.h"

#include <unistd.h>

#include <array>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/unix.h"

namespace kai {

int exit_code_of(std::string_view code) {
  static constexpr std::array<std::pair<std::string_view, int>, 10> kCodes = {{
      {"NOT_FOUND", kExitNotFound},
      {"DENIED", kExitRefused},
      {"INVALID", kExitRefused},
      {"UNKNOWN_CAPABILITY", kExitRefused},
      {"TOO_LARGE", kExitRefused},
      {"REPLAY", kExitRefused},
      {"BAD_SIGNATURE", kExitRefused},
      {"QUARANTINED", kExitQuarantined},
      {"TIMEOUT", kExitTimeout},
      {"EXPIRED", kExitTimeout},
  }};
  for (const auto& [name, exit_code] : kCodes) {
    if (name == code) return exit_code;
  }
  return kExitFailed;
}

tl::unexpected<Failure> fail(std::string_view code, std::string message, std::string hint) {
  Failure failure;
  failure.exit_code = exit_code_of(code);
  failure.code = code;
  failure.message = std::move(message);
  failure.hint = std::move(hint);
  failure.retryable = code == "TIMEOUT" || code == "BUSY" || code == "UNAVAILABLE";
  return tl::unexpected(std::move(failure));
}

tl::unexpected<Failure> local_failure(std::string what, const Error& error, std::string hint) {
  Failure failure;
  failure.message = std::move(what) + ": " + error.message();
  failure.hint = std::move(hint);
  return tl::unexpected(std::move(failure));
}

std::string failure_text(const Failure& failure) {
  std::string line = "kaictl: " + failure.message;
  if (!failure.code.empty()) line += " (" + failure.code + ")";
  if (!failure.hint.empty()) line += ". " + failure.hint;
  return escape_for_terminal(line);
}

std::string failure_json(const Failure& failure) {
  nlohmann::ordered_json details = nlohmann::ordered_json::parse(failure.details_json, nullptr, false);
  if (!details.is_object()) details = nlohmann::ordered_json::object();
  const nlohmann::ordered_json document = {{"error",
                                            {{"code", failure.code},
                                             {"message", failure.message},
                                             {"details", std::move(details)},
                                             {"retryable", failure.retryable},
                                             {"hint", failure.hint}}}};
  // A message may quote bytes that are no UTF-8 (a file's name): they become U+FFFD.
  return document.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

int report(const Failure& failure, OutputFormat format) {
  const bool has_document = format == OutputFormat::kJson && !failure.document.empty();
  const std::string line = has_document                    ? failure.document
                           : format == OutputFormat::kJson ? failure_json(failure)
                                                           : failure_text(failure);
  // Nothing is left to say where even standard error cannot be written.
  static_cast<void>(write_all(has_document ? STDOUT_FILENO : STDERR_FILENO, line + "\n"));
  return failure.exit_code;
}

}  // namespace kai
