// What the operator told kaid: command line, kaid.yaml, and the defaults of contracts.md. An invalid configuration is
// an error, never a fallback.
#pragma once

#include <string>

#include "base/result.h"

namespace kai::keeper {

struct Config {
  std::string config_path;  ///< as read; empty: there is no file
  std::string state_dir;
  std::string runtime_dir;
  std::string policies_dir;
  std::string log_level = "info";
  bool default_runtime_dir = false;
};

struct CommandLine {
  std::string config, state_dir, runtime_dir;  ///< empty: not given
};

/// Reads kaid.yaml (--config, else /etc/kai/kaid.yaml or $XDG_CONFIG_HOME/kai/kaid.yaml if it is there) and fills in
/// what neither it nor the command line says. Errors name file, line and column.
Result<Config> load_config(const CommandLine& given, bool root);

}  // namespace kai::keeper
