// The agent's file system as the spec lists it: what it sees of the host, of kAI and of its own. /proc and /dev are
// made by sandbox/mounts itself.
#pragma once

#include <string>
#include <string_view>

#include "policies/manifest.h"
#include "policies/policy.h"
#include "proto/sandbox_spec.pb.h"

namespace kai {

inline constexpr std::string_view kPackageDir = "/agent";
inline constexpr std::string_view kNodeSdkDir = "/node_modules/@kai/agent";  // where a bare import from /agent finds it
inline constexpr std::string_view kPythonSdkDir = "/kai/python";
inline constexpr std::string_view kNativeRunner = "/kai/kai-native-runner";

/// `id` with whatever a host name may not hold (RFC 1123) as '-'.
std::string hostname_of(std::string_view id);

/// The host's programs and libraries, read-only, and the few files of /etc that they need, made up.
void add_system_mounts(spec::SandboxSpec& spec);

/// /tmp, which is also HOME. `full`: limits.tmp; else kBareTmpBytes, for programs that fail without any.
void add_tmp(spec::SandboxSpec& spec, const Limits& limits, bool full);
inline constexpr std::uint64_t kBareTmpBytes = 1 << 20;
inline constexpr std::uint64_t kBareTmpInodes = 64;

/// The runner and SDK that the kind needs.
void add_runner_mounts(spec::SandboxSpec& spec, RuntimeKind kind);

/// The agent's own directories at its allowedPaths; they share limits.disk and limits.inodes evenly. A path inside
/// another listed one, or /tmp itself, needs no mount of its own.
void add_private_mounts(spec::SandboxSpec& spec, const FileAccessPolicy& files, const Limits& limits);

/// A stable directory name of [A-Za-z0-9._-] for an absolute path: "/tmp/calendar-cache" → "tmp__calendar-cache".
std::string private_directory_name(std::string_view path);

}  // namespace kai
