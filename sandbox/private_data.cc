#include "sandbox/private_data.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <climits>

#include "base/unix.h"

namespace kai::sandbox {
namespace {

constexpr const char* kAttachPoint = "/sys";
constexpr std::uint64_t kNoLinks = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;

}  // namespace

Result<std::string> path_of(const Fd& fd) {
  std::array<char, PATH_MAX> path{};
  const std::string link = "/proc/self/fd/" + std::to_string(fd.get());
  if (readlink(link.c_str(), path.data(), path.size() - 1) < 0) return errno_failure("readlink", link);
  if (path[0] != '/') return failure("it has no path on this host:", path.data());
  return std::string(path.data());
}

Result<Fd> reopen_here(const Fd& given, int flags) {
  const auto path = path_of(given);
  if (!path) return tl::unexpected(path.error());
  struct stat wanted {};
  if (fstat(given.get(), &wanted) < 0) return errno_failure("fstat", *path);
  auto again = open_at(AT_FDCWD, *path, flags, kNoLinks);
  if (!again) return again;
  struct stat found {};
  if (fstat(again->get(), &found) < 0) return errno_failure("fstat", *path);
  if (wanted.st_dev != found.st_dev || wanted.st_ino != found.st_ino) {
    return failure("the file was replaced, or is on a mount that kaid does not see:", *path);
  }
  return again;
}

Result<PrivateData> PrivateData::open(starter::PrivateData kind, const Fd& given, Owner agent) {
  PrivateData data;
  data.agent_ = agent;
  if (kind == starter::NONE) return data;
  if (kind == starter::MOUNT) {
    if (syscall(SYS_move_mount, given.get(), "", AT_FDCWD, kAttachPoint, MOVE_MOUNT_F_EMPTY_PATH) < 0) {
      return errno_failure("move_mount", "private data");
    }
    auto root = open_at(AT_FDCWD, kAttachPoint, O_PATH | O_DIRECTORY, kNoLinks);
    if (!root) return tl::unexpected(root.error());
    data.root_ = std::move(*root);
    data.give_away_ = true;
    return data;
  }
  auto root = reopen_here(given, O_PATH | O_DIRECTORY);
  if (!root) return tl::unexpected(root.error());
  data.root_ = std::move(*root);
  data.give_away_ = agent.uid != geteuid();
  return data;
}

Result<Fd> PrivateData::directory(const std::string& name) const {
  if (!root_) return failure("a mount needs private data, and none came with the job:", name);
  if (name.empty() || name.find('/') != std::string::npos || name == "." || name == "..") {
    return failure("not a plain directory name:", name);
  }
  constexpr std::uint64_t kBeneath = RESOLVE_BENEATH | kNoLinks;
  const bool made = mkdirat(root_.get(), name.c_str(), 0700) == 0;
  if (!made && errno != EEXIST) return errno_failure("mkdir", name);
  auto directory = open_at(root_.get(), name, O_PATH | O_DIRECTORY, kBeneath);
  if (!directory) return directory;
  // Each time, not only when made: a start that ended in between has left it with root.
  if (give_away_ && fchownat(directory->get(), "", agent_.uid, agent_.gid, AT_EMPTY_PATH) < 0) {
    return errno_failure("chown", name);
  }
  return directory;
}

}  // namespace kai::sandbox
