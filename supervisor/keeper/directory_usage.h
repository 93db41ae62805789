// How much a directory tree of an agent holds, and its removal. The tree is the agent's, who can change it while it is
// looked at: every step goes through a descriptor, follows no link and stays on the file system that it began on.
#pragma once

#include <dirent.h>
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace kai::keeper {

struct DiskUsage {
  std::uint64_t bytes = 0;   ///< allocated
  std::uint64_t inodes = 0;  ///< files and directories below the top; a file with many names counts once
};

/// Directories below each other; whoever nests deeper is told as over its limit, as it cannot be measured.
inline constexpr std::size_t kMaxDirectoryDepth = 256;

/// One measurement, in slices, so that a large tree does not hold the keeper up.
class DirectoryMeasurement {
 public:
  explicit DirectoryMeasurement(Fd top);
  /// Looks at up to `entries` more. True when all has been seen.
  bool step(std::size_t entries);
  [[nodiscard]] const DiskUsage& usage() const { return usage_; }
  [[nodiscard]] bool too_deep() const { return too_deep_; }

 private:
  struct CloseDirectory {
    void operator()(DIR* directory) const { (void)closedir(directory); }
  };
  using Directory = std::unique_ptr<DIR, CloseDirectory>;

  void enter(Fd directory);
  void count(int directory, const char* name);

  std::vector<Directory> way_;  // from the top to where it is now
  dev_t device_ = 0;
  std::set<ino_t> linked_;  // of files with several names
  DiskUsage usage_;
  bool too_deep_ = false;
};

/// Removes `name` in `parent` and everything below, however deep; nothing of it may be in use.
Result<> remove_tree(int parent, const char* name);

}  // namespace kai::keeper
