// The one-mechanism steps of a sandbox: each changes one thing of the calling process for good.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "proto/sandbox_spec.pb.h"

namespace kai::sandbox {

/// Whether the operator's policy lets `layer` (contracts.md, degrade) be missing.
bool may_miss(const spec::SandboxSpec& spec, std::string_view layer);

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

/// Installs the spec's filter, whose refusals are notifications, and sends its listener to the keeper on `report`
/// (starter.Report.listener); the listener does not stay here. Where the kernel gives none and the spec's degrade has
/// seccompNotify: the silent filter, with that name added to `degraded`. Nothing that the filter refuses works after
/// this: a refused call would wait until somebody answers.
Result<> load_seccomp(const spec::SandboxSpec& spec, const Fd& report, std::vector<std::string>& degraded);

/// dup2s the agent's streams to 0 to 2, the KLP socket to 3 and the report socket to 4, and closes everything else.
Result<> settle_descriptors(Fd& input, Fd& output, Fd& error, Fd& klp, Fd& report);

}  // namespace kai::sandbox
