#include "base/text.h"
#include "policies/versions/npm_range.h"
#include "supervisor/control/packages.h"

namespace kai {
namespace {

/// Comes with the runtime, not with the package (contracts.md).
constexpr std::string_view kSdkModule = "@kai/agent";

/// Why `entry` cannot be run from the package; empty: it can.
std::string entry_fault(const PackageEntries& entries, const std::string& entry, RuntimeKind kind) {
  for (std::size_t slash = entry.find('/'); slash != std::string::npos; slash = entry.find('/', slash + 1)) {
    const auto found = entries.find(entry.substr(0, slash));
    if (found == entries.end()) break;
    if (found->second.type == PackageEntry::Type::kSymlink) return "is behind a symlink; name the real path";
  }
  const auto found = entries.find(entry);
  if (found == entries.end()) return "is not in the package";
  switch (found->second.type) {
    case PackageEntry::Type::kSymlink:
      return "is a symlink; name the real file";
    case PackageEntry::Type::kDirectory:
      return "is a directory; name a file in it";
    case PackageEntry::Type::kFile:
      break;
  }
  if (kind == RuntimeKind::kExec && !found->second.executable) return "is not executable; run chmod +x on it";
  return "";
}

/// What is wrong with the module in the package; empty: it is there, at a version within the range.
std::string module_fault(const StagedPackage& package, const Dependency& dependency, const NpmRange& range) {
  const std::string name = escape_for_terminal(dependency.name);
  const auto found = package.module_version(dependency.name);
  if (!found) return "the module " + name + " cannot be looked at: " + found.error().message();
  if (!*found) {
    return "the module " + name +
           " is not in the package's node_modules; run npm ci in the package before registering it";
  }
  const auto version = NpmVersion::parse(**found);
  if (version && range.has(*version)) return {};
  return "the module " + name + " in the package's node_modules has version '" + escape_for_terminal(**found) +
         "', which is not within " + escape_for_terminal(dependency.version) + "; run npm ci in the package";
}

/// Versions are npm's: only a node agent's modules are looked at.
void check_modules(const StagedPackage& package, const Manifest& manifest, PackageFindings& findings) {
  if (manifest.runtime.kind != RuntimeKind::kNode) return;
  for (std::size_t at = 0; at < manifest.dependencies.size(); ++at) {
    const Dependency& dependency = manifest.dependencies[at];
    if (dependency.type != DependencyType::kModule || dependency.name == kSdkModule) continue;
    const std::string pointer = "/dependencies/" + std::to_string(at);
    const auto range = NpmRange::parse(dependency.version);
    if (!range) {
      findings.errors.push_back(
          {pointer + "/version", "is no range of npm's: " + escape_for_terminal(range.error().what)});
      continue;
    }
    std::string fault = module_fault(package, dependency, *range);
    if (fault.empty()) continue;
    (dependency.required ? findings.errors : findings.warnings).push_back({pointer, std::move(fault)});
  }
}

}  // namespace

PackageFindings check_package(const StagedPackage& package, const Manifest& manifest) {
  PackageFindings findings;
  if (const std::string fault = entry_fault(package.entries(), manifest.entry, manifest.runtime.kind); !fault.empty()) {
    findings.errors.push_back({"/entry", escape_for_terminal(manifest.entry) + " " + fault});
  }
  check_modules(package, manifest, findings);
  return findings;
}

}  // namespace kai
