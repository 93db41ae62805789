// The one-mechanism steps of a sandbox: each changes one thing of the calling process for good.
#pragma once

#include <span>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"
#include "proto/sandbox_spec.pb.h"

namespace kai::sandbox {

/// Own session (and so no controlling terminal and no foreign process group) and own session keyring.
Result<> leave_session();

/// Joins each v1 group by writing 0 to its open `tasks` file, then makes the cgroup namespace: the process stands at
/// "/".
Result<> enter_cgroups(std::span<const Fd> v1_tasks);

Result<> set_host_name(const std::string& name);

/// setrlimit(2) for each entry.
Result<> set_rlimits(const spec::SandboxSpec& spec);

/// Locks securebits so that uid 0 means nothing, then empties bounding, ambient, inheritable, permitted and effective
/// set.
Result<> drop_capabilities();

/// PR_SET_NO_NEW_PRIVS: no setuid, setgid or file capability gives anything any more.
Result<> set_no_new_privs();

/// Installs a seccomp filter given as struct sock_filter[] bytes. Nothing that the filter refuses works after this.
Result<> load_seccomp(std::string_view program);

/// dup2s the agent's streams to 0 to 2, the KLP socket to 3 and the report socket to 4, and closes everything else.
Result<> settle_descriptors(Fd& input, Fd& output, Fd& error, Fd& klp, Fd& report);

}  // namespace kai::sandbox
