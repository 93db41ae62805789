#include "policies/manifest_json.h"

#include <cmath>

#include "policies/manifest_fields.h"
#include "policies/manifest_names.h"

namespace kai::manifest {
namespace {

/// 86400, not 86400.0, as long as the number is exact.
Json number(double value) {
  constexpr double kExact = 9007199254740992.0;  // 2^53
  if (std::floor(value) == value && value <= kExact) return static_cast<std::uint64_t>(value);
  return value;
}

Json memory_json(const MemoryConfig& memory) {
  Json json = {{"type", name_of<MemoryType>(kMemoryTypes, memory.type)},
               {"backend", name_of<MemoryBackend>(kMemoryBackends, memory.backend)}};
  if (memory.ttl) json["ttl"] = number(*memory.ttl);
  if (memory.max_size) json["maxSize"] = number(*memory.max_size);
  json["persistent"] = memory.persistent;
  if (memory.shared_access) json["sharedAccess"] = true;
  return json;
}

Json permission_json(const Permission& permission) {
  Json json = {{"resource", permission.resource}, {"actions", permission.actions}};
  if (!permission.scope.empty()) json["scope"] = permission.scope;
  return json;
}

Json security_json(const SecurityConfig& security) {
  Json permissions = Json::array();
  for (const Permission& permission : security.permissions) permissions.push_back(permission_json(permission));
  Json network = {{"allowOutbound", security.network.allow_outbound}};
  if (!security.network.allowed_domains.empty()) network["allowedDomains"] = security.network.allowed_domains;
  if (!security.network.blocked_domains.empty()) network["blockedDomains"] = security.network.blocked_domains;
  if (security.network.max_connections) network["maxConnections"] = *security.network.max_connections;
  return {{"sandbox", security.sandbox},
          {"permissions", std::move(permissions)},
          {"crypto", name_of<Crypto>(kCryptos, security.crypto)},
          {"networkAccess", std::move(network)},
          {"fileAccess",
           {{"allowedPaths", security.files.allowed_paths},
            {"readOnly", security.files.read_only},
            {"tempFileAccess", security.files.temp_file_access}}}};
}

Json metadata_json(const Metadata& metadata) {
  Json json = {{"author", metadata.author}, {"description", metadata.description}, {"license", metadata.license}};
  if (!metadata.documentation.empty()) json["documentation"] = metadata.documentation;
  json["tags"] = metadata.tags;
  json["created"] = metadata.created;
  json["updated"] = metadata.updated;
  return json;
}

/// Only what differs from what `entry` says.
Json runtime_json(const Manifest& manifest) {
  const Runtime& runtime = manifest.runtime;
  Json json = Json::object();
  if (runtime.kind != kind_of_entry(manifest.entry)) json["kind"] = name_of<RuntimeKind>(kRuntimeKinds, runtime.kind);
  if (runtime.protocol != default_runtime(runtime.kind).protocol) {
    json["protocol"] = name_of<Protocol>(kProtocols, runtime.protocol);
  }
  if (!runtime.args.empty()) json["args"] = runtime.args;
  for (const std::string& variable : runtime.env) {
    const std::size_t equals = variable.find('=');
    json["env"][variable.substr(0, equals)] = variable.substr(equals + 1);
  }
  return json;
}

}  // namespace

std::string canonical_json(const Manifest& manifest) {
  Json json = {{"id", manifest.id}, {"name", manifest.name}, {"version", manifest.version}};
  if (!manifest.entry.empty()) json["entry"] = manifest.entry;
  json["persona"] = name_of<Persona>(kPersonas, manifest.persona);
  json["capabilities"] = manifest.capabilities;
  json["memory"] = memory_json(manifest.memory);
  json["security"] = security_json(manifest.security);
  Json dependencies = Json::array();
  for (const Dependency& dependency : manifest.dependencies) {
    dependencies.push_back({{"name", dependency.name},
                            {"version", dependency.version},
                            {"type", name_of<DependencyType>(kDependencyTypes, dependency.type)},
                            {"required", dependency.required}});
  }
  json["dependencies"] = std::move(dependencies);
  json["metadata"] = metadata_json(manifest.metadata);
  if (Json runtime = runtime_json(manifest); !runtime.empty()) json["runtime"] = std::move(runtime);
  return json.dump();
}

}  // namespace kai::manifest
