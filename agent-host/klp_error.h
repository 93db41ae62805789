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

}  // namespace kai
