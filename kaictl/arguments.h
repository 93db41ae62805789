// What of the command line has to be known before CLI11 has read it, or although it refused it.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "kaictl/failure.h"

namespace kai {

struct Arguments {
  std::string command;  ///< the first word that is no option; may be empty
  OutputFormat format = OutputFormat::kText;
  std::vector<std::string> options;  ///< for CLI11: all but what follows `--` of `run`
  std::vector<std::string> program;  ///< of `run`: PROGRAM and its arguments, not to be interpreted by anybody
};

/// `words`: argv without the program's own name.
Arguments look_through(std::span<const char* const> words);

}  // namespace kai
