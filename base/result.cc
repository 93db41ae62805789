#include "base/result.h"

#include <cstring>

namespace kai {

std::string Error::message() const {
  std::string line = what;
  if (!context.empty()) line += " " + context;
  if (error_number != 0) line += std::string(": ") + strerrordesc_np(error_number);
  return line;
}

}  // namespace kai
