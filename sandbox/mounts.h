// The agent's file system: the new process moves the mounts that its starter made (sources.h) into a fresh tmpfs and
// pivots.
#pragma once

#include <vector>

#include "base/result.h"
#include "proto/sandbox_spec.pb.h"
#include "sandbox/sources.h"

namespace kai::sandbox {

/// For the new process: builds the root in a tmpfs, fills it, makes it read-only, pivots into it, drops the old one.
Result<> build_root(const spec::SandboxSpec& spec, std::vector<PreparedMount>& mounts,
                    std::vector<PreparedMount>& devices);

/// The same for an unsandboxed agent: the host's root as it is, with the spec's PACKAGE, PROGRAM and DESCRIPTOR mounts
/// beside it and a proc of the own pid namespace. Every other mount of the spec is left out.
Result<> build_host_root(const spec::SandboxSpec& spec, std::vector<PreparedMount>& mounts,
                         std::vector<PreparedMount>& entries);

}  // namespace kai::sandbox
