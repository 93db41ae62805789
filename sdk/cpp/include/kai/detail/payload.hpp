// Payloads and values between their JSON-RPC form ({payload} or {payloadBase64, contentType}) and Json.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "kai/message.hpp"

namespace kai::detail {

inline constexpr std::string_view kBase64Digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

inline std::string encode_base64(const std::vector<std::uint8_t>& bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - at);
    std::uint32_t group = 0;
    for (std::size_t i = 0; i < 3; ++i) group = group << 8 | (i < count ? bytes[at + i] : 0u);
    for (std::size_t i = 0; i < 4; ++i) text += i <= count ? kBase64Digits[group >> (18 - 6 * i) & 63u] : '=';
  }
  return text;
}

/// Throws std::invalid_argument for what is not base64.
inline std::vector<std::uint8_t> decode_base64(std::string_view text) {
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  std::vector<std::uint8_t> bytes;
  bytes.reserve(text.size() * 3 / 4);
  std::uint32_t group = 0;
  unsigned bits = 0;
  for (const char digit : text) {
    const std::size_t value = kBase64Digits.find(digit);
    if (value == std::string_view::npos) throw std::invalid_argument("not base64");
    group = group << 6 | static_cast<std::uint32_t>(value);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes.push_back(static_cast<std::uint8_t>(group >> bits & 0xffu));
    }
  }
  return bytes;
}

/// name is "payload" or "value".
inline Json encode_body(const Json& value, const std::string& name) {
  if (!value.is_binary()) return {{name, value}};
  return {{name + "Base64", encode_base64(value.get_binary())}, {"contentType", "application/octet-stream"}};
}

/// What klp.emit publishes: JSON is called "data" there.
inline Json encode_data(const Json& value) {
  if (!value.is_binary()) return {{"data", value}};
  return encode_body(value, "payload");
}

inline void add_metadata(Json& params, const Metadata& metadata) {
  Json given = Json::object();
  if (!metadata.priority.empty()) given["priority"] = metadata.priority;
  if (metadata.ttl) given["ttl"] = *metadata.ttl;
  if (!metadata.traceparent.empty()) given["traceparent"] = metadata.traceparent;
  if (!given.empty()) params["metadata"] = std::move(given);
}

inline Json decode_body(const Json& body, const std::string& name) {
  if (const auto bytes = body.find(name + "Base64"); bytes != body.end()) {
    return Json::binary(decode_base64(bytes->get_ref<const std::string&>()));
  }
  return body.value(name, Json());
}

/// Throws Json::exception where a field has the wrong type.
inline Message decode_message(const Json& fields) {
  Message message;
  message.id = fields.value("id", "");
  message.from = fields.value("from", "");
  message.to = fields.value("to", "");
  message.type = fields.value("type", "request");
  message.correlation_id = fields.value("correlationId", "");
  message.capability = fields.value("capability", "");
  message.timestamp = fields.value("timestamp", "");
  message.payload = decode_body(fields, "payload");
  message.content_type = fields.value("contentType", "");
  message.metadata = fields.value("metadata", Json::object());
  return message;
}

/// A UUIDv7 (RFC 9562): milliseconds since the epoch, then random.
inline std::string new_id() {
  using std::chrono::milliseconds;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto ms = static_cast<std::uint64_t>(std::chrono::duration_cast<milliseconds>(now).count());
  std::random_device random;
  std::string text;
  for (int at = 0; at < 16; ++at) {
    auto byte = static_cast<unsigned>(at < 6 ? ms >> (40 - 8 * at) : random()) & 0xffu;
    if (at == 6) byte = (byte & 0x0fu) | 0x70u;
    if (at == 8) byte = (byte & 0x3fu) | 0x80u;
    if (at == 4 || at == 6 || at == 8 || at == 10) text += '-';
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15u];
  }
  return text;
}

/// Whether a hook's value is a whole KLPMessage, as reply() makes it, and not a payload.
inline bool is_message(const Json& value) {
  if (!value.is_object() || value.value("protocol", Json()) != "klp/1.0") return false;
  for (const char* field : {"id", "from", "to", "type", "timestamp"}) {
    const auto found = value.find(field);
    if (found == value.end() || !found->is_string()) return false;
  }
  return true;
}

/// What on_message returned, as the result of `message`.
inline Json encode_answer(Json value) {
  if (!is_message(value)) return encode_body(value, "payload");
  const Json body = encode_body(value.value("payload", Json()), "payload");
  value.erase("payload");
  for (const auto& [name, field] : body.items()) {
    if (!value.contains(name)) value[name] = field;
  }
  Json result = Json::object();
  result["message"] = std::move(value);
  return result;
}

}  // namespace kai::detail
