// An error of klp.md's list as a value, before it is a message to control or to the runner.
#pragma once

#include <string>

namespace kai {

struct KlpError {
  std::string code;
  std::string message;
  std::string details_json;  ///< a JSON object, or empty
  bool retryable = false;
};

/// What the runner hears of its requests while kaid's control is being started again.
inline KlpError no_control() {
  return {"UNAVAILABLE", "kaid is restarting; the agent goes on, try again in a moment", {}, true};
}

}  // namespace kai
