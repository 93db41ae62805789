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

Result<> remove_contents(Fd directory, std::size_t depth);

Result<> remove_entry(int parent, const char* name, std::size_t depth) {
  if (unlinkat(parent, name, 0) == 0 || errno == ENOENT) return {};
  if (errno != EISDIR) return errno_failure("unlink", name);
  if (unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT) return {};
  if (errno != ENOTEMPTY && errno != EACCES) return errno_failure("rmdir", name);
  Fd directory = open_directory(parent, name);
  if (!directory) return errno_failure("open", name);
  if (auto done = remove_contents(std::move(directory), depth + 1); !done) return done;
  return unlinkat(parent, name, AT_REMOVEDIR) == 0 ? Result<>{} : errno_failure("rmdir", name);
}

Result<> remove_contents(Fd directory, std::size_t depth) {
  if (depth > kMaxDirectoryDepth) return failure("directories are nested too deep to be removed by kaid");
  (void)fchmod(directory.get(), S_IRWXU);  // a directory that its owner may not write to keeps its entries
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(directory.get()), closedir);
  if (!entries) return errno_failure("fdopendir");
  (void)directory.release();
  while (const dirent* entry = readdir(entries.get())) {
    if (is_dots(entry->d_name)) continue;
    if (auto done = remove_entry(dirfd(entries.get()), entry->d_name, depth); !done) return done;
  }
  return {};
}

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
  return remove_entry(parent, name, 0);
}

}  // namespace kai::keeper
