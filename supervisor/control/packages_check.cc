#include "base/text.h"
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

}  // namespace

std::vector<ManifestError> check_package(const StagedPackage& package, const Manifest& manifest) {
  std::vector<ManifestError> errors;
  if (const std::string fault = entry_fault(package.entries(), manifest.entry, manifest.runtime.kind); !fault.empty()) {
    errors.push_back({"/entry", escape_for_terminal(manifest.entry) + " " + fault});
  }
  if (manifest.runtime.kind != RuntimeKind::kNode) return errors;
  for (std::size_t at = 0; at < manifest.dependencies.size(); ++at) {
    const Dependency& dependency = manifest.dependencies[at];
    if (dependency.type != DependencyType::kModule || !dependency.required || dependency.name == kSdkModule) continue;
    if (package.has_module(dependency.name)) continue;
    errors.push_back({"/dependencies/" + std::to_string(at), "the required module " +
                                                                 escape_for_terminal(dependency.name) +
                                                                 " is not in the package's node_modules; run npm ci in "
                                                                 "the package before registering it"});
  }
  return errors;
}

}  // namespace kai
