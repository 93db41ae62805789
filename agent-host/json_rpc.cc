#include "agent-host/json_rpc.h"

#include "agent-host/json_text.h"
#include "agent-host/limits.h"

namespace kai {
namespace {

constexpr std::string_view kPrefix = "{\"jsonrpc\":\"2.0\"";
constexpr std::size_t kFrameText = 64;  // more than the fixed text of any message here

/// Ids that we send back must be short, and what JSON-RPC allows: a string or a number.
bool is_request_id(const JsonView& id) {
  return id.text().size() <= kMaxRpcIdBytes && (id.is_string() || id.number());
}

struct Parts {
  std::optional<JsonView> version, id, method, params, result, error;
};

Parts split(const JsonView& object) {
  Parts parts;
  for (JsonView::Items items(object); items.next();) {
    if (items.name_is("jsonrpc")) parts.version = items.value();
    if (items.name_is("id")) parts.id = items.value();
    if (items.name_is("method")) parts.method = items.value();
    if (items.name_is("params")) parts.params = items.value();
    if (items.name_is("result")) parts.result = items.value();
    if (items.name_is("error")) parts.error = items.value();
  }
  return parts;
}

void append_call(std::string& line, std::string_view method, std::string_view params_json) {
  append_name(line, "method");
  append_json_string(line, method);
  append_name(line, "params");
  line += params_json;
  line += "}\n";
}

}  // namespace

void LineDecoder::feed(std::string_view bytes) {
  if (start_ > 0) {
    buffer_.erase(0, start_);
    scanned_ -= start_;
    start_ = 0;
  }
  buffer_ += bytes;
}

std::optional<std::string_view> LineDecoder::next() {
  if (overlong_) return std::nullopt;
  const std::size_t end = buffer_.find('\n', scanned_);
  scanned_ = end == std::string::npos ? buffer_.size() : end + 1;
  const std::size_t length = (end == std::string::npos ? buffer_.size() : end) - start_;
  if (length > kMaxLineBytes) {
    overlong_ = true;
    return std::nullopt;
  }
  if (end == std::string::npos) {
    // A big line's memory goes back when all has been dealt with.
    if (length == 0 && buffer_.capacity() > 4 * kReadBytes) {
      std::string().swap(buffer_);
      start_ = scanned_ = 0;
    }
    return std::nullopt;
  }
  const auto line = std::string_view(buffer_).substr(start_, length);
  start_ = end + 1;
  return line;
}

tl::expected<RpcMessage, RpcFault> parse_rpc(std::string_view line) {
  const auto json = JsonView::parse(line);
  if (!json) return tl::unexpected(RpcFault{RpcCode::kParseError, "the line is not JSON in UTF-8", {}});
  if (!json->is_object()) return tl::unexpected(RpcFault{RpcCode::kInvalidRequest, "the line is not an object", {}});
  const Parts parts = split(*json);
  const bool known_id = parts.id && is_request_id(*parts.id);
  const auto fault = [&](const char* message) {
    // An answer gets no answer, or two broken peers would talk for ever.
    const bool tell = known_id && !parts.result && !parts.error;
    return tl::unexpected(RpcFault{RpcCode::kInvalidRequest, message, tell ? parts.id->text() : std::string_view()});
  };
  if (!parts.version || parts.version->text() != "\"2.0\"") return fault("jsonrpc is not \"2.0\"");
  if (parts.id && !known_id) return fault("id is not a short string or a number");

  RpcMessage message;
  if (parts.id) message.id = parts.id->text();
  if (parts.method) {
    if (parts.result || parts.error) return fault("a message has either method, result or error");
    auto name = parts.method->string();
    if (!name || name->size() > kMaxNameBytes) return fault("method is not a short string");
    if (parts.params && !parts.params->is_object()) return fault("params is not an object");
    message.kind = parts.id ? RpcMessage::Kind::kRequest : RpcMessage::Kind::kNotification;
    message.method = std::move(*name);
    message.content = parts.params;
    return message;
  }
  if (!parts.id || parts.result.has_value() == parts.error.has_value()) {
    return fault("a message has either method, result or error, and an answer has an id");
  }
  if (parts.error && !parts.error->is_object()) return fault("error is not an object");
  message.kind = parts.result ? RpcMessage::Kind::kResult : RpcMessage::Kind::kError;
  message.content = parts.result ? parts.result : parts.error;
  return message;
}

bool is_method_not_found(const JsonView& error) {
  const auto code = error.member("code");
  return code && code->text() == std::to_string(static_cast<int>(RpcCode::kMethodNotFound));
}

std::string rpc_request(std::uint64_t id, std::string_view method, std::string_view params_json) {
  std::string line;
  line.reserve(kFrameText + method.size() + params_json.size());
  line += kPrefix;
  append_name(line, "id");
  append_decimal(line, id);
  append_call(line, method, params_json);
  return line;
}

std::string rpc_notification(std::string_view method, std::string_view params_json) {
  std::string line;
  line.reserve(kFrameText + method.size() + params_json.size());
  line += kPrefix;
  append_call(line, method, params_json);
  return line;
}

std::string rpc_result(std::string_view id_json, std::string_view result_json) {
  std::string line;
  line.reserve(kFrameText + id_json.size() + result_json.size());
  line += kPrefix;
  append_name(line, "id");
  line += id_json;
  append_name(line, "result");
  line += result_json;
  line += "}\n";
  return line;
}

std::string rpc_error(std::string_view id_json, RpcCode code, const KlpError& error) {
  std::string line(kPrefix);
  append_name(line, "id");
  line += id_json;
  line += ",\"error\":{";
  append_name(line, "code");
  append_json_number(line, static_cast<int>(code));
  append_name(line, "message");
  append_json_string(line, error.message);
  append_name(line, "data");
  line += '{';
  append_name(line, "code");
  append_json_string(line, error.code);
  if (!error.details_json.empty()) {
    append_name(line, "details");
    append_json_on_one_line(line, error.details_json);
  }
  append_name(line, "retryable");
  line += error.retryable ? "true}}}\n" : "false}}}\n";
  return line;
}

}  // namespace kai
