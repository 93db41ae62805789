#include "supervisor/control/python_modules.h"

#include <algorithm>
#include <optional>

#include "base/text.h"
#include "policies/layout.h"

namespace kai {
namespace {

constexpr std::size_t kMaxDirectories = 16;
constexpr std::size_t kMaxDistributions = 4096;
constexpr std::size_t kMaxCandidates = 16;  // of one name
constexpr std::size_t kMaxMetadata = 1 << 20;
constexpr std::string_view kDistInfo = ".dist-info";
constexpr std::string_view kEggInfo = ".egg-info";

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::string_view trim(std::string_view text) {
  const std::size_t from = text.find_first_not_of(" \t\r");
  return from == std::string_view::npos ? "" : text.substr(from, text.find_last_not_of(" \t\r") - from + 1);
}

/// The first field of that name in a METADATA's header, which ends at an empty line. `field`: in lower case.
std::optional<std::string> header_field(std::string_view text, std::string_view field) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (trim(line).empty()) break;
    const std::size_t colon = line.find(':');
    if (colon != std::string_view::npos && lower(line.substr(0, colon)) == field) {
      return std::string(trim(line.substr(colon + 1)));
    }
  }
  return std::nullopt;
}

}  // namespace

std::string normalized_python_name(std::string_view name) {
  std::string out;
  for (const char c : lower(name)) {
    const bool separator = c == '-' || c == '_' || c == '.';
    if (!separator) out += c;
    if (separator && !out.ends_with('-')) out += '-';
  }
  return out;
}

PythonModules::PythonModules(const StagedPackage& package, const Manifest& manifest) : package_(package) {
  const std::size_t slash = manifest.entry.rfind('/');
  add_directory(slash == std::string::npos ? "" : std::string_view(manifest.entry).substr(0, slash));
  constexpr std::string_view kVariable = "PYTHONPATH=";
  for (const std::string& variable : manifest.runtime.env) {
    if (!variable.starts_with(kVariable)) continue;
    const std::string_view value = std::string_view(variable).substr(kVariable.size());
    for (std::size_t at = 0; at <= value.size();) {
      const std::size_t end = std::min(value.find(':', at), value.size());
      std::string_view path = value.substr(at, end - at);
      at = end + 1;
      // A relative one begins at the working directory, which is the package.
      if (path.starts_with(kPackageDir)) {
        path.remove_prefix(kPackageDir.size());
        if (!path.empty() && path[0] != '/') continue;
      } else if (path.starts_with('/')) {
        continue;
      }
      add_directory(path);
    }
  }
  for (std::size_t at = 0; at < directories_.size(); ++at) list(at);
}

void PythonModules::add_directory(std::string_view path) {
  auto real = package_.resolve(path);
  if (!real || std::find(directories_.begin(), directories_.end(), *real) != directories_.end()) return;
  if (directories_.size() == kMaxDirectories) {
    excess_ = "PYTHONPATH names more than " + std::to_string(kMaxDirectories) + " directories of the package";
    return;
  }
  directories_.push_back(std::move(*real));
}

void PythonModules::list(std::size_t directory) {
  const PackageEntries& entries = package_.entries();
  const std::string above = directories_[directory].empty() ? "" : directories_[directory] + "/";
  for (auto entry = entries.lower_bound(above); entry != entries.end() && entry->first.starts_with(above);) {
    const std::string& path = entry->first;
    if (const std::size_t slash = path.find('/', above.size()); slash != std::string::npos) {
      // Below one of its directories: all of that is passed over, up to the character behind the slash.
      entry = entries.lower_bound(path.substr(0, slash) + static_cast<char>('/' + 1));
      continue;
    }
    ++entry;
    const std::string_view file = std::string_view(path).substr(above.size());
    if (!file.ends_with(kDistInfo) && !file.ends_with(kEggInfo)) continue;
    if (metadata_.size() == kMaxDistributions) {
      excess_ = "the package has more than " + std::to_string(kMaxDistributions) + " Python distributions";
      return;
    }
    // As importlib.metadata has it: a name's own dashes are underscores here.
    const std::string_view stem = file.substr(0, file.rfind('.'));
    metadata_.push_back({directory, normalized_python_name(stem.substr(0, stem.find('-'))), path});
  }
}

Result<std::string> PythonModules::read(const std::string& path) const {
  // An .egg-info may be the file itself.
  for (const std::string& file :
       path.ends_with(kDistInfo) ? std::vector{path + "/METADATA"} : std::vector{path + "/PKG-INFO", path}) {
    auto text = package_.read(file, kMaxMetadata);
    if (!text) return tl::unexpected(text.error());
    if (*text) return std::move(**text);
  }
  return std::string();
}

Result<std::vector<std::string>> PythonModules::versions(std::string_view name) const {
  if (!excess_.empty()) return failure(excess_);
  const std::string wanted = normalized_python_name(name);
  std::vector<std::string> found;
  std::size_t directory = 0, candidates = 0;
  for (const Metadata& metadata : metadata_) {
    if (metadata.name != wanted) continue;
    if (!found.empty() && metadata.directory != directory) break;
    if (++candidates > kMaxCandidates) {
      return failure("the package has it more than " + std::to_string(kMaxCandidates) + " times");
    }
    const auto text = read(metadata.path);
    if (!text) return tl::unexpected(text.error());
    const auto own_name = header_field(*text, "name"), version = header_field(*text, "version");
    if (!own_name || !version) {
      return failure(escape_for_terminal(metadata.path) + " does not say its Name and Version");
    }
    if (normalized_python_name(*own_name) != wanted) continue;
    directory = metadata.directory;
    found.push_back(*version);
  }
  return found;
}

std::string PythonModules::directories() const {
  std::string text;
  for (const std::string& directory : directories_) {
    text += (text.empty() ? "" : ", ") + std::string(kPackageDir) + (directory.empty() ? "" : "/") + directory;
  }
  return escape_for_terminal(text);
}

}  // namespace kai
