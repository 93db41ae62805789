// Limits, tracking and killing of one agent's process tree. One interface, two backends (cgroups(7)):
//   v2      one group with the controllers memory, cpu and pids;
//   hybrid  the v2 tree, without controllers, for tracking and cgroup.kill, and v1 groups for the limits.
// Every group is made below the group that the keeper itself stands in, or, where that one is full of other processes
// and the keeper is root, in an own one at the top. Groups of others are never touched.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "proto/sandbox_spec.pb.h"

namespace kai::sandbox {

/// What a tree used, and what its limits refused.
struct CgroupUsage {
  std::uint64_t memory_bytes = 0;
  std::uint64_t cpu_us = 0;
  std::uint32_t pids = 0;
  std::uint32_t oom_kills = 0;
  std::uint32_t pids_refused = 0;
};

/// The groups of one agent, as directories. Removing is explicit, as it can fail while the kernel still lets go.
class AgentCgroup {
 public:
  AgentCgroup() = default;
  AgentCgroup(AgentCgroup&&) = default;
  AgentCgroup& operator=(AgentCgroup&&) = default;

  /// The v2 directory, for CLONE_INTO_CGROUP; -1: none.
  [[nodiscard]] int v2_fd() const { return v2_.get(); }
  /// `tasks` files of the v1 groups, to be written `0` to by the process itself.
  [[nodiscard]] const std::vector<Fd>& v1_tasks() const { return v1_tasks_; }
  /// Readable when the tree ran into its memory limit and the kernel ended one process of it: v1 cannot end the whole
  /// tree, as memory.oom.group does on v2, so that is left to whoever watches this. -1: not needed.
  [[nodiscard]] int oom_event_fd() const { return oom_event_.get(); }
  /// `pids.events` of the tree: EPOLLPRI when a fork was refused at the pids limit. Until it is read again (pread at 0,
  /// which makes it quiet) it stays ready. v1 kernels since 6.11 count but do not wake (kernel/cgroup/pids.c notifies a
  /// file that v1 does not have), so who needs to know looks at usage() from time to time as well. -1: no limits here.
  [[nodiscard]] int pids_event_fd() const { return pids_event_.get(); }

  /// Sets every limit; has to come before a process enters.
  Result<> limit(const spec::Cgroup& limits) const;
  /// Closes the descriptors that only a start needs.
  void entered() {
    v2_.reset();
    v1_tasks_.clear();
  }
  [[nodiscard]] CgroupUsage usage() const;
  /// The tree's processes as they are now, at most some thousands.
  [[nodiscard]] std::vector<pid_t> processes() const;
  /// Stops every process of the tree where it stands, or lets it go on; frozen() says when the kernel has done it.
  Result<> freeze(bool frozen) const;
  [[nodiscard]] bool frozen() const;
  /// EPOLLPRI when that may have changed; until it is read again (pread at 0) it stays ready.
  [[nodiscard]] Result<Fd> watch_frozen() const;
  /// The last part of its directories' paths, which all share.
  [[nodiscard]] std::string name() const { return v2_path_.substr(v2_path_.rfind('/') + 1); }
  /// Its directories, the v2 one first.
  [[nodiscard]] std::vector<std::string> places() const;
  /// SIGKILL to every process in the tree (cgroup.kill, Linux 5.14).
  Result<> kill() const;
  /// rmdir(2) of every group; EBUSY: call again later.
  Result<> remove();

 private:
  friend class CgroupTree;
  Result<> open_events();

  std::string v2_path_;
  std::vector<std::pair<std::string, std::string>> v1_paths_;  // controller, path
  Fd v2_;
  std::vector<Fd> v1_tasks_;
  Fd oom_event_, pids_event_;
};

/// The keeper's own place in the hierarchies.
class CgroupTree {
 public:
  enum class Backend { kNone, kV2, kHybrid };

  /// Where the groups are.
  struct Places {
    Backend backend = Backend::kNone;
    std::string why_none;
    bool weighs_io = false;
    std::string v1_io_base;  ///< shared by all agents; empty: none
    std::string v2_base;
    std::string v2_keeper;  ///< leaf that the keeper moved itself to; empty: it stayed where it was
    std::vector<std::pair<std::string, std::string>> v1_bases;  ///< controller, path
    bool apart = false;  ///< v2: in a unit of its own beside the keeper's, which may end and be started again meanwhile
  };

  /// Looks at /proc/self/cgroup and mountinfo, makes the base groups, and sweeps what an earlier kaid of the same
  /// `name` left. Backend kNone, with the reason in why_none(), where this process may not make groups with all
  /// controllers.
  /// `unit`: a delegated unit beside this process's own that is there for the groups; empty, or it is not as it has to
  /// be: none.
  static CgroupTree open(const std::string& name, bool root, const std::string& unit = {});

  /// One that exists, with agents in it: nothing is made, swept or moved.
  static CgroupTree take_over(Places places);
  [[nodiscard]] const Places& places() const { return places_; }

  [[nodiscard]] Backend backend() const { return places_.backend; }
  [[nodiscard]] const char* backend_name() const;
  [[nodiscard]] const std::string& why_none() const { return places_.why_none; }
  /// All agents together have half the weight of others at the disks. False where the kernel or the disks' schedulers
  /// do not know weights; at the processors they have it always.
  [[nodiscard]] bool weighs_io() const { return places_.weighs_io; }

  /// Makes the groups of one agent, without limits yet: this is the slow part, and can be done ahead of a start.
  Result<AgentCgroup> create(const std::string& leaf) const;
  /// The groups of an agent that runs in them, as create() named them.
  [[nodiscard]] Result<AgentCgroup> reopen(const std::string& leaf) const;
  /// Names of groups that are there and not among `known`. v2 only.
  [[nodiscard]] std::vector<std::string> others(const std::vector<std::string>& known) const;
  /// Removes the base groups: at the end, when every agent's group is gone.
  void remove();

 private:
  Result<> open_v2(const std::string& name, bool root, const std::string& own, const std::string& unit);
  Result<> open_v1(const std::string& name);
  void open_v1_io(const std::string& name, const std::string& place);

  Places places_;
};

}  // namespace kai::sandbox
