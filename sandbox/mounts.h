// The agent's file system. The starter, outside and still privileged, opens every source without following symlinks and
// makes a detached, already restricted mount of it; the new process only moves these into a fresh tmpfs and pivots. So
// no path of the host is resolved inside, and no source is ever writable or setuid for an instant.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "proto/sandbox_spec.pb.h"

namespace kai::sandbox {

struct PreparedMount {
  Fd mount;  ///< detached tree (open_tree(2)); invalid for the kinds that are made inside
  bool directory = false;
  bool skipped = false;  ///< an optional source that this host does not have
  std::string target;
};

/// Where the names in a spec point on this host.
struct Sources {
  std::string packages_dir, program_dir, sdk_dir;
};

/// System mounts that nearly every spec has, made ahead of the job. Each can be used once.
class SystemMounts {
 public:
  /// Whatever of the usual sources this host has.
  static SystemMounts prepare();
  /// The one of `source`, if it was made and is still there.
  std::optional<PreparedMount> take(const std::string& source);

 private:
  std::vector<PreparedMount> ready_;  // their target is their source
};

/// For the starter: a detached mount for each entry of the spec, in order. `descriptors` are those of DESCRIPTOR
/// mounts.
Result<std::vector<PreparedMount>> prepare_mounts(const spec::SandboxSpec& spec, const Sources& sources,
                                                  const std::vector<Fd>& descriptors, SystemMounts system = {});
/// For the starter: /dev/null, zero, full, random and urandom.
Result<std::vector<PreparedMount>> prepare_devices();

/// For the new process: builds the root in a tmpfs, fills it, makes it read-only, pivots into it, drops the old one.
Result<> build_root(const spec::SandboxSpec& spec, std::vector<PreparedMount>& mounts,
                    std::vector<PreparedMount>& devices);

}  // namespace kai::sandbox
