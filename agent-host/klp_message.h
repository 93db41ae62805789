// KLP messages in their two forms: protobuf (proto/klp.proto) on control's side, JSON on the runner's. Pure: no I/O.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include "agent-host/json_view.h"
#include "agent-host/klp_error.h"
#include "proto/klp.pb.h"

namespace kai {

/// To whom an answer goes.
struct Correspondent {
  std::string id;       ///< of the request
  std::string address;  ///< its sender
};

// Control → runner.

/// The runner protocol's KLPMessage. INVALID where a JSON payload is not JSON; EXPIRED where its ttl has passed.
tl::expected<std::string, KlpError> message_json(const klp::Message& message);
/// What the answer to a klp.send is for the runner: {payload} or {payloadBase64, contentType}, or the error.
tl::expected<std::string, KlpError> send_result(const klp::Message& answer);

// Runner → control. `sender` is the agent's id; control stamps it again from the channel.

/// The answer that the result of JSON-RPC `message` stands for. AGENT_ERROR where it has not the protocol's shape.
tl::expected<klp::Message, KlpError> response_message(const JsonView& result, const Correspondent& to,
                                                      std::string_view sender);
klp::ErrorBody error_body(const KlpError& error);
klp::Message error_message(const KlpError& error, const Correspondent& to, std::string_view sender);
/// A JSON-RPC error object: the KLP code is data.code where agents may use that one, else AGENT_ERROR.
KlpError error_of_hook(const JsonView& error);

struct SendRequest {
  klp::Message message;
  std::uint32_t timeout_ms = 0;  ///< 0: the default
};
/// The params of klp.send as a request to control; as an event, where `to` is a topic. INVALID says which member is
/// wrong.
tl::expected<SendRequest, KlpError> send_request(const JsonView& params, std::string_view sender);
/// The params of klp.emit as an event to `topic:SENDER.NAME`. INVALID says which member is wrong.
tl::expected<klp::Message, KlpError> emit_event(const JsonView& params, std::string_view sender);

}  // namespace kai
