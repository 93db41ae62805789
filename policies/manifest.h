// The spec's AgentManifest: parsed strictly, validated whole. Pure: no I/O, nothing is believed.
// The text comes from somebody who is not trusted; limits on size and depth come before the parser sees it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace kai {

enum class Persona { kAssistant, kSpecialist, kGuardian, kOrchestrator, kUtility, kCompanion };
enum class MemoryType { kVolatile, kPersistent, kHybrid };
enum class MemoryBackend { kMemory, kIndexedDb, kSqlite, kRedis };
enum class Crypto { kEd25519, kSecp256k1, kNone };
enum class DependencyType { kModule, kService, kAgent };
enum class RuntimeKind { kNode, kPython, kNative, kExec };
enum class Protocol { kNone, kRunner };

struct MemoryConfig {
  MemoryType type = MemoryType::kVolatile;
  MemoryBackend backend = MemoryBackend::kMemory;
  std::optional<double> ttl;       ///< seconds, default per key
  std::optional<double> max_size;  ///< MB, the store's quota
  bool persistent = false;
  bool shared_access = false;
  bool operator==(const MemoryConfig&) const = default;
};
struct Permission {
  std::string resource;
  std::vector<std::string> actions;  ///< read write execute delete
  std::string scope;                 ///< may be empty
  bool operator==(const Permission&) const = default;
};
struct NetworkPolicy {
  bool allow_outbound = false;
  std::vector<std::string> allowed_domains;
  std::vector<std::string> blocked_domains;
  std::optional<std::uint32_t> max_connections;
  bool operator==(const NetworkPolicy&) const = default;
};
struct FileAccessPolicy {
  std::vector<std::string> allowed_paths;  ///< inside the sandbox, absolute and normalized
  bool read_only = false;
  bool temp_file_access = false;
  bool operator==(const FileAccessPolicy&) const = default;
};
struct SecurityConfig {
  bool sandbox = true;
  std::vector<Permission> permissions;
  Crypto crypto = Crypto::kNone;
  NetworkPolicy network;
  FileAccessPolicy files;
  bool operator==(const SecurityConfig&) const = default;
};
struct Dependency {
  std::string name;
  std::string version;
  DependencyType type = DependencyType::kModule;
  bool required = true;
  bool operator==(const Dependency&) const = default;
};
/// kAI's addition to the spec (contracts.md); left out, it follows from `entry`.
struct Runtime {
  RuntimeKind kind = RuntimeKind::kExec;
  Protocol protocol = Protocol::kNone;
  std::vector<std::string> args;
  std::vector<std::string> env;  ///< NAME=VALUE
  bool operator==(const Runtime&) const = default;
};
struct Metadata {
  std::string author, description, license, documentation;
  std::vector<std::string> tags;
  std::string created, updated;
  bool operator==(const Metadata&) const = default;
};
struct Manifest {
  std::string id, name, version;
  std::string entry;  ///< relative, normalized, inside the package; empty only for `kaictl run --manifest`
  Persona persona = Persona::kUtility;
  std::vector<std::string> capabilities;
  MemoryConfig memory;
  SecurityConfig security;
  std::vector<Dependency> dependencies;
  Metadata metadata;
  Runtime runtime;
  std::string json;  ///< the whole manifest again, compact JSON, made from what was checked: given to the agent at init
  bool operator==(const Manifest&) const = default;
};

/// One fault: where (RFC 6901 JSON Pointer, "" is the whole document) and what, for a person.
struct ManifestError {
  std::string pointer;
  std::string message;
};

inline constexpr std::size_t kMaxManifestBytes = 1 << 20;
inline constexpr int kMaxManifestDepth = 32;

struct ManifestResult {
  std::optional<Manifest> manifest;   ///< there when errors is empty
  std::vector<ManifestError> errors;  ///< all (at most 200, then how many more), in document order of the pointers
};

/// Parses and validates JSON, or YAML (at most 64 KiB) where `text` does not start with '{'. `entry_required`: false
/// for run --manifest. Whether the entry file exists and is a regular file inside the package is the package store's
/// check.
ManifestResult parse_manifest(std::string_view text, bool entry_required = true);

/// The published JSON Schema (draft 2020-12) of a manifest: docs/schema/manifest.schema.json, as text.
std::string_view manifest_json_schema();

}  // namespace kai
