#include "supervisor/keeper/disk_image.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <utility>
#include <vector>

#include "base/unix.h"
#include "supervisor/keeper/child.h"

namespace kai::keeper {
namespace {

constexpr const char* kMke2fs = "/usr/sbin/mke2fs";
constexpr const char* kResize2fs = "/usr/sbin/resize2fs";
// On a good disk they take milliseconds; the keeper does nothing else meanwhile.
constexpr auto kToolPatience = std::chrono::seconds(30);

// ext4's own numbers, as mke2fs(8) is asked for them: 4 KiB blocks, 256 bytes an inode, 64 bytes a group descriptor.
constexpr std::uint64_t kBlock = 4096;
constexpr std::uint64_t kGroupBlocks = 8 * kBlock;
constexpr std::uint64_t kInodesPerBlock = kBlock / 256;
constexpr std::uint64_t kDescriptorBytes = 64;
constexpr std::uint64_t kReservedInodes = 11;  // the root directory, the journal, lost+found, …
constexpr std::uint64_t kJournalBlocks = (4 << 20) / kBlock;
constexpr std::uint64_t kLeastWithJournal = 2048;  // blocks; mke2fs leaves the journal out of anything smaller
constexpr std::uint64_t kMaxSpare = 4096;
// The volume label (16 bytes of the superblock, at 1024) holds the number of inodes that were asked for.
constexpr off_t kLabelOffset = 1024 + 0x78;
constexpr std::size_t kLabelBytes = 16;

std::uint64_t divide_up(std::uint64_t value, std::uint64_t by) {
  return (value + by - 1) / by;
}

/// sparse_super: groups 0, 1 and the powers of 3, 5 and 7 hold a copy of the superblock and the group descriptors.
std::uint64_t copies_of_superblock(std::uint64_t groups) {
  std::uint64_t count = std::min<std::uint64_t>(groups, 2);
  for (const std::uint64_t base : {3U, 5U, 7U}) {
    for (std::uint64_t group = base; group < groups; group *= base) ++count;
  }
  return count;
}

std::uint64_t image_blocks(const spec::Disk& limit, std::uint64_t journal) {
  const std::uint64_t files = divide_up(limit.size_bytes(), kBlock);
  std::uint64_t blocks = files;
  // What the groups need can be worth one more group, hardly two.
  for (int round = 0; round < 4; ++round) {
    const std::uint64_t groups = divide_up(blocks, kGroupBlocks);
    const std::uint64_t inode_blocks = divide_up(divide_up(limit.inodes() + kReservedInodes, groups), kInodesPerBlock);
    const std::uint64_t descriptors = divide_up(groups * kDescriptorBytes, kBlock);
    blocks = files + journal + groups * (inode_blocks + 2) + copies_of_superblock(groups) * (1 + descriptors);
  }
  return blocks;
}

Result<> make_as(int directory, const std::string& name, const spec::Disk& limit) {
  const Fd image(openat(directory, name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!image) return errno_failure("open", name);
  if (ftruncate(image.get(), static_cast<off_t>(image_bytes(limit))) < 0) return errno_failure("ftruncate", name);
  const std::string inodes = std::to_string(limit.inodes() + kReservedInodes);
  const std::string label = std::to_string(limit.inodes());
  // No resize_inode: its reserved blocks would count as the agent's, and growing works without.
  auto done = run_tool(kMke2fs,
                       {"mke2fs",
                        "-q",
                        "-F",
                        "-t",
                        "ext4",
                        "-b",
                        "4096",
                        "-O",
                        "^resize_inode",
                        "-N",
                        inodes.c_str(),
                        "-m",
                        "0",
                        "-J",
                        "size=4",
                        "-L",
                        label.c_str(),
                        "-E",
                        "lazy_itable_init=1,root_owner=0:0,nodiscard",
                        name.c_str()},
                       directory, kToolPatience);
  if (!done) return done;
  // A full host disk is told here and not to the agent, as far as can be.
  if (fsync(image.get()) < 0) return errno_failure("fsync", name);
  return {};
}

/// What the kernel says of a mount that fails, beside errno.
std::string mount_message(int context) {
  std::array<char, 256> text{};
  const ssize_t length = read(context, text.data(), text.size() - 1);
  return length > 0 ? " (" + std::string(text.data(), static_cast<std::size_t>(length)) + ")" : "";
}

}  // namespace

std::uint64_t image_bytes(const spec::Disk& limit) {
  const std::uint64_t without = image_blocks(limit, 0);
  const std::uint64_t with = image_blocks(limit, kJournalBlocks);
  return (with < kLeastWithJournal ? without : with) * kBlock;
}

Result<> make_image(int directory, const std::string& name, const spec::Disk& limit) {
  const std::string unfinished = name + ".new";
  if (unlinkat(directory, unfinished.c_str(), 0) < 0 && errno != ENOENT) return errno_failure("unlink", unfinished);
  if (auto done = make_as(directory, unfinished, limit); !done) {
    (void)unlinkat(directory, unfinished.c_str(), 0);
    return done;
  }
  if (renameat(directory, unfinished.c_str(), directory, name.c_str()) < 0) return errno_failure("rename", name);
  if (fsync(directory) < 0) return errno_failure("fsync", "disks");
  return {};
}

Result<std::uint64_t> image_inodes(int image) {
  std::array<char, kLabelBytes + 1> label{};
  if (pread(image, label.data(), kLabelBytes, kLabelOffset) != static_cast<ssize_t>(kLabelBytes)) {
    return errno_failure("pread", "disk image");
  }
  std::uint64_t inodes = 0;
  for (const char* digit = label.data(); *digit >= '0' && *digit <= '9'; ++digit) {
    inodes = inodes * 10 + static_cast<std::uint64_t>(*digit - '0');
  }
  if (inodes == 0) return failure("the file is not a disk image of kaid's");
  return inodes;
}

Result<> grow_image(int directory, const std::string& name, std::uint64_t bytes) {
  {
    const Fd image(openat(directory, name.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
    if (!image) return errno_failure("open", name);
    if (ftruncate(image.get(), static_cast<off_t>(bytes)) < 0) return errno_failure("ftruncate", name);
  }
  return run_tool(kResize2fs, {"resize2fs", "-f", name.c_str()}, directory, kToolPatience);
}

Result<Fd> mount_ext4(const std::string& device) {
  const Fd context(fsopen("ext4", FSOPEN_CLOEXEC));
  if (!context) return errno_failure("fsopen", "ext4");
  const auto set = [&](const char* key, const char* value) {
    return fsconfig(context.get(), FSCONFIG_SET_STRING, key, value, 0) == 0;
  };
  // noinit_itable: the rest of a sparse file is zero already, and writing that down would make it less sparse.
  const bool set_up = set("source", device.c_str()) && set("errors", "remount-ro") &&
                      fsconfig(context.get(), FSCONFIG_SET_FLAG, "noinit_itable", nullptr, 0) == 0 &&
                      fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) == 0;
  if (!set_up) {
    const int error = errno;
    return tl::unexpected(Error{"mount ext4 from", error, device + mount_message(context.get())});
  }
  Fd mount(fsmount(context.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
  if (!mount) return errno_failure("fsmount", device);
  return mount;
}

Result<> take_spare_inodes(int mount, std::uint64_t inodes) {
  struct statfs status {};
  if (fstatfs(mount, &status) < 0) return errno_failure("fstatfs", "private data");
  const std::uint64_t wanted = inodes + kReservedInodes;
  const std::uint64_t spare = std::min<std::uint64_t>(status.f_files > wanted ? status.f_files - wanted : 0, kMaxSpare);
  // No private directory has such a name (check.cc). They are made in order: with the last, all are there.
  const auto name_of = [](std::uint64_t number) { return "~" + std::to_string(number); };
  if (spare == 0 || faccessat(mount, name_of(spare - 1).c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0) return {};
  for (std::uint64_t at = 0; at < spare; ++at) {
    const std::string name = name_of(at);
    const Fd file(openat(mount, name.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0));
    if (file) continue;
    if (errno == ENOSPC) return {};  // full
    return errno_failure("open", name);
  }
  return {};
}

}  // namespace kai::keeper
