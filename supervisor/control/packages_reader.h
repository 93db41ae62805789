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
#include "package/path.h"
#include "supervisor/control/packages.h"

struct archive;

namespace kai {

using package::check_symlink;
using package::member_path;
using package::refused;

class PackageReader {
 public:
  /// `root`: an empty directory, borrowed.
  PackageReader(int root, const PackageLimits& limits) : root_(root), limits_(limits) {}

  /// All members, from the beginning of `tar`. Symlinks are made, but not checked: where the root is shows at the end.
  Result<PackageEntries> read(int tar);

 private:
  Result<> take(archive* reader, archive_entry* member);
  Result<> check_ratio(std::uint64_t unpacked) const;
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
  std::uint64_t packed_ = 0;  // bytes of the tar as it was brought
  std::size_t path_bytes_ = 0;
  std::string parent_path_;  // that parent_ has open
  Fd parent_;
};

}  // namespace kai
