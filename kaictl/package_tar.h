// A package directory as a tar in a memfd: the same bytes for the same files, whoever packs them.
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "kaictl/failure.h"

namespace kai {

struct PackageLimits {
  std::uint64_t bytes = std::uint64_t{512} << 20;  ///< of all files' contents together
  std::uint64_t entries = 100'000;
  int depth = 64;  ///< of directories
};

/// Packs `directory` as pax: names relative to it, sorted; owner, times and permission bits normalized (0755 for
/// directories and what its owner may execute, else 0644). Symbolic links are stored, never followed; anything but
/// files, directories and links is refused. The memfd is positioned at its start.
Outcome<Fd> pack_directory(const std::string& directory, const PackageLimits& limits = {});

/// What `kaictl register PATH` passes to kaid: a directory packed, or a .tar.gz as it is.
struct OpenedPackage {
  Fd tar;
  bool is_directory = false;  ///< PATH is one
};
Outcome<OpenedPackage> open_package(const std::string& path);

}  // namespace kai
