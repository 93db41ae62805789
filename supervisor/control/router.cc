#include "supervisor/control/router.h"

namespace kai {

void Router::route(Agent& sender, const klp::Message& message) {
  if (message.type() != klp::REQUEST) return;
  if (message.to() == "kaid") {
    return sender.answer_error(
        message, {"UNAVAILABLE", "kaid's service '" + message.capability() + "' is not in this version", {}, {}, true});
  }
  sender.deny(message, "no permission {resource: agent} of its policy names that agent");
  sender.answer_error(
      message,
      {"DENIED", "policy does not let '" + sender.row().id + "' send to '" + message.to() + "'", {}, {}, false});
}

}  // namespace kai
