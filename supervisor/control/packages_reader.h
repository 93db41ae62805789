// Unpacks a tar that is not trusted below a directory descriptor. What it refuses is an Error with errno 0, which names
// the member; an Error with errno is the machine's.
#pragma once

#include <archive_entry.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"
#include "supervisor/control/packages.h"

struct archive;

namespace kai {

/// A member's name as a path below the root: without leading "./" and trailing "/"; "" is the root. Absolute names,
/// "..", control characters, bytes that are not UTF-8 and what is over the limits are refused.
Result<std::string> member_path(std::string_view name, std::size_t max_depth);

/// Whether a symlink at `path` with this text stays inside the package however its target is reached: relative, ".."
/// only at its beginning, and not more of them than there are directories above it.
Result<> check_symlink(std::string_view path, std::string_view target);

class PackageReader {
 public:
  /// `root`: an empty directory, borrowed.
  PackageReader(int root, const PackageLimits& limits) : root_(root), limits_(limits) {}

  /// All members, from the beginning of `tar`. Symlinks are made, but not checked: where the root is shows at the end.
  Result<PackageEntries> read(int tar);

 private:
  Result<> take(archive* reader, archive_entry* member);
  Result<> make_room(const std::string& path);
  Result<> add(const std::string& path, PackageEntry entry);
  Result<> take_directory(const std::string& path);
  Result<> take_symlink(const std::string& path, archive_entry* member);
  Result<> take_file(const std::string& path, archive* reader, archive_entry* member);
  Result<> unpack(const std::string& path, archive* reader, archive_entry* member, int file, PackageEntry& entry);
  Result<int> parent(const std::string& path);

  int root_;
  PackageLimits limits_;
  PackageEntries entries_;
  std::set<std::string> named_;  // directories that a member of their own named
  std::uint64_t bytes_ = 0;
  std::size_t path_bytes_ = 0;
  std::string parent_path_;  // that parent_ has open
  Fd parent_;
};

/// The error for a package that is at fault.
tl::unexpected<Error> refused(std::string_view member, std::string_view why);

}  // namespace kai
