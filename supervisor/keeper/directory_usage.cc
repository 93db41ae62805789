#include "supervisor/keeper/directory_usage.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <utility>

namespace kai::keeper {
namespace {

constexpr unsigned kStatBlock = 512;  // what st_blocks counts in
constexpr int kPlainDirectory = O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

bool is_dots(std::string_view name) {
  return name == "." || name == "..";
}

/// One that its owner closed to himself is opened to him: hidden files would be uncounted. The mode is changed through
/// a descriptor of that very directory, never by a name that could have become a link.
Fd open_directory(int parent, const char* name) {
  Fd directory(openat(parent, name, O_RDONLY | kPlainDirectory));
  if (directory || errno != EACCES) return directory;
  const Fd pinned(openat(parent, name, O_PATH | kPlainDirectory));
  if (!pinned) return directory;
  const std::string path = "/proc/self/fd/" + std::to_string(pinned.get());
  if (chmod(path.c_str(), S_IRWXU) < 0) return directory;
  directory.reset(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return directory;
}

using Directory = std::unique_ptr<DIR, int (*)(DIR*)>;

/// For the removal of what it holds: a directory that its owner may not write to keeps its entries, and its place.
Result<Fd> open_to_empty(int parent, const char* name) {
  Fd directory = open_directory(parent, name);
  if (!directory) return errno_failure("open", name);
  (void)fchmod(directory.get(), S_IRWXU);
  return directory;
}

/// Removes trees of any depth with two open directories: what is not empty in a directory is moved to the top, where
/// its turn comes. A place where something is mounted is neither removed nor moved (EBUSY), and ends the removal.
class TreeRemoval {
 public:
  explicit TreeRemoval(Fd top) : top_(fdopendir(top.get()), closedir) {
    if (top_) (void)top.release();
  }

  Result<> run() {
    if (!top_) return errno_failure("fdopendir");
    for (bool empty = false; !empty;) {
      empty = true;
      rewinddir(top_.get());
      while (const dirent* entry = readdir(top_.get())) {
        if (is_dots(entry->d_name)) continue;
        empty = false;
        const auto removed = remove(dirfd(top_.get()), entry->d_name);
        if (!removed) return tl::unexpected(removed.error());
        if (*removed) continue;
        if (auto done = flatten(entry->d_name); !done) return done;
      }
    }
    return {};
  }

  /// False: a directory that is not empty.
  static Result<bool> remove(int parent, const char* name) {
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT) return true;
    if (errno != EISDIR) return errno_failure("unlink", name);
    if (unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT) return true;
    if (errno != ENOTEMPTY && errno != EACCES) return errno_failure("rmdir", name);
    return false;
  }

 private:
  /// Removes `name` of the top, and makes siblings of the directories in it.
  Result<> flatten(const char* name) {
    auto opened = open_to_empty(dirfd(top_.get()), name);
    if (!opened) return tl::unexpected(opened.error());
    const Directory entries(fdopendir(opened->get()), closedir);
    if (!entries) return errno_failure("fdopendir", name);
    const int directory = opened->release();
    while (const dirent* entry = readdir(entries.get())) {
      if (is_dots(entry->d_name)) continue;
      const auto removed = remove(directory, entry->d_name);
      if (!removed) return tl::unexpected(removed.error());
      if (*removed) continue;
      if (auto done = move_to_top(directory, entry->d_name); !done) return done;
    }
    // A listing that changes while it is read can leave something out; then its turn comes again.
    if (unlinkat(dirfd(top_.get()), name, AT_REMOVEDIR) == 0 || errno == ENOTEMPTY) return {};
    return errno_failure("rmdir", name);
  }

  Result<> move_to_top(int parent, const char* name) {
    if (auto writable = open_to_empty(parent, name); !writable) return tl::unexpected(writable.error());
    for (;;) {
      const std::string fresh = "~" + std::to_string(next_++);
      if (renameat(parent, name, dirfd(top_.get()), fresh.c_str()) == 0) return {};
      const bool taken = errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR;
      if (!taken) return errno_failure("rename", name);
    }
  }

  Directory top_;
  std::uint64_t next_ = 0;
};

}  // namespace

DirectoryMeasurement::DirectoryMeasurement(Fd top) {
  struct stat status {};
  if (!top || fstat(top.get(), &status) < 0) return;
  device_ = status.st_dev;
  enter(std::move(top));
}

void DirectoryMeasurement::enter(Fd directory) {
  if (way_.size() >= kMaxDirectoryDepth) {
    too_deep_ = true;
    return;
  }
  Directory entries(fdopendir(directory.get()));
  if (!entries) return;
  (void)directory.release();
  way_.push_back(std::move(entries));
}

void DirectoryMeasurement::count(int directory, const char* name) {
  struct stat status {};
  if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0 || status.st_dev != device_) return;
  if (!S_ISDIR(status.st_mode) && status.st_nlink > 1 && !linked_.insert(status.st_ino).second) return;
  usage_.bytes += static_cast<std::uint64_t>(status.st_blocks) * kStatBlock;
  ++usage_.inodes;
  if (!S_ISDIR(status.st_mode)) return;
  Fd below = open_directory(directory, name);
  struct stat opened {};
  if (below && fstat(below.get(), &opened) == 0 && opened.st_dev == device_) enter(std::move(below));
}

bool DirectoryMeasurement::step(std::size_t entries) {
  for (; entries > 0 && !way_.empty(); --entries) {
    DIR* const here = way_.back().get();
    const dirent* entry = readdir(here);
    if (entry == nullptr) {
      way_.pop_back();
    } else if (!is_dots(entry->d_name)) {
      count(dirfd(here), entry->d_name);
    }
  }
  return way_.empty();
}

Result<> remove_tree(int parent, const char* name) {
  const auto removed = TreeRemoval::remove(parent, name);
  if (!removed) return tl::unexpected(removed.error());
  if (*removed) return {};
  auto top = open_to_empty(parent, name);
  if (!top) return tl::unexpected(top.error());
  if (auto done = TreeRemoval(std::move(*top)).run(); !done) return done;
  return unlinkat(parent, name, AT_REMOVEDIR) == 0 ? Result<>{} : errno_failure("rmdir", name);
}

}  // namespace kai::keeper
