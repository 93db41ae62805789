// Which namespaces an agent gets, who makes which, and the id maps.
//
// The starter, outside, makes the network namespace (and, as an ordinary user, one user namespace around everything):
// so the agent's own user namespace owns nothing there. clone3(2) makes the other five for the agent; the cgroup
// namespace comes last, when the process stands in its groups, for the other order would show host paths
// (cgroup_namespaces(7)).
#pragma once

#include <sched.h>
#include <sys/types.h>

#include <cstdint>

#include "base/fd.h"
#include "base/result.h"

namespace kai::sandbox {

inline constexpr std::uint64_t kAgentNamespaces =
    CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;

/// The host ids of one agent: `count` from `base`; count 0 stands for the caller's own single id.
struct IdRange {
  std::uint32_t base = 0;
  std::uint32_t count = 0;
};

/// For a starter: leaves the host's mount and network namespaces (as an ordinary user through an own user namespace),
/// keeps one proc mount that nothing covers, and brings up lo. `host_network` (by an operator's grant): the network
/// stays the host's.
Result<> enter_starter_namespaces(bool root, bool host_network);

/// Writes uid_map, setgroups and gid_map of `pid`, a child that still waits. Called by its parent user namespace.
Result<> write_id_maps(pid_t pid, const IdRange& range);

/// Step: becomes the agent's user and group, without supplementary groups where the map allows it.
Result<> become_agent(bool drop_groups);

/// For a starter as root, right before clone_agent: the user namespace that it makes belongs to `uid` of the host. What
/// the kernel counts for whoever owns a namespace (inotify, pending signals, namespaces) is then that agent's own
/// account, not root's, which all agents would share.
Result<> own_next_namespace(uid_t uid);

/// Step: how many inotify instances, watches and user namespaces (none) the agent's user namespace may count. An
/// ordinary user's agents are counted with that user, who must keep some.
Result<> bound_counts();

/// clone3(2) of the agent's process as a sibling: the keeper, parent of the caller, is the one who waits. `cgroup` is a
/// v2 directory or -1. 0 in the child, its pid in the caller.
Result<pid_t> clone_agent(int cgroup);

}  // namespace kai::sandbox
