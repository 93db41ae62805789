// The runner protocol's lines: JSON-RPC 2.0, one message a line (LF), no batches. What comes from the runner is
// hostile; docs/runner-protocol.md says what each method means.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "agent-host/json_view.h"
#include "agent-host/klp_error.h"

namespace kai {

/// Takes bytes in any pieces, gives whole lines without their LF.
class LineDecoder {
 public:
  void feed(std::string_view bytes);
  /// The next whole line; nullopt: more bytes are needed. The view holds until the next call of feed() or next().
  std::optional<std::string_view> next();
  /// A line, ended or not, is longer than kMaxLineBytes. There is no way on from here: the sender is ended.
  [[nodiscard]] bool overlong() const { return overlong_; }

 private:
  std::string buffer_;
  std::size_t start_ = 0;    // of what next() has not given out yet
  std::size_t scanned_ = 0;  // no LF before here: a line that comes byte by byte is searched once
  bool overlong_ = false;
};

/// One message of the runner's, as views into its line.
struct RpcMessage {
  enum class Kind { kRequest, kNotification, kResult, kError };
  Kind kind = Kind::kNotification;
  std::string_view id;              ///< JSON text: of a request any string or number, of an answer what we gave
  std::string method;               ///< of requests and notifications
  std::optional<JsonView> content;  ///< params (may be absent), result or error
};

/// JSON-RPC's own error codes, and kAgentError for what a hook threw.
enum class RpcCode {
  kParseError = -32700,
  kInvalidRequest = -32600,
  kMethodNotFound = -32601,
  kInvalidParams = -32602,
  kAgentError = -32000
};

/// Why a line is not a message. `id` is not empty where the sender can be told.
struct RpcFault {
  RpcCode code = RpcCode::kParseError;
  std::string message;
  std::string_view id;
};

tl::expected<RpcMessage, RpcFault> parse_rpc(std::string_view line);

/// `error` is the error object of an answer: the runner does not know the method.
bool is_method_not_found(const JsonView& error);

// Lines to the runner, LF included. Arguments named *_json are JSON already, on one line.

std::string rpc_request(std::uint64_t id, std::string_view method, std::string_view params_json);
std::string rpc_notification(std::string_view method, std::string_view params_json);
std::string rpc_result(std::string_view id_json, std::string_view result_json);
/// The error as data: {code, details?, retryable}.
std::string rpc_error(std::string_view id_json, RpcCode code, const KlpError& error);

}  // namespace kai
