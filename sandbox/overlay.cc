#include "sandbox/overlay.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <utility>

#include "base/unix.h"
#include "sandbox/new_mount.h"

// glibc's <sys/mount.h> clashes with <linux/mount.h> in 2.36.
extern "C" int umount2(const char* target, int flags) noexcept;
#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif

namespace kai::sandbox {
namespace {

// A directory that every host has, and that a starter does not need.
constexpr const char* kAttachPoint = "/sys";

Result<> attach_here(const Fd& mount) {
  if (syscall(SYS_move_mount, mount.get(), "", AT_FDCWD, kAttachPoint, MOVE_MOUNT_F_EMPTY_PATH) < 0) {
    return errno_failure("move_mount", kAttachPoint);
  }
  return {};
}

std::string by_descriptor(const Fd& fd) {
  return "/proc/self/fd/" + std::to_string(fd.get());
}

}  // namespace

Result<OverlayMaker> OverlayMaker::create() {
  const std::array<MountOption, 3> options = {{{"size", "4096"}, {"nr_inodes", "2"}, {"mode", "755"}}};
  const auto mount = new_mount("tmpfs", options, MOUNT_ATTR_RDONLY);
  if (!mount) return tl::unexpected(mount.error());
  if (auto done = attach_here(*mount); !done) return tl::unexpected(done.error());
  auto empty = open_at(AT_FDCWD, kAttachPoint, O_PATH | O_DIRECTORY);
  if (!empty) return tl::unexpected(empty.error());
  return OverlayMaker(std::move(*empty));
}

Result<Fd> OverlayMaker::of_directory(const Fd& directory) const {
  struct statvfs status {};
  if (fstatvfs(directory.get(), &status) < 0) return errno_failure("fstatvfs");
  // A bind mount would keep what the source's mount forbids.
  const std::uint64_t kept = (status.f_flag & ST_NOEXEC) != 0 ? MOUNT_ATTR_NOEXEC : 0;
  const std::array<MountOption, 2> options = {
      {{"lowerdir", by_descriptor(directory) + ":" + by_descriptor(empty_)}, {"xino", "off"}}};
  return new_mount("overlay", options, kept | MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
}

Result<Fd> OverlayMaker::of_file(const Fd& directory, const std::string& name, const Fd& file) const {
  const auto whole = of_directory(directory);
  if (!whole) return tl::unexpected(whole.error());
  // A part of a mount can be cloned only where the mount is attached (open_tree(2)).
  if (auto done = attach_here(*whole); !done) return tl::unexpected(done.error());
  const auto clone = [&]() -> Result<Fd> {
    const auto top = open_at(AT_FDCWD, kAttachPoint, O_PATH | O_DIRECTORY);
    if (!top) return tl::unexpected(top.error());
    const auto found = open_at(top->get(), name, O_PATH, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
    if (!found) return tl::unexpected(found.error());
    struct stat wanted {
    }, seen{};
    if (fstat(file.get(), &wanted) < 0 || fstat(found->get(), &seen) < 0) return errno_failure("fstat", name);
    // Without xino an overlay gives a file the inode number that it has below, on a device of its own.
    if (wanted.st_ino != seen.st_ino) return failure("the file was replaced, or is a mount of its own:", name);
    return clone_mount(found->get(), false);
  };
  auto tree = clone();
  if (umount2(kAttachPoint, MNT_DETACH) < 0) return errno_failure("umount2", kAttachPoint);
  return tree;
}

}  // namespace kai::sandbox
