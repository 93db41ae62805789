// Linked with control's own main into a kai-control for tests: it ends itself by SIGKILL at the fault point that the
// file KAI_CRASH_FILE names ("POINT:COUNT", the COUNT-th time from when the file is there), and removes the file first.
#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <string>

#include "base/fault_point.h"
#include "base/fd.h"
#include "base/unix.h"

namespace kai {
namespace {

std::string& armed() {
  static std::string text;
  return text;
}

void crash_at(const char* point) {
  static int passed = 0;
  const char* path = std::getenv("KAI_CRASH_FILE");
  if (path == nullptr) return;
  const auto text = read_file(path, 256);
  if (!text || text->find(':') == std::string::npos) return;
  if (*text != armed()) {
    armed() = *text;
    passed = 0;
  }
  const std::size_t colon = text->find(':');
  if (text->substr(0, colon) != point || ++passed < std::atoi(text->c_str() + colon + 1)) return;
  unlink(path);
  kill(getpid(), SIGKILL);
}

[[maybe_unused]] const bool hooked = [] {
  fault_hook = crash_at;
  return true;
}();

}  // namespace
}  // namespace kai
