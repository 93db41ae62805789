#include "supervisor/control/packages_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>

#include "base/unix.h"

namespace kai {
namespace {

// More than a package may have (PackageLimits::depth), so that it ends on a tree that is not ours, too.
constexpr int kMaxDepth = 256;

Result<> remove_below(int parent, const std::string& name, int depth) {
  if (depth > kMaxDepth) return failure("remove", name + ": directories are nested too deep");
  if (unlinkat(parent, name.c_str(), 0) == 0 || errno == ENOENT) return {};
  if (errno != EISDIR) return errno_failure("remove", name);
  {
    const Fd directory(openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!directory) return errno_failure("open", name);
    const auto names = list_directory(directory.get());
    if (!names) return tl::unexpected(names.error());
    for (const std::string& child : *names) {
      if (auto removed = remove_below(directory.get(), child, depth + 1); !removed) return removed;
    }
  }
  if (unlinkat(parent, name.c_str(), AT_REMOVEDIR) < 0 && errno != ENOENT) return errno_failure("remove", name);
  return {};
}

Result<std::uint64_t> size_below(int parent, const std::string& name, int depth) {
  if (depth > kMaxDepth) return failure("measure", name + ": directories are nested too deep");
  struct stat status {};
  if (fstatat(parent, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) < 0) {
    if (errno == ENOENT) return 0;
    return errno_failure("stat", name);
  }
  if (S_ISREG(status.st_mode)) return static_cast<std::uint64_t>(status.st_size);
  if (!S_ISDIR(status.st_mode)) return 0;
  const Fd directory(openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!directory) return errno_failure("open", name);
  const auto names = list_directory(directory.get());
  if (!names) return tl::unexpected(names.error());
  std::uint64_t total = 0;
  for (const std::string& child : *names) {
    const auto size = size_below(directory.get(), child, depth + 1);
    if (!size) return size;
    total += *size;
  }
  return total;
}

}  // namespace

std::pair<std::string, std::string> split_path(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return {"", std::string(path)};
  return {std::string(path.substr(0, slash)), std::string(path.substr(slash + 1))};
}

Result<Fd> open_directory(int root, const std::string& path) {
  return open_at(root, path.empty() ? "." : path, O_RDONLY | O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
}

Result<> make_directory(int parent, const std::string& name) {
  if (mkdirat(parent, name.c_str(), 0755) < 0) return errno_failure("make the directory", name);
  if (fchmodat(parent, name.c_str(), 0755, 0) < 0) return errno_failure("chmod", name);
  return {};
}

Result<Fd> make_file(int parent, const std::string& name) {
  Fd file(openat(parent, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) return errno_failure("make the file", name);
  return file;
}

Result<std::vector<std::string>> list_directory(int directory) {
  // A descriptor of its own: fdopendir takes it, and reading moves its offset.
  Fd copy(openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!copy) return errno_failure("open a directory");
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(fdopendir(copy.get()), closedir);
  if (!stream) return errno_failure("fdopendir");
  static_cast<void>(copy.release());
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = readdir(stream.get());
    if (entry == nullptr) break;
    const std::string_view name = static_cast<const char*>(entry->d_name);
    if (name != "." && name != "..") names.emplace_back(name);
  }
  if (errno != 0) return errno_failure("read a directory");
  return names;
}

Result<std::uint64_t> tree_size(int parent, const std::string& name) {
  return size_below(parent, name, 0);
}

Result<> remove_tree(int parent, const std::string& name) {
  return remove_below(parent, name, 0);
}

}  // namespace kai
