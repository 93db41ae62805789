// The operator's policy: every key of contracts.md with its built-in default, and where in which file each was said, so
// that every decision can name its rule. Values only; policy_yaml.h reads them.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
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
/// A ceiling over the manifest's networkAccess. Default: nothing is allowed.
struct NetworkRules {
  std::vector<std::string> allowed_domains;  ///< name, *.name, name:port, or "*": whatever the manifest asks
  std::vector<std::string> blocked_domains;  ///< addresses and blocks of them too
  std::vector<std::string> allowed_cidrs;
  std::vector<std::uint16_t> ports = {80, 443};
  std::map<std::string, std::string> hosts;  ///< name → address, instead of DNS
};
struct NetworkLimits {
  std::uint32_t max_connections = 64;
  std::uint32_t bandwidth_kb = 10240;  ///< KB/s each way
  std::vector<std::string> allowed_protocols = {"tls", "http"};
};
/// A host path behind one allowedPath. Writable only with the grant hostWrite.
struct HostFile {
  std::string host;
  bool write = false;
};
struct HealthRules {
  std::chrono::milliseconds interval{5'000};
  std::uint32_t misses = 3;
};
struct QuarantineRules {
  bool kill = false;  ///< mode: kill; else freeze
  std::uint32_t denials = 100;
  std::chrono::milliseconds denial_window{60'000};
  std::uint32_t retries_low = 5, retries_medium = 3, retries_high = 1, retries_critical = 0;
};
struct UpgradeRules {
  std::chrono::milliseconds probation{30'000};
  std::uint32_t max_soft_swaps = 20;
};
enum class Unsigned { kNever, kLocal };

/// One entry of kaid.yaml's blockedDomains, which holds under every policy.
struct GlobalBlock {
  std::string pattern;  ///< as policies/domains.h reads it, or an address or block (policies/listed_address.h)
  std::string rule;     ///< "kaid.yaml:3"
};

struct Policy {
  std::string name;            ///< shown in status and list
  std::string agent_id = "*";  ///< glob (* and ?) on the agent's id
  bool sandbox = true;  ///< false: the manifest may ask for sandbox: false, which needs the grant unsandboxed too
  bool auto_restart = true;
  std::uint32_t max_crashes = 5;
  std::chrono::milliseconds crash_window{600'000};
  Backoff backoff;
  std::uint32_t memory_limit_mb = 512;
  std::uint32_t cpu_limit_percent = 100;
  NetworkLimits network_limit;
  Limits limits;
  NetworkRules network;
  std::vector<GlobalBlock> global_blocks;  ///< the same in every policy: PolicySet::block_everywhere
  std::map<std::string, HostFile> files;   ///< by the agent's path
  std::vector<Permission> permissions;
  std::map<std::string, std::string> services;
  std::vector<std::string> trusted_keys;
  Unsigned allow_unsigned = Unsigned::kLocal;
  std::vector<std::string> grants;   ///< unsandboxed hostWrite hostNetwork hostMounts signerChange syscalls:NAME
  std::vector<std::string> degrade;  ///< cgroup landlock seccompNotify io disk groups
  Deadlines deadlines;
  HealthRules health;
  QuarantineRules quarantine;
  UpgradeRules upgrade;
  bool audit_messages = true;
  bool memory_encryption = false;

  /// Where each key was said, "10-calendar.yaml:14", by its dotted path: "memoryLimit", "limits.disk",
  /// "network.allowedDomains.0", "grants.1", "permissions.0", "files./tmp/x"; "" is the policy itself.
  std::map<std::string, std::string, std::less<>> places;

  [[nodiscard]] bool grants_power(std::string_view grant) const;
  /// The rule that decides `key`: its place, else that of the policy, else "builtin".
  [[nodiscard]] std::string rule(std::string_view key) const;
};

/// All of an operator's policies in the order in which they are tried, and behind them the built-in one.
struct PolicySet {
  std::vector<Policy> policies;       ///< never empty: the last is the built-in one, for every id
  std::vector<std::string> warnings;  ///< "10-calendar.yaml:3: …", for the log and for policy check

  /// The first whose agentId matches.
  [[nodiscard]] const Policy& for_agent(std::string_view id) const;
  /// nullptr: no such name.
  [[nodiscard]] const Policy* named(std::string_view name) const;
  /// Every policy, the built-in one too, gets kaid.yaml's blockedDomains.
  void block_everywhere(const std::vector<GlobalBlock>& blocks);
};

/// Nothing beyond the sandbox is allowed. `ordinary_user`: kaid is not root, so that layers may be missing
/// (contracts.md).
Policy builtin_policy(bool ordinary_user);

}  // namespace kai
