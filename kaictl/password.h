// A password from the person at the terminal.
#pragma once

#include <string>

#include "kaictl/failure.h"

namespace kai {

/// Asks on the terminal of this process (/dev/tty, whatever standard input is) and shows nothing of what is typed. The
/// caller wipes it. `hint`: what to do where there is no terminal.
Outcome<std::string> ask_password(const std::string& prompt, const std::string& hint);

}  // namespace kai
