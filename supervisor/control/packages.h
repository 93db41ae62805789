// The package store: STATE/packages/ID/<sha256 of the content>, read-only trees that agents' sandboxes mount: the
// active version at /agent, and all of the agent's own at /kai/versions, so that a soft upgrade finds the new one
// without any mount being made in a sandbox that runs. A package comes as a tar from somebody who is not trusted. It is
// taken in two steps: stage() unpacks and checks it, the caller looks at the manifest and may add what it compiled,
// seal() puts it in its place.
//
// The store never follows a symlink, works below its own directory descriptor, and leaves nothing behind on an error.
// stage(), seal() and remove() block (seconds, for a large package) and may run on a worker thread: calls share nothing
// but that descriptor.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "package/path.h"
#include "policies/manifest.h"

namespace kai {

struct PackageLimits {
  std::uint64_t total_bytes = 512ULL << 20;  ///< of all files together, unpacked; a hole in a sparse file counts
  std::uint64_t file_bytes = 512ULL << 20;
  std::size_t entries = 100'000;
  std::size_t path_bytes = 32ULL << 20;  ///< of all names and link texts together: they are held in memory
  std::size_t depth = 64;
  /// Unpacked bytes, of files or of the tar, for each byte that was brought. Sources come to 10, text that repeats
  /// itself to 50, a bomb to 1,000 (what deflate can do).
  std::uint64_t ratio = 100;
  std::uint64_t ratio_from = 64ULL << 20;  ///< unpacked bytes; below, the ratio says nothing: headers are mostly zeros
};
inline constexpr std::size_t kMaxPackagePath = package::kMaxPath;  ///< bytes of a path or a link's text

struct PackageEntry {
  enum class Type { kDirectory, kFile, kSymlink } type = Type::kDirectory;
  bool executable = false;
  std::array<unsigned char, 32> sha256{};  ///< of a file
  std::string target;                      ///< of a symlink: relative, and it stays inside
};
/// By path relative to the package's root, without a leading or trailing slash; every directory is there.
using PackageEntries = std::map<std::string, PackageEntry, std::less<>>;

/// An unpacked package that is not in the store yet. Dropped without seal(), it is removed.
class StagedPackage {
 public:
  StagedPackage(StagedPackage&& other) noexcept;
  StagedPackage& operator=(StagedPackage&& other) noexcept;
  ~StagedPackage();

  /// Text of manifest.json: at most kMaxManifestBytes, otherwise unchecked.
  [[nodiscard]] const std::string& manifest() const { return manifest_; }
  [[nodiscard]] const PackageEntries& entries() const { return entries_; }
  /// The package's root, for a read-only mount into the job that compiles it. Borrowed.
  [[nodiscard]] int directory() const { return root_.get(); }

  /// Whether `path` itself, not what it leads to, is a regular file.
  [[nodiscard]] bool has_file(std::string_view path) const;
  /// What it is called in the store, as it is now: 64 hex digits.
  [[nodiscard]] std::string content_name() const;

  /// Adds a file (0444) and its directories: ".kai/main.mjs". Packages themselves may not have a .kai.
  Result<> add_file(const std::string& path, std::string_view bytes);

  /// A small file of the package, through symlinks that are inside it. nullopt: there is no such file.
  Result<std::optional<std::string>> read(std::string_view path, std::size_t limit) const;

  /// The path of the entry that `path` leads to, through symlinks, without asking the file system. nullopt: to nothing.
  [[nodiscard]] std::optional<std::string> resolve(std::string_view path) const;

  /// Whether node_modules/NAME is there and is a module (it has a package.json).
  [[nodiscard]] bool has_module(std::string_view name) const;
  /// "version" of node_modules/NAME/package.json. nullopt: no such module. An error: no JSON, or no version in it.
  Result<std::optional<std::string>> module_version(std::string_view name) const;

 private:
  friend class PackageStore;
  StagedPackage() = default;
  void discard();

  Fd store_;          // of STATE/packages, own duplicate
  std::string name_;  // .staging-XXXX in there; empty: sealed or moved from
  std::string top_;   // the tar's one top directory, which is the root then; empty: none
  Fd root_;
  std::string manifest_;
  PackageEntries entries_;
};

class PackageStore {
 public:
  /// Opens or makes (0755) the directory and removes what an earlier run left half done.
  static Result<PackageStore> open(const std::string& directory);

  /// Unpacks a tar (ustar, pax or gnu, maybe gzipped) from a regular file or memfd, from its start. An error with
  /// errno 0 means that the package is at fault, and its message is for the operator: it names the member of the tar
  /// and what is wrong with it. Any other is the machine's (no space). `tar` is borrowed.
  Result<StagedPackage> stage(int tar, const PackageLimits& limits = {}) const;

  /// Puts the package in its place among those of `agent_id` and returns its name, 64 hex digits; on the disk when it
  /// returns. The same content is kept once.
  Result<std::string> seal(StagedPackage package, const std::string& agent_id) const;

  /// "ID/HASH" of all.
  Result<std::vector<std::string>> list() const;
  [[nodiscard]] bool has(const std::string& agent_id, const std::string& name) const;
  /// Bytes of its files together. 0: it is not there.
  Result<std::uint64_t> size(const std::string& agent_id, const std::string& name) const;

  /// Removing what is not there is success.
  Result<> remove(const std::string& agent_id, const std::string& name) const;
  /// The first half of remove(), which is one rename and does not block: the package is not there any more. "": it was
  /// not before. What it returns is for remove_aside(), on whatever thread; left alone, the next open() removes it.
  Result<std::string> set_aside(const std::string& agent_id, const std::string& name) const;
  Result<> remove_aside(const std::string& aside) const;

  /// Says that somebody is about to name the package in the registry, until the last copy is gone. It hinders nobody by
  /// itself: who removes packages while kaid serves asks held(). Both on the event loop's thread alone.
  using Hold = std::shared_ptr<const std::string>;
  [[nodiscard]] Hold hold(const std::string& agent_id, const std::string& name) const;
  [[nodiscard]] bool held(const std::string& agent_id, const std::string& name) const;

  /// Removes every package that is not in `keep` (Registry::packages_in_use, "ID/HASH"); nothing may be starting from
  /// one. Those that an earlier kaid kept as STATE/packages/HASH are moved to their agents' directories first.
  Result<> remove_unreferenced(const std::set<std::string>& keep) const;

 private:
  explicit PackageStore(Fd directory) : directory_(std::move(directory)) {}
  Result<Fd> agent_directory(const std::string& agent_id, bool make) const;
  Result<> take_in_flat(const std::set<std::string>& keep) const;
  Fd directory_;
  mutable std::map<std::string, std::weak_ptr<const std::string>> holds_;  // by "ID/HASH"
};

struct PackageFindings {
  std::vector<ManifestError> errors;    ///< each refuses the registration
  std::vector<ManifestError> warnings;  ///< of dependencies that are not required
};
/// What the manifest says about the package's content, held against the content: `entry` is a regular file that no
/// symlink stands before and, for exec, executable (/entry); each dependency of type module is there at a version
/// within its range (/dependencies/N), which is one (/dependencies/N/version): of a node agent in node_modules, of a
/// Python agent where its Python imports from.
PackageFindings check_package(const StagedPackage& package, const Manifest& manifest);

}  // namespace kai
