// What the keeper believes of a spec, or an address, that control sent: nothing. The limits are compiled in, and the
// policies are the keeper's own reading; control can change neither, so that a control that was taken over still cannot
// get more than an agent gets.
#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "policies/policy.h"
#include "proto/sandbox_spec.pb.h"

namespace kai::keeper {

inline constexpr std::size_t kMaxSpecBytes = 4 << 20;

/// What a spec is held against, beside the compiled-in limits.
struct Allowed {
  const PolicySet& policies;    ///< the keeper's own reading: which host paths, grants and missing layers there may be
  std::size_t descriptors = 0;  ///< how many came with the request for DESCRIPTOR mounts
};

/// Reads a spec from a memfd that has to be sealed against every change, and checks all of it: mounts (kinds, sources
/// below the listed system directories or mapped by a policy, targets without .. and not through links), limits within
/// bounds, seccomp programs, grants that a policy gives, network rules within a policy (check_network.h), ids and
/// names.
Result<spec::SandboxSpec> read_spec(const Fd& memfd, const Allowed& allowed);

/// What a memfd holds that is sealed against every change. `what` is for messages.
Result<std::string> read_sealed(const Fd& memfd, const std::string& what, std::size_t most);

/// The checks alone.
Result<> check_spec(const spec::SandboxSpec& spec, const Allowed& allowed);

/// The path in `address`, unix:/path: only where a policy has exactly that under services.
Result<std::string> check_service(const std::string& address, const PolicySet& policies);

}  // namespace kai::keeper
