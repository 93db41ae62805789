#include "supervisor/control/message_check.h"

#include <algorithm>

#include "base/timestamp.h"
#include "proto/frame.h"

namespace kai {
namespace {

// Text beside the payload; all of it has to fit into kEnvelopeOverheadBytes.
constexpr std::size_t kMaxNameBytes = 256;
// Of an error, which has no payload beside it: what agent-host makes of a hook's message, stack and details is smaller.
constexpr std::size_t kMaxErrorBytes = 64 << 10;

Failure fault(std::string code, std::string message) {
  return {std::move(code), std::move(message), {}, {}, false};
}

/// Of a signed message: an old one could be one that somebody kept.
std::optional<Failure> age_fault(const std::string& timestamp, std::int64_t now_ms) {
  const auto sent = parse_iso_time(timestamp);
  if (!sent) return fault("INVALID", "its timestamp is not ISO 8601, as 2026-05-04T13:00:00.000Z");
  const std::int64_t drift = *sent - now_ms;
  if (drift >= -kMaxDriftMs && drift <= kMaxDriftMs) return std::nullopt;
  return fault("EXPIRED", "its timestamp is " + std::to_string(std::abs(drift)) + " ms " +
                              (drift < 0 ? "behind" : "ahead of") + " the clock of kaid, at most " +
                              std::to_string(kMaxDriftMs) + " are allowed on signed messages");
}

}  // namespace

std::string size_fault(const klp::Message& message) {
  if (message.payload().size() > kMaxFrameBytes) return "a payload over the limit";
  for (const std::string* text :
       {&message.id(), &message.to(), &message.correlation_id(), &message.capability(), &message.timestamp(),
        &message.content_type(), &message.protocol(), &message.metadata().traceparent(), &message.error().code()}) {
    if (text->size() > kMaxNameBytes) return "a message field over 256 bytes";
  }
  if (message.error().message().size() + message.error().details_json().size() > kMaxErrorBytes) {
    return "an error text over the limit";
  }
  return {};
}

klp::Message known_fields(klp::Message&& message) {
  klp::Message known;
  known.set_protocol(std::move(*message.mutable_protocol()));
  known.set_id(std::move(*message.mutable_id()));
  known.set_to(std::move(*message.mutable_to()));
  known.set_type(message.type());
  known.set_correlation_id(std::move(*message.mutable_correlation_id()));
  known.set_capability(std::move(*message.mutable_capability()));
  known.set_timestamp(std::move(*message.mutable_timestamp()));
  known.set_payload(std::move(*message.mutable_payload()));
  known.set_content_type(std::move(*message.mutable_content_type()));
  known.set_deadline_ms(message.deadline_ms());
  if (message.has_metadata()) {
    klp::Metadata& metadata = *known.mutable_metadata();
    metadata.set_priority(klp::Priority_IsValid(message.metadata().priority()) ? message.metadata().priority()
                                                                               : klp::NORMAL);
    metadata.set_ttl_seconds(message.metadata().ttl_seconds());
    metadata.set_traceparent(message.metadata().traceparent());
  }
  if (message.has_error()) {
    klp::ErrorBody& error = *known.mutable_error();
    error.set_code(message.error().code());
    error.set_message(message.error().message());
    error.set_details_json(message.error().details_json());
    error.set_retryable(message.error().retryable());
  }
  return known;
}

std::optional<Failure> MessageCheck::refusal(const klp::Message& message, std::string_view bytes,
                                             std::string_view signature, std::int64_t unix_now_ms,
                                             std::int64_t monotonic_now_ms) {
  if (!signature_.verify(bytes, signature)) {
    return fault("BAD_SIGNATURE", signature.empty()
                                      ? "it is not signed, and its sender's manifest says security.crypto"
                                      : "its signature is not one of its sender's key over what was sent");
  }
  if (message.protocol() != kKlpProtocol) return fault("INVALID", "its protocol is not klp/1.0");
  const auto id = parse_uuid_v7(message.id());
  if (!id) return fault("INVALID", "its id is no UUIDv7");
  if (signature_.required()) {
    if (auto stale = age_fault(message.timestamp(), unix_now_ms)) return stale;
  }
  if (window_.accept(*id, monotonic_now_ms)) return std::nullopt;
  return fault("REPLAY", "a message with this id came already");
}

}  // namespace kai
