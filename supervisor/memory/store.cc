#include "supervisor/memory/store.h"

namespace kai {

klp::MemoryError memory_error(std::string_view code, std::string message, std::string details_json) {
  klp::MemoryError error;
  error.set_code(std::string(code));
  error.set_message(std::move(message));
  error.set_details_json(std::move(details_json));
  error.set_retryable(code == "BUSY" || code == "UNAVAILABLE");
  return error;
}

}  // namespace kai
