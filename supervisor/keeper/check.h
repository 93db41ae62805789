// What the keeper believes of a spec that control sent: nothing. These limits are compiled in; control cannot change
// them, so that a control that was taken over still cannot get more than an agent gets.
#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "proto/sandbox_spec.pb.h"

namespace kai::keeper {

inline constexpr std::size_t kMaxSpecBytes = 4 << 20;

/// Reads a spec from a memfd that has to be sealed against every change, and checks all of it: mounts (kinds, sources
/// below the listed system directories, targets without .. and not through links), limits within bounds, a seccomp
/// program, ids and names.
Result<spec::SandboxSpec> read_spec(const Fd& memfd);

/// The checks alone.
Result<> check_spec(const spec::SandboxSpec& spec);

}  // namespace kai::keeper
