// What the operator told kaid: command line, kaid.yaml, and the defaults of contracts.md. An invalid configuration is
// an error, never a fallback.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "policies/policy.h"

namespace kai::keeper {

struct CommandLine {
  std::string config, state_dir, runtime_dir;  ///< empty: not given
};

struct Config {
  CommandLine given;        ///< what it was made from: for reading it again
  std::string config_path;  ///< as read; empty: there is no file
  std::string state_dir;
  std::string runtime_dir;
  std::string policies_dir;
  std::string log_level = "info";
  std::string redis_url;                     ///< empty: none; may have a password
  std::string redis_socket;                  ///< path in it; empty: it is no Unix socket
  std::vector<std::string> upstream_dns;     ///< "9.9.9.9:53", "[2620:fe::fe]:53"; none: those of resolv.conf
  std::vector<GlobalBlock> blocked_domains;  ///< under every policy
  bool default_runtime_dir = false;
  bool default_policies_dir = false;  ///< not named by the operator: it may be missing
};

/// Reads kaid.yaml (--config, else /etc/kai/kaid.yaml or $XDG_CONFIG_HOME/kai/kaid.yaml if it is there) and fills in
/// what neither it nor the command line says. Errors name file, line and column.
Result<Config> load_config(const CommandLine& given, bool root);

/// Reads the same file again. logLevel, upstreamDns and blockedDomains can change while kaid runs: another changed key
/// is an error that names it.
Result<Config> reload_config(const Config& current, bool root);

}  // namespace kai::keeper
