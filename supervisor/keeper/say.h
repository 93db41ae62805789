// The keeper's own words, for what control cannot tell.
#pragma once

#include <string>

namespace kai::keeper {

/// One line on standard error.
void say(const std::string& line);

}  // namespace kai::keeper
