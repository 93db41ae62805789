// Why a request was not done: one of klp.md's error codes, a sentence for a person, and what to do next.
#pragma once

#include <string>
#include <string_view>

#include <tl/expected.hpp>

namespace kai {

struct Failure {
  std::string code;          ///< NOT_FOUND, DENIED, … (klp.md); kaictl makes its exit code of it
  std::string message;       ///< what happened and why
  std::string hint;          ///< what to do next; may be empty
  std::string details_json;  ///< a JSON object, or empty
  bool retryable = false;
  std::string from{};  ///< the agent that says so; empty: kaid
};

template <typename T = void>
using Outcome = tl::expected<T, Failure>;

/// The codes that klp.md calls retryable and that control uses.
[[nodiscard]] inline bool is_retryable(std::string_view code) {
  return code == "BUSY" || code == "TIMEOUT" || code == "AGENT_CRASHED" || code == "UNAVAILABLE";
}

[[nodiscard]] inline tl::unexpected<Failure> refuse(std::string code, std::string message, std::string hint = {}) {
  const bool retryable = is_retryable(code);
  return tl::unexpected(Failure{std::move(code), std::move(message), std::move(hint), {}, retryable});
}

}  // namespace kai
