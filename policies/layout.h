// The agent's file system as the spec lists it: what it sees of the host, of kAI and of its own. /proc and /dev are
// made by sandbox/mounts itself.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "policies/manifest.h"
#include "policies/policy.h"
#include "proto/sandbox_spec.pb.h"

namespace kai {

inline constexpr std::string_view kPackageDir = "/agent";
/// All versions of the agent that are in the store, by the hashes of their packages: where a soft upgrade finds the new
/// one, which came when the sandbox had long been made.
inline constexpr std::string_view kVersionsDir = "/kai/versions";
inline constexpr std::string_view kNodeSdkDir = "/node_modules/@kai/agent";  // where a bare import from /agent finds it
inline constexpr std::string_view kPythonSdkDir = "/kai/python";
inline constexpr std::string_view kNativeRunner = "/kai/kai-native-runner";

/// `id` with whatever a host name may not hold (RFC 1123) as '-'.
std::string hostname_of(std::string_view id);

/// The host's programs and libraries, read-only, and the few files of /etc that they need, made up. `hosts`: further
/// names for /etc/hosts, with their addresses.
void add_system_mounts(spec::SandboxSpec& spec, const std::map<std::string, std::string>& hosts = {});

/// /tmp, which is also HOME. `full`: limits.tmp; else (or where that is 0) kBareTmpBytes, for programs that fail
/// without any.
void add_tmp(spec::SandboxSpec& spec, const Limits& limits, bool full);
inline constexpr std::uint64_t kBareTmpBytes = 1 << 20;
inline constexpr std::uint64_t kBareTmpInodes = 64;

/// The runner and SDK that the kind needs.
void add_runner_mounts(spec::SandboxSpec& spec, RuntimeKind kind);

/// What stands behind one of the manifest's allowedPaths.
struct PathPlan {
  enum class Kind {
    kPrivate,   ///< the agent's own data; in an ephemeral sandbox memory
    kHost,      ///< what the operator's policy maps it to
    kTmp,       ///< /tmp, or inside it where tmp is the agent's anyway
    kInside,    ///< inside another listed path, and not of its own
    kNoDisk,    ///< limits.disk is 0
    kReserved,  ///< belongs to the sandbox
    kHidden,    ///< mapped by the policy, but inside another listed path, where the agent could move what stands there
  };
  std::string path;
  Kind kind = Kind::kPrivate;
  std::string inside;              ///< kInside, kHidden: the other path
  const HostFile* host = nullptr;  ///< kHost: the policy's
  bool read_only = false;
};

/// One plan for each of allowedPaths, in its order.
std::vector<PathPlan> plan_paths(const FileAccessPolicy& files, const Policy& policy);

/// The mounts of the plans. Private data shares limits.disk and limits.inodes: as one file system (spec.disk), or,
/// where the sandbox is ephemeral, as memory in even parts.
void add_path_mounts(spec::SandboxSpec& spec, const std::vector<PathPlan>& plans, const Limits& limits, bool ephemeral);

/// A stable directory name of [A-Za-z0-9._-] for an absolute path: "/tmp/calendar-cache" → "tmp__calendar-cache".
std::string private_directory_name(std::string_view path);

}  // namespace kai
