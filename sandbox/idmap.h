// Idmapped mounts (mount_setattr(2)): files keep their owner on disk and belong to the agent inside.
#pragma once

#include <sys/types.h>

#include "base/fd.h"
#include "base/result.h"

namespace kai::sandbox {

struct Owner {
  uid_t uid = 0;
  gid_t gid = 0;
};

/// Makes what belongs to `on_disk` belong to `seen` in the detached, not yet idmapped `mount`; whatever the agent makes
/// there belongs to `on_disk`. Everybody else's files are nobody's. Needs CAP_SYS_ADMIN in the first user namespace.
Result<> map_owner(const Fd& mount, Owner on_disk, Owner seen);

}  // namespace kai::sandbox
