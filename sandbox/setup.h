// What a starter hands to the steps of sandbox/apply: the spec and every descriptor that the steps need. The steps run
// in the new process, between clone3(2) and the agent's first instruction.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "proto/sandbox_spec.pb.h"
#include "sandbox/mounts.h"

namespace kai::sandbox {

/// The ids that every agent sees itself as, inside.
inline constexpr std::uint32_t kAgentUid = 1000;
inline constexpr std::uint32_t kAgentGid = 1000;

/// The descriptor numbers of a finished sandbox, beside 0 to 2.
inline constexpr int kKlpFd = 3;
inline constexpr int kReportFd = 4;  ///< to the keeper; kept by agent-host for its word of a new KLP socket

/// Inode numbers of /proc/self/ns/*, to tell afterwards that each namespace is another one.
struct NamespaceIds {
  static constexpr const char* kNames[] = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"};
  std::uint64_t inode[std::size(kNames)] = {};
};
Result<NamespaceIds> namespace_ids();

struct Setup {
  const spec::SandboxSpec* spec = nullptr;
  Fd klp, standard_input, standard_output, standard_error, report;
  std::vector<Fd> v1_tasks;                 ///< `tasks` files of this agent's v1 groups, opened by the keeper
  std::vector<PreparedMount> mounts;        ///< in the spec's order
  std::vector<PreparedMount> devices;       ///< /dev/null and its kin
  std::vector<PreparedMount> host_entries;  ///< of an unsandboxed agent: what stands in the host's /
  bool drop_groups = false;                 ///< the id range lets supplementary groups be dropped
  bool outlives_keeper = false;             ///< no parent-death signal: the service manager keeps its descriptors
  NamespaceIds host;                        ///< the keeper's namespaces
  std::vector<std::string> degraded;        ///< out: layers that are missing, as the spec lets them
};

}  // namespace kai::sandbox
