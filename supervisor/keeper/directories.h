// The directories that kaid owns, made and checked before anything is trusted in them.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "supervisor/keeper/config.h"

namespace kai::keeper {

/// Who control and egress run as: each an own user without privilege when kaid is root, else whoever started kaid.
struct Identity {
  bool root = false;
  uid_t control_uid = 0;
  gid_t control_gid = 0;
  uid_t egress_uid = 0;
  gid_t egress_gid = 0;
};

/// Users and groups `kai` and `kai-egress` where they exist; else, as root, ids that no Debian user gets.
Identity find_identity();
inline constexpr uid_t kFallbackId = 61910;
inline constexpr uid_t kEgressFallbackId = 61911;

/// Makes state and runtime directory (with the parts that control writes), turns their paths into absolute ones, and
/// takes the locks of both, which the returned descriptors hold. Refuses directories of other owners, and those that
/// another kaid uses.
struct Locks {
  Fd state, runtime;
};
/// `held`: those of a kaid that this one replaces.
Result<Locks> prepare_directories(Config& config, const Identity& identity, std::optional<Locks> held = {});

}  // namespace kai::keeper
