#include "policies/manifest.h"

#include <array>
#include <set>

#include "base/text.h"
#include "policies/manifest_fields.h"
#include "policies/manifest_formats.h"
#include "policies/manifest_json.h"
#include "policies/manifest_names.h"
#include "policies/manifest_text.h"
#include "policies/written_domains.h"

namespace kai {
namespace manifest {
namespace {

using FormatFault = const char* (*)(std::string_view);

/// A string that also has a format.
std::optional<std::string> read_formatted(const Place& place, std::size_t longest, FormatFault format, Faults& faults) {
  auto text = read_string(place, {.longest = longest}, faults);
  if (!text) return std::nullopt;
  const char* fault = format(*text);
  if (fault == nullptr) return text;
  faults.add(place, std::string(fault) + ": " + shown(*text));
  return std::nullopt;
}

/// Strings with a format, each once. `normal`: what is kept of each that has it, and compared.
std::vector<std::string> read_list(const Place& place, std::size_t most, std::size_t longest, FormatFault format,
                                   Faults& faults, std::optional<std::string> (*normal)(std::string_view) = nullptr) {
  std::vector<std::string> list;
  std::set<std::string> seen;
  for (const Place& element : read_array(place, most, faults)) {
    auto text = read_formatted(element, longest, format, faults);
    if (!text) continue;
    if (normal != nullptr) *text = *normal(*text);
    if (!seen.insert(*text).second) {
      faults.add(element, "is there twice: " + shown(*text));
    } else {
      list.push_back(std::move(*text));
    }
  }
  return list;
}

const char* id_fault(std::string_view text) {
  if (is_agent_id(text)) return nullptr;
  if (text == "kaid" || text == "operator" || text == "topic") return "is reserved";
  return "must start with a letter or digit and have only letters, digits and . _ -";
}

MemoryConfig read_memory(const Place& place, Faults& faults) {
  MemoryConfig memory;
  ObjectReader object(place, {"type", "backend", "ttl", "maxSize", "persistent", "sharedAccess"}, faults);
  std::optional<MemoryType> type;
  std::optional<MemoryBackend> backend;
  if (const auto field = object.required("type")) type = read_enum<MemoryType>(*field, kMemoryTypes, faults);
  const auto backend_field = object.required("backend");
  if (backend_field) backend = read_enum<MemoryBackend>(*backend_field, kMemoryBackends, faults);
  if (const auto field = object.optional("ttl")) memory.ttl = read_number(*field, faults);
  if (const auto field = object.optional("maxSize")) memory.max_size = read_number(*field, faults);
  if (const auto field = object.required("persistent")) {
    const auto persistent = read_bool(*field, faults);
    if (persistent && type && *persistent != (*type != MemoryType::kVolatile)) {
      faults.add(*field, std::string("must be ") + (*persistent ? "false" : "true") + ", as memory.type is " +
                             std::string(name_of<MemoryType>(kMemoryTypes, *type)) +
                             " (persistent = type is not volatile)");
    }
    assign(memory.persistent, persistent);
  }
  if (type && backend == MemoryBackend::kMemory && *type != MemoryType::kVolatile) {
    faults.add(*backend_field, "must not be memory, as memory.type is " +
                                   std::string(name_of<MemoryType>(kMemoryTypes, *type)) +
                                   ": use indexeddb, sqlite or redis");
  }
  if (const auto field = object.optional("sharedAccess")) assign(memory.shared_access, read_bool(*field, faults));
  assign(memory.type, type);
  assign(memory.backend, backend);
  return memory;
}

Permission read_permission(const Place& place, Faults& faults) {
  Permission permission;
  ObjectReader object(place, {"resource", "actions", "scope"}, faults);
  if (const auto field = object.required("resource")) {
    assign(permission.resource, read_formatted(*field, 128, capability_fault, faults));
  }
  if (const auto field = object.required("actions")) {
    std::set<std::string_view> seen;
    const auto elements = read_array(*field, 16, faults);
    for (const Place& element : elements) {
      const auto action = read_enum<std::string_view>(element, kActions, faults);
      if (!action) continue;
      if (!seen.insert(*action).second) faults.add(element, "is there twice: " + shown(*action));
      permission.actions.emplace_back(*action);
    }
    if (field->value->is_array() && field->value->empty()) faults.add(*field, "must have at least one action");
  }
  if (const auto field = object.optional("scope"))
    assign(permission.scope, read_string(*field, {.longest = 1024}, faults));
  return permission;
}

NetworkPolicy read_network(const Place& place, Faults& faults) {
  NetworkPolicy network;
  ObjectReader object(place, {"allowOutbound", "allowedDomains", "blockedDomains", "maxConnections"}, faults);
  if (const auto field = object.required("allowOutbound")) assign(network.allow_outbound, read_bool(*field, faults));
  if (const auto field = object.optional("allowedDomains")) {
    network.allowed_domains = read_list(*field, 256, 262, manifest_domain_fault, faults, normalized_manifest_domain);
  }
  if (const auto field = object.optional("blockedDomains")) {
    network.blocked_domains = read_list(*field, 256, 262, manifest_domain_fault, faults, normalized_manifest_domain);
  }
  if (const auto field = object.optional("maxConnections")) network.max_connections = read_count(*field, 65535, faults);
  return network;
}

FileAccessPolicy read_files(const Place& place, Faults& faults) {
  FileAccessPolicy files;
  ObjectReader object(place, {"allowedPaths", "readOnly", "tempFileAccess"}, faults);
  if (const auto field = object.required("allowedPaths")) {
    files.allowed_paths = read_list(*field, 32, 1024, allowed_path_fault, faults);
  }
  if (const auto field = object.required("readOnly")) assign(files.read_only, read_bool(*field, faults));
  if (const auto field = object.required("tempFileAccess")) assign(files.temp_file_access, read_bool(*field, faults));
  return files;
}

SecurityConfig read_security(const Place& place, Faults& faults) {
  SecurityConfig security;
  ObjectReader object(place, {"sandbox", "permissions", "crypto", "networkAccess", "fileAccess"}, faults);
  if (const auto field = object.required("sandbox")) assign(security.sandbox, read_bool(*field, faults));
  if (const auto field = object.required("permissions")) {
    for (const Place& element : read_array(*field, 256, faults)) {
      security.permissions.push_back(read_permission(element, faults));
    }
  }
  if (const auto field = object.required("crypto")) {
    assign(security.crypto, read_enum<Crypto>(*field, kCryptos, faults));
  }
  if (const auto field = object.required("networkAccess")) security.network = read_network(*field, faults);
  if (const auto field = object.required("fileAccess")) security.files = read_files(*field, faults);
  return security;
}

Dependency read_dependency(const Place& place, Faults& faults) {
  Dependency dependency;
  ObjectReader object(place, {"name", "version", "type", "required"}, faults);
  std::optional<DependencyType> type;
  const auto type_field = object.required("type");
  if (type_field) type = read_enum<DependencyType>(*type_field, kDependencyTypes, faults);
  if (const auto field = object.required("name")) {
    const FormatFault format = type == DependencyType::kAgent ? id_fault : dependency_name_fault;
    assign(dependency.name, read_formatted(*field, 214, format, faults));  // npm's limit, the longest
  }
  if (const auto field = object.required("version"))
    assign(dependency.version, read_string(*field, {.longest = 128}, faults));
  if (const auto field = object.required("required")) assign(dependency.required, read_bool(*field, faults));
  assign(dependency.type, type);
  return dependency;
}

std::vector<Dependency> read_dependencies(const Place& place, Faults& faults) {
  std::vector<Dependency> dependencies;
  std::set<std::pair<DependencyType, std::string>> seen;
  for (const Place& element : read_array(place, 1024, faults)) {
    Dependency dependency = read_dependency(element, faults);
    if (!dependency.name.empty() && !seen.emplace(dependency.type, dependency.name).second) {
      faults.add(element, "names a dependency that is there already: " + shown(dependency.name));
    }
    dependencies.push_back(std::move(dependency));
  }
  return dependencies;
}

Metadata read_metadata(const Place& place, Faults& faults) {
  Metadata metadata;
  ObjectReader object(place, {"author", "description", "license", "documentation", "tags", "created", "updated"},
                      faults);
  const Text line{.longest = 256, .may_be_empty = true};
  if (const auto field = object.required("author")) assign(metadata.author, read_string(*field, line, faults));
  if (const auto field = object.required("description")) {
    assign(metadata.description,
           read_string(*field, {.longest = 4096, .may_be_empty = true, .may_have_lines = true}, faults));
  }
  if (const auto field = object.required("license")) assign(metadata.license, read_string(*field, line, faults));
  if (const auto field = object.optional("documentation")) {
    assign(metadata.documentation, read_string(*field, {.longest = 2048, .may_be_empty = true}, faults));
  }
  if (const auto field = object.required("tags")) {
    for (const Place& element : read_array(*field, 64, faults)) {
      if (auto tag = read_string(element, {.longest = 64}, faults)) metadata.tags.push_back(std::move(*tag));
    }
  }
  if (const auto field = object.required("created")) {
    assign(metadata.created, read_formatted(*field, 64, timestamp_fault, faults));
  }
  if (const auto field = object.required("updated")) {
    assign(metadata.updated, read_formatted(*field, 64, timestamp_fault, faults));
  }
  return metadata;
}

constexpr std::size_t kMostVariables = 128;
constexpr Text kArgument{.longest = 4096, .may_be_empty = true, .may_have_lines = true};

/// One variable as NAME=VALUE, unless its name is not fit or was there before.
void add_variable(const Place& place, std::string_view name, const std::string& value, std::set<std::string>& seen,
                  std::vector<std::string>& variables, Faults& faults) {
  if (const char* fault = variable_fault(name)) {
    faults.add(place, std::string(fault) + ": " + shown(name));
  } else if (!seen.emplace(name).second) {
    faults.add(place, "sets a variable that is there already: " + shown(name));
  } else {
    variables.push_back(std::string(name) + "=" + value);
  }
}

/// {"NAME": "value"} or ["NAME=value"].
std::vector<std::string> read_variables(const Place& place, Faults& faults) {
  std::vector<std::string> variables;
  std::set<std::string> seen;
  if (!place.value->is_object()) {
    for (const Place& element : read_array(place, kMostVariables, faults)) {
      const auto text = read_string(element, kArgument, faults);
      if (!text) continue;
      const std::size_t equals = text->find('=');
      if (equals == std::string::npos) {
        faults.add(element, "must be NAME=VALUE: " + shown(*text));
      } else {
        add_variable(element, std::string_view(*text).substr(0, equals), text->substr(equals + 1), seen, variables,
                     faults);
      }
    }
    return variables;
  }
  if (place.value->size() > kMostVariables) {
    faults.add(place, "has more than " + std::to_string(kMostVariables) + " variables");
    return variables;
  }
  std::size_t position = 0;
  for (const auto& [name, value] : place.value->items()) {
    Place variable{&value, child_pointer(place.pointer, name), place.order};
    variable.order.push_back(position++);
    if (const auto text = read_string(variable, kArgument, faults)) {
      add_variable(variable, name, *text, seen, variables, faults);
    }
  }
  return variables;
}

std::optional<RuntimeKind> read_kind(const Place& place, Faults& faults) {
  if (*place.value == "mcp") {
    faults.add(place, "mcp is not in this version: use node, python, native or exec");
    return std::nullopt;
  }
  return read_enum<RuntimeKind>(place, kRuntimeKinds, faults);
}

Runtime read_runtime(const Place& place, Runtime runtime, Faults& faults) {
  ObjectReader object(place, {"kind", "protocol", "args", "env"}, faults);
  if (const auto field = object.optional("kind")) {
    const auto kind = read_kind(*field, faults);
    if (kind) runtime = default_runtime(*kind);
  }
  if (const auto field = object.optional("protocol")) {
    assign(runtime.protocol, read_enum<Protocol>(*field, kProtocols, faults));
    if (runtime.kind == RuntimeKind::kNative && runtime.protocol == Protocol::kNone) {
      faults.add(*field, "must be runner, as runtime.kind is native: a shared object cannot run by itself");
    }
  }
  if (const auto field = object.optional("args")) {
    for (const Place& element : read_array(*field, 256, faults)) {
      if (auto word = read_string(element, kArgument, faults)) runtime.args.push_back(std::move(*word));
    }
  }
  if (const auto field = object.optional("env")) runtime.env = read_variables(*field, faults);
  return runtime;
}

std::string read_entry(const Place& place, Faults& faults) {
  auto text = read_string(place, {.longest = 1024}, faults);
  if (!text) return {};
  if (text->starts_with("./")) text->erase(0, 2);
  const char* fault = entry_fault(*text);
  if (fault == nullptr) return *text;
  faults.add(place, std::string(fault) + ": " + shown(*text));
  return {};
}

Manifest read_manifest(const Json& document, bool entry_required, Faults& faults) {
  Manifest manifest;
  const Place place{&document, "", {}};
  ObjectReader object(place,
                      {"id", "name", "version", "entry", "persona", "capabilities", "memory", "security",
                       "dependencies", "metadata", "runtime"},
                      faults);
  if (const auto field = object.required("id")) assign(manifest.id, read_formatted(*field, 64, id_fault, faults));
  if (const auto field = object.required("name")) assign(manifest.name, read_string(*field, {.longest = 256}, faults));
  if (const auto field = object.required("version")) {
    assign(manifest.version, read_formatted(*field, 128, semver_fault, faults));
  }
  if (const auto field = entry_required ? object.required("entry") : object.optional("entry")) {
    manifest.entry = read_entry(*field, faults);
  }
  if (const auto field = object.required("persona")) {
    assign(manifest.persona, read_enum<Persona>(*field, kPersonas, faults));
  }
  if (const auto field = object.required("capabilities")) {
    manifest.capabilities = read_list(*field, 256, 128, capability_fault, faults);
  }
  if (const auto field = object.required("memory")) manifest.memory = read_memory(*field, faults);
  if (const auto field = object.required("security")) manifest.security = read_security(*field, faults);
  if (const auto field = object.required("dependencies")) manifest.dependencies = read_dependencies(*field, faults);
  if (const auto field = object.required("metadata")) manifest.metadata = read_metadata(*field, faults);
  manifest.runtime = default_runtime(kind_of_entry(manifest.entry));
  if (const auto field = object.optional("runtime")) {
    manifest.runtime = read_runtime(*field, std::move(manifest.runtime), faults);
  }
  return manifest;
}

}  // namespace
}  // namespace manifest

ManifestResult parse_manifest(std::string_view text, bool entry_required) {
  manifest::Faults faults;
  const auto document = manifest::read_document(text, faults);
  if (!document) return {std::nullopt, faults.take()};
  Manifest read = manifest::read_manifest(*document, entry_required, faults);
  if (!faults.empty()) return {std::nullopt, faults.take()};
  read.json = manifest::canonical_json(read);
  return {std::move(read), {}};
}

}  // namespace kai
