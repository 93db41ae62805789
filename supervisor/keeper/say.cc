#include "supervisor/keeper/say.h"

#include <cstdio>

namespace kai::keeper {

void say(const std::string& line) {
  std::fprintf(stderr, "kaid: %s\n", line.c_str());
}

}  // namespace kai::keeper
