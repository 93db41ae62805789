// KLP envelopes as agent-host reads them: any bytes. Whatever becomes a line for the runner is one line, and JSON.
#include <cstddef>
#include <cstdint>
#include <string>

#include "agent-host/klp_message.h"
#include "base/json_check.h"
#include "proto/klp.pb.h"

namespace {

void require(bool holds) {
  if (!holds) __builtin_trap();
}

void require_line(const std::string& json) {
  require(json.find('\n') == std::string::npos && kai::is_json_object(json));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  kai::klp::Envelope envelope;
  if (!envelope.ParseFromArray(data, static_cast<int>(size))) return 0;
  kai::klp::Message message;
  if (!envelope.has_message() || !message.ParseFromString(envelope.message())) return 0;
  if (const auto json = kai::message_json(message)) require_line(*json);
  if (const auto result = kai::send_result(message)) {
    require_line(*result);
  } else {
    require(result.error().details_json.empty() || kai::is_json(result.error().details_json));
  }
  const kai::klp::Message reply = kai::error_message({"BUSY", "x", {}, true}, {message.id(), message.from()}, "agent");
  kai::klp::Message parsed;
  require(parsed.ParseFromString(reply.SerializeAsString()) && parsed.correlation_id() == message.id());
  return 0;
}
