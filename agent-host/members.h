// The members of a request's params, looked up by the names that a method knows: the object is walked once, and the
// first member that is wrong makes the request INVALID, by its name.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "agent-host/json_view.h"
#include "agent-host/klp_error.h"

namespace kai {

class Members {
 public:
  /// Members that are not in `names` are left out of account. `where` begins an error's message; both outlive this.
  Members(const JsonView& object, std::span<const std::string_view> names, std::string_view where);

  /// nullopt: it is not there, or null.
  [[nodiscard]] std::optional<JsonView> given(std::string_view name) const;
  /// null is there.
  [[nodiscard]] std::optional<JsonView> given_or_null(std::string_view name) const;

  // Each fails and returns what is empty where the member is of another type; text, bytes and id also where it is not
  // there.
  std::string text(std::string_view name);
  std::string bytes(std::string_view name);  ///< base64
  std::uint32_t id(std::string_view name);
  std::optional<std::string> optional_text(std::string_view name);
  std::optional<std::string> optional_bytes(std::string_view name);
  std::optional<std::uint32_t> optional_id(std::string_view name);
  std::optional<std::uint64_t> optional_integer(std::string_view name);
  bool flag(std::string_view name);  ///< false where it is not there

  /// `rule` says what the member has to be.
  void fail(std::string_view name, std::string_view rule);
  /// The first that failed.
  [[nodiscard]] const std::optional<KlpError>& fault() const { return fault_; }

 private:
  std::span<const std::string_view> names_;
  std::string_view where_;
  std::vector<std::optional<JsonView>> values_;  // as names_
  std::optional<KlpError> fault_;
};

}  // namespace kai
