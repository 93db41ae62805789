#include <optional>

#include "base/text.h"
#include "policies/versions/npm_range.h"
#include "policies/versions/pep440.h"
#include "supervisor/control/packages.h"
#include "supervisor/control/python_modules.h"

namespace kai {
namespace {

// They come with the runtime, not with the package (contracts.md).
constexpr std::string_view kNodeSdkModule = "@kai/agent";
constexpr std::string_view kPythonSdkModule = "kai";

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

/// What is wrong with a dependency.
struct ModuleFault {
  bool malformed = false;  // it is its version that is none
  std::string message;
};

/// nullopt: the module is in node_modules, at a version within the range.
std::optional<ModuleFault> node_module_fault(const StagedPackage& package, const Dependency& dependency) {
  const auto range = NpmRange::parse(dependency.version);
  if (!range) return ModuleFault{true, "is no range of npm's: " + escape_for_terminal(range.error().what)};
  const std::string name = escape_for_terminal(dependency.name);
  const auto found = package.module_version(dependency.name);
  if (!found) return ModuleFault{false, "the module " + name + " cannot be looked at: " + found.error().message()};
  if (!*found) {
    return ModuleFault{false, "the module " + name +
                                  " is not in the package's node_modules; run npm ci in the package before "
                                  "registering it"};
  }
  const auto version = NpmVersion::parse(**found);
  if (version && range->has(*version)) return std::nullopt;
  return ModuleFault{false, "the module " + name + " in the package's node_modules has version '" +
                                escape_for_terminal(**found) + "', which is not within " +
                                escape_for_terminal(dependency.version) + "; run npm ci in the package"};
}

/// nullopt: the module is where the agent's Python imports from, at a version that the specifiers have. A version alone
/// means exactly that one, * any.
std::optional<ModuleFault> python_module_fault(const PythonModules& modules, const Dependency& dependency) {
  const bool any = dependency.version == "*" || dependency.version.empty();
  const auto exact = Pep440Version::parse(dependency.version);
  const auto specifiers =
      exact ? Pep440Specifiers::exactly(*exact) : Pep440Specifiers::parse(any ? "" : dependency.version);
  if (!specifiers) return ModuleFault{true, escape_for_terminal(specifiers.error().what)};
  const std::string name = escape_for_terminal(dependency.name);
  const auto found = modules.versions(dependency.name);
  if (!found) return ModuleFault{false, "the module " + name + " cannot be looked at: " + found.error().message()};
  const std::string remedy = "; install it into the package (python3 -m pip install --target) before registering it";
  if (found->empty()) {
    return ModuleFault{false, "the module " + name + " is not in the package where its Python imports from (" +
                                  modules.directories() + "): there is no .dist-info or .egg-info of it" + remedy};
  }
  for (const std::string& text : *found) {
    const auto version = Pep440Version::parse(text);
    if (any || (version && specifiers->has(*version))) continue;
    return ModuleFault{false, "the module " + name + " in the package has version '" + escape_for_terminal(text) +
                                  "', which is not within " + escape_for_terminal(dependency.version) + remedy};
  }
  return std::nullopt;
}

/// Only package managers that are known have versions that can be compared: npm's and Python's.
void check_modules(const StagedPackage& package, const Manifest& manifest, PackageFindings& findings) {
  const bool node = manifest.runtime.kind == RuntimeKind::kNode;
  if (!node && manifest.runtime.kind != RuntimeKind::kPython) return;
  std::optional<PythonModules> python;
  if (!node) python.emplace(package, manifest);
  for (std::size_t at = 0; at < manifest.dependencies.size(); ++at) {
    const Dependency& dependency = manifest.dependencies[at];
    if (dependency.type != DependencyType::kModule) continue;
    if (dependency.name == (node ? kNodeSdkModule : kPythonSdkModule)) continue;
    auto fault = node ? node_module_fault(package, dependency) : python_module_fault(*python, dependency);
    if (!fault) continue;
    auto& list = dependency.required || fault->malformed ? findings.errors : findings.warnings;
    list.push_back(
        {"/dependencies/" + std::to_string(at) + (fault->malformed ? "/version" : ""), std::move(fault->message)});
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
