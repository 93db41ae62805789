// What an agent's file system is made of. The starter, outside and still privileged, opens every source without
// following symlinks and makes a detached, already restricted mount of it: so no path of the host is resolved inside,
// and no source is ever setuid, or writable where it should not be, for an instant. mounts.h puts them in their places.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "proto/sandbox_spec.pb.h"
#include "sandbox/idmap.h"
#include "sandbox/overlay.h"
#include "sandbox/private_data.h"

namespace kai::sandbox {

struct PreparedMount {
  Fd mount;  ///< detached tree (open_tree(2)); invalid for the kinds that are made inside
  bool directory = false;
  bool skipped = false;  ///< an optional source that this host does not have
  std::string target;
  std::string link;  ///< not a mount but a symlink with this text
};

/// Where the names in a spec point on this host.
struct Sources {
  std::string packages_dir, program_dir, sdk_dir;
  PrivateData private_data;                ///< where PRIVATE sources are names
  const OverlayMaker* overlays = nullptr;  ///< null: places on the host may be seen (control's own root)
  bool map_owners = false;                 ///< as root: a writable HOST path's owner becomes `agent`
  Owner agent;                             ///< the agent's ids on the host
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
/// For the starter of an unsandboxed agent: everything in the host's /, with what is mounted beneath, except /proc.
Result<std::vector<PreparedMount>> prepare_host_entries();
/// For the starter: /dev/null, zero, full, random and urandom.
Result<std::vector<PreparedMount>> prepare_devices();

}  // namespace kai::sandbox
