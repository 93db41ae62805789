#include "agent-host/klp_message.h"

#include <algorithm>
#include <array>

#include "agent-host/json_rpc.h"
#include "agent-host/json_text.h"
#include "agent-host/limits.h"
#include "base/base64.h"
#include "base/text.h"
#include "base/timestamp.h"

namespace kai {
namespace {

constexpr std::string_view kJsonType = "application/json";
constexpr std::string_view kBinaryType = "application/octet-stream";
/// What an agent may say about its own hooks. The others are the supervisor's words: an agent that says QUARANTINED or
/// TIMEOUT would mislead the operator.
constexpr std::array<std::string_view, 9> kAgentCodes = {"AGENT_ERROR",        "INVALID",     "NOT_FOUND",
                                                         "UNKNOWN_CAPABILITY", "BUSY",        "CONFLICT",
                                                         "TOO_LARGE",          "UNAVAILABLE", "QUOTA_EXCEEDED"};
constexpr std::string_view kTopic = "topic:";
constexpr std::size_t kMaxEventNameBytes = 64;  // as an id
constexpr std::size_t kMaxTopicBytes = kMaxAddressBytes - kTopic.size();
constexpr std::string_view kMetadataRule =
    "`metadata` may have `priority` (low, normal, high, urgent), `ttl` (whole seconds) and `traceparent` (W3C)";
constexpr std::array<std::string_view, 4> kPriorities = {"normal", "low", "high", "urgent"};  // by klp::Priority

tl::unexpected<KlpError> klp_error(std::string code, std::string message) {
  return tl::unexpected(KlpError{std::move(code), std::move(message), {}, false});
}

bool is_json_type(std::string_view content_type) {
  return content_type.empty() || content_type == kJsonType ||
         (content_type.starts_with(kJsonType) && content_type[kJsonType.size()] == ';');
}

bool has_expired(const klp::Message& message) {
  const std::uint32_t ttl = message.metadata().ttl_seconds();
  const auto sent = parse_iso_time(message.timestamp());
  return ttl > 0 && (!sent || *sent + std::int64_t{ttl} * 1000 < unix_ms());
}

/// `"payload":…` or `"payloadBase64":…,"contentType":…`; false: said to be JSON and is not.
bool append_payload(std::string& out, const klp::Message& message) {
  if (is_json_type(message.content_type())) {
    if (!JsonView::parse(message.payload())) return false;
    append_name(out, "payload");
    append_json_on_one_line(out, message.payload());
    return true;
  }
  append_name(out, "payloadBase64");
  out += '"';
  append_base64(out, message.payload());
  out += '"';
  append_name(out, "contentType");
  append_json_string(out, message.content_type());
  return true;
}

bool is_lower_hex(std::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

/// W3C Trace Context: version-trace-parent-flags. Version ff, and ids of zeros only, are invalid there.
bool is_traceparent(std::string_view text) {
  if (text.size() != 55 || text[2] != '-' || text[35] != '-' || text[52] != '-') return false;
  const auto version = text.substr(0, 2);
  const auto trace = text.substr(3, 32);
  const auto parent = text.substr(36, 16);
  const auto zero = [](std::string_view id) { return id.find_first_not_of('0') == std::string_view::npos; };
  return is_lower_hex(version) && is_lower_hex(trace) && is_lower_hex(parent) && is_lower_hex(text.substr(53)) &&
         version != "ff" && !zero(trace) && !zero(parent);
}

void append_metadata(std::string& out, const klp::Metadata& metadata) {
  append_name(out, "metadata");
  out += '{';
  const auto priority = static_cast<std::size_t>(metadata.priority());
  append_name(out, "priority");
  append_json_string(out, kPriorities[priority < kPriorities.size() ? priority : 0]);
  if (metadata.ttl_seconds() > 0) {
    append_name(out, "ttl");
    append_decimal(out, metadata.ttl_seconds());
  }
  if (is_traceparent(metadata.traceparent())) {
    append_name(out, "traceparent");
    append_json_string(out, metadata.traceparent());
  }
  out += '}';
}

void append_member(std::string& out, std::string_view name, std::string_view text) {
  if (text.empty()) return;
  append_name(out, name);
  append_json_string(out, text);
}

std::string text_member(const JsonView& object, std::string_view name, std::size_t limit) {
  const auto value = object.member(name);
  const auto text = value ? value->string() : std::nullopt;
  return text ? std::string(clip_utf8(*text, limit)) : std::string();
}

klp::Message new_message(klp::Type type, std::string_view sender) {
  klp::Message message;
  message.set_protocol("klp/1.0");
  message.set_id(new_uuid());
  message.set_from(std::string(sender));
  message.set_type(type);
  message.set_timestamp(iso_now());
  return message;
}

klp::Message new_answer(klp::Type type, const Correspondent& to, std::string_view sender) {
  klp::Message message = new_message(type, sender);
  message.set_to(to.address);
  message.set_correlation_id(to.id);
  return message;
}

/// Fills payload and contentType from the member `name` or `payloadBase64`; false: the wrong types. Neither: JSON null,
/// which is what a hook that returns nothing means.
bool take_payload(const JsonView& object, std::string_view name, klp::Message& message) {
  const auto base64 = object.member("payloadBase64");
  if (!base64) {
    const auto payload = object.member(name);
    message.set_payload(payload ? std::string(payload->text()) : "null");
    return true;
  }
  const auto text = base64->string();
  auto bytes = text ? decode_base64(*text) : std::nullopt;
  if (!bytes) return false;
  message.set_payload(std::move(*bytes));
  const auto type = object.member("contentType");
  const auto type_text = type ? type->string() : std::string(kBinaryType);
  if (!type_text || type_text->empty() || type_text->size() > kMaxNameBytes) return false;
  message.set_content_type(*type_text);
  return !is_json_type(*type_text) || JsonView::parse(message.payload()).has_value();
}

std::optional<JsonView> given_member(const JsonView& object, std::string_view name) {
  auto value = object.member(name);
  if (value && value->is_null()) return std::nullopt;
  return value;
}

/// The member `metadata`. False: it, or a member of it, is not well-formed, and was left out.
bool take_metadata(const JsonView& given, klp::Message& message) {
  const auto metadata = given_member(given, "metadata");
  if (!metadata) return true;
  if (!metadata->is_object()) return false;
  bool whole = true;
  if (const auto priority = given_member(*metadata, "priority")) {
    const auto known = std::find(kPriorities.begin(), kPriorities.end(), priority->string().value_or(""));
    if (known != kPriorities.end()) {
      message.mutable_metadata()->set_priority(static_cast<klp::Priority>(known - kPriorities.begin()));
    } else {
      whole = false;
    }
  }
  if (const auto ttl = given_member(*metadata, "ttl")) {
    const auto seconds = ttl->unsigned_integer();
    if (seconds && *seconds <= UINT32_MAX) {
      message.mutable_metadata()->set_ttl_seconds(static_cast<std::uint32_t>(*seconds));
    } else {
      whole = false;
    }
  }
  if (const auto traceparent = given_member(*metadata, "traceparent")) {
    const std::string text = traceparent->string().value_or("");
    if (is_traceparent(text)) {
      message.mutable_metadata()->set_traceparent(text);
    } else {
      whole = false;
    }
  }
  return whole;
}

/// What an agent may call a topic, or its part of one.
bool is_topic_name(std::string_view name, std::size_t limit) {
  constexpr const char* kFirst = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  constexpr const char* kAny = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
  return name.size() <= limit && name.find_first_of(kFirst) == 0 &&
         name.find_first_not_of(kAny) == std::string_view::npos;
}

std::string details_of(const JsonView& data) {
  std::string details = "{";
  append_member(details, "name", text_member(data, "name", kMaxNameBytes));
  append_member(details, "stack", text_member(data, "stack", kMaxStackBytes));
  const auto more = data.member("details");
  if (more && !more->is_null() && more->text().size() <= kMaxDetailsBytes) {
    append_name(details, "details");
    append_json_on_one_line(details, more->text());
  }
  details += '}';
  return details == "{}" ? std::string() : details;
}

}  // namespace

tl::expected<std::string, KlpError> message_json(const klp::Message& message) {
  if (has_expired(message)) return klp_error("EXPIRED", "the message's ttl had passed when it reached the agent");
  std::string json;
  json.reserve(message.payload().size() + 512);
  json += "{\"protocol\":\"klp/1.0\"";
  append_member(json, "id", message.id());
  append_member(json, "from", message.from());
  append_member(json, "to", message.to());
  append_member(json, "type", message.type() == klp::EVENT ? "event" : "request");
  append_member(json, "correlationId", message.correlation_id());
  append_member(json, "capability", message.capability());
  append_member(json, "timestamp", message.timestamp());
  if (!append_payload(json, message)) {
    return klp_error("INVALID", "the payload is not JSON (contentType application/json), or is nested deeper than " +
                                    std::to_string(kMaxJsonDepth));
  }
  if (message.has_metadata()) append_metadata(json, message.metadata());
  json += '}';
  return json;
}

tl::expected<std::string, KlpError> send_result(const klp::Message& answer) {
  if (answer.type() != klp::RESPONSE) {
    const klp::ErrorBody& error = answer.error();
    // The details are another agent's JSON: they go on only if they are JSON.
    const auto details = JsonView::parse(error.details_json());
    return tl::unexpected(KlpError{error.code(), error.message(),
                                   details ? std::string(details->text()) : std::string(), error.retryable()});
  }
  std::string result = "{";
  if (!append_payload(result, answer)) return klp_error("INVALID", "the answer's payload is not JSON");
  result += '}';
  return result;
}

tl::expected<klp::Message, KlpError> response_message(const JsonView& result, const Correspondent& to,
                                                      std::string_view sender) {
  const auto whole = result.member("message");
  const JsonView& source = whole ? *whole : result;
  klp::Message message = new_answer(klp::RESPONSE, to, sender);
  if (!source.is_object() || !take_payload(source, "payload", message)) {
    return klp_error("AGENT_ERROR", "the agent's answer is not {payload}, {payloadBase64, contentType} or {message}");
  }
  // All else of a whole message is stamped here. Metadata that is not well-formed never costs an answer.
  if (whole) (void)take_metadata(*whole, message);
  return message;
}

klp::ErrorBody error_body(const KlpError& error) {
  klp::ErrorBody body;
  body.set_code(error.code);
  body.set_message(error.message);
  body.set_details_json(error.details_json);
  body.set_retryable(error.retryable);
  return body;
}

klp::Message error_message(const KlpError& error, const Correspondent& to, std::string_view sender) {
  klp::Message message = new_answer(klp::ERROR, to, sender);
  *message.mutable_error() = error_body(error);
  return message;
}

KlpError error_of_hook(const JsonView& error) {
  KlpError klp{"AGENT_ERROR", text_member(error, "message", kMaxErrorMessageBytes), {}, false};
  if (klp.message.empty()) klp.message = "the hook failed and gave no message";
  if (is_method_not_found(error)) klp.code = "UNKNOWN_CAPABILITY";
  const auto data = error.member("data");
  if (!data || !data->is_object()) return klp;
  const std::string code = text_member(*data, "code", kMaxNameBytes);
  if (std::find(kAgentCodes.begin(), kAgentCodes.end(), code) != kAgentCodes.end()) klp.code = code;
  const auto retryable = data->member("retryable");
  const auto said = retryable ? retryable->boolean() : std::nullopt;
  klp.retryable = said ? *said : klp.code == "BUSY" || klp.code == "UNAVAILABLE";
  klp.details_json = details_of(*data);
  return klp;
}

tl::expected<SendRequest, KlpError> send_request(const JsonView& params, std::string_view sender) {
  const auto to = params.member("to");
  const auto to_text = to ? to->string() : std::nullopt;
  if (!to_text || to_text->empty() || to_text->size() > kMaxAddressBytes) {
    return klp_error("INVALID", "klp.send: `to` has to be an agent's id, or topic:NAME");
  }
  const bool topic = to_text->starts_with(kTopic);
  if (topic && !is_topic_name(std::string_view(*to_text).substr(kTopic.size()), kMaxTopicBytes)) {
    return klp_error("INVALID", "klp.send: a topic's name has letters, digits, `.`, `_` and `-`");
  }
  SendRequest request{new_message(topic ? klp::EVENT : klp::REQUEST, sender), 0};
  request.message.set_to(*to_text);
  if (!take_payload(params, "payload", request.message)) {
    return klp_error("INVALID", "klp.send: `payloadBase64` has to be base64, `contentType` a short string");
  }
  if (!take_metadata(params, request.message)) return klp_error("INVALID", "klp.send: " + std::string(kMetadataRule));
  if (topic) return request;  // nobody answers, and nobody has capabilities
  const auto capability = params.member("capability");
  const auto capability_text = capability ? capability->string() : std::nullopt;
  if (!capability_text || capability_text->empty() || capability_text->size() > kMaxNameBytes) {
    return klp_error("INVALID", "klp.send: `capability` has to be one of the receiver's capabilities");
  }
  request.message.set_capability(*capability_text);
  if (const auto timeout = given_member(params, "timeoutMs")) {
    const auto ms = timeout->number();
    if (!ms || *ms < 1 || *ms > static_cast<double>(kMaxMessageDeadlineMs)) {
      return klp_error("INVALID", "klp.send: `timeoutMs` has to be a number from 1 to 86400000");
    }
    request.timeout_ms = static_cast<std::uint32_t>(*ms);
    request.message.set_deadline_ms(request.timeout_ms);
  }
  return request;
}

tl::expected<klp::Message, KlpError> emit_event(const JsonView& params, std::string_view sender) {
  const auto name = params.member("name");
  const auto text = name ? name->string() : std::nullopt;
  if (!text || !is_topic_name(*text, kMaxEventNameBytes)) {
    return klp_error("INVALID",
                     "klp.emit: `name` has to begin with a letter or digit and have at most 64 letters, "
                     "digits, `.`, `_` and `-`");
  }
  klp::Message event = new_message(klp::EVENT, sender);
  event.set_to(std::string(kTopic) + std::string(sender) + "." + *text);
  if (!take_payload(params, "data", event)) {
    return klp_error("INVALID", "klp.emit: `payloadBase64` has to be base64, `contentType` a short string");
  }
  if (!take_metadata(params, event)) return klp_error("INVALID", "klp.emit: " + std::string(kMetadataRule));
  return event;
}

}  // namespace kai
