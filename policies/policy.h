// The operator's policy: every key of contracts.md with its built-in default. Reading it from YAML is the confinement
// issue's; until then builtin_policy() is the one that there is.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "policies/manifest.h"

namespace kai {

struct Backoff {
  std::chrono::milliseconds initial{0}, base{500}, max{60'000};
  double jitter = 0.2;
  std::chrono::milliseconds reset_after{60'000};
};
struct Limits {
  std::uint32_t processes = 128;
  std::uint32_t open_files = 1024;
  std::uint32_t disk_mb = 256, tmp_mb = 64, inodes = 16384;
  std::uint32_t log_lines = 200;  ///< per second
  std::uint32_t memory_store_mb = 64;
  std::uint32_t in_flight = 64;
};
struct Deadlines {
  std::chrono::milliseconds hello{10'000}, start{30'000}, message{30'000}, stop{10'000};
};
struct Policy {
  std::string name;  ///< shown in status and list
  bool sandbox = true;
  bool auto_restart = true;
  std::uint32_t max_crashes = 5;
  std::chrono::milliseconds crash_window{600'000};
  Backoff backoff;
  std::uint32_t memory_limit_mb = 512;
  std::uint32_t cpu_limit_percent = 100;
  Limits limits;
  std::vector<Permission> permissions;
  std::vector<std::string> grants;
  std::vector<std::string> degrade;  ///< cgroup landlock seccompNotify io disk groups
  Deadlines deadlines;
};

/// Nothing beyond the sandbox is allowed. `ordinary_user`: kaid is not root, so that layers may be missing
/// (contracts.md).
Policy builtin_policy(bool ordinary_user);

}  // namespace kai
