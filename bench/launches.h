// The peers of an agent's start: the same program started bare, and in bubblewrap.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace kai::bench {

/// Starts `argv` (argv[0] is a path), waits for the first byte on its standard output, ends it. Microseconds from
/// before the fork to the byte.
Result<double> time_to_first_byte(const std::vector<std::string>& argv);

/// bubblewrap with all namespaces and a minimal root around `program`; empty when bwrap is not installed.
std::vector<std::string> bubblewrap_command(const std::string& program);

}  // namespace kai::bench
