#include "supervisor/memory/store.h"

#include "base/text.h"

namespace kai {

klp::MemoryError memory_error(std::string_view code, const std::string& message, std::string details_json) {
  klp::MemoryError error;
  error.set_code(std::string(code));
  // Keys, names and paths may be in it: what is no UTF-8 would break the frame, what drives a terminal whoever reads
  // it.
  error.set_message(escape_for_terminal(message));
  error.set_details_json(std::move(details_json));
  error.set_retryable(code == "BUSY" || code == "UNAVAILABLE");
  return error;
}

}  // namespace kai
