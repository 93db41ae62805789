#include "supervisor/keeper/disks.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <utility>

#include "base/unix.h"
#include "supervisor/keeper/disk_image.h"
#include "supervisor/keeper/loop_device.h"

namespace kai::keeper {
namespace {

constexpr std::uint64_t kLeastHostBytes = 16 << 20;
constexpr const char* kImages = "disks";
constexpr const char* kDirectories = "data";

std::string find_why_not(bool root) {
  if (!root) return "an ordinary user cannot mount file systems";
  if (access("/usr/sbin/mke2fs", X_OK) < 0) return "/usr/sbin/mke2fs is missing; install the package e2fsprogs";
  if (access("/dev/loop-control", R_OK | W_OK) < 0) {
    return "/dev/loop-control is missing: the kernel has no loop devices here; modprobe loop";
  }
  // Asks the kernel to load the module where it is one.
  const Fd ext4(fsopen("ext4", FSOPEN_CLOEXEC));
  if (!ext4) return "the kernel has no ext4; modprobe ext4";
  return "";
}

std::string image_name(const std::string& agent_id) {
  return agent_id + ".img";
}

std::string megabytes(std::uint64_t bytes) {
  return std::to_string(bytes >> 20) + " MB";
}

/// The images are sparse: on a full host disk every agent's writes would fail as if its disk was broken.
Result<> check_host_space(const Fd& disks, const std::string& state_dir) {
  struct statvfs status {};
  if (fstatvfs(disks.get(), &status) < 0) return errno_failure("fstatvfs", state_dir);
  if (status.f_bavail * status.f_frsize >= kLeastHostBytes) return {};
  return failure("the host's disk is full: " + state_dir + " has less than " + megabytes(kLeastHostBytes) +
                 " left for private data; make room, or give kaid another --state-dir");
}

}  // namespace

Disks::Disks(std::string state_dir, bool root) : state_dir_(std::move(state_dir)), why_not_(find_why_not(root)) {}

/// STATE/`name`, of the keeper alone: looked at each time, as what stands in it is mounted by root.
Result<Fd> Disks::directory(const char* name) const {
  const std::string path = state_dir_ + "/" + name;
  if (mkdir(path.c_str(), 0700) < 0 && errno != EEXIST) return errno_failure("mkdir", path);
  auto opened = open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (!opened) return opened;
  struct stat status {};
  if (fstat(opened->get(), &status) < 0) return errno_failure("fstat", path);
  if (status.st_uid != geteuid() || (status.st_mode & 077) != 0) {
    return failure(path + " is not closed to others than kaid; chown it to uid " + std::to_string(geteuid()) +
                   " and chmod 700 it, if its contents are what kaid put there");
  }
  return opened;
}

Result<PrivateData> Disks::open(const std::string& agent_id, const spec::Disk& limit) {
  return exact() ? open_image(agent_id, limit) : open_directory(agent_id);
}

Result<PrivateData> Disks::open_directory(const std::string& agent_id) const {
  auto parent = directory(kDirectories);
  if (!parent) return tl::unexpected(parent.error());
  if (mkdirat(parent->get(), agent_id.c_str(), 0700) < 0 && errno != EEXIST) return errno_failure("mkdir", agent_id);
  PrivateData data{.kind = starter::DIRECTORY, .fd = Fd(), .readable = Fd()};
  data.readable.reset(openat(parent->get(), agent_id.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!data.readable) return errno_failure("open", agent_id);
  data.fd.reset(openat(data.readable.get(), ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!data.fd) return errno_failure("open", agent_id);
  return data;
}

Result<Disks::Mounted> Disks::mount_image(const Fd& disks, const std::string& name) {
  const Fd image(openat(disks.get(), name.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
  if (!image) return errno_failure("open", name);
  auto device = attach_loop_device(image.get());
  if (!device) return tl::unexpected(device.error());
  auto mount = mount_ext4(device->path);
  if (!mount) return tl::unexpected(mount.error());
  return Mounted{std::move(*mount), std::move(device->path)};
}

Result<PrivateData> Disks::open_image(const std::string& agent_id, const spec::Disk& limit) {
  const auto disks = directory(kImages);
  if (!disks) return tl::unexpected(disks.error());
  if (auto done = check_host_space(*disks, state_dir_); !done) return tl::unexpected(done.error());
  if (auto done = fit(*disks, agent_id, limit); !done) return tl::unexpected(done.error());
  auto kept = kept_.find(agent_id);
  struct statvfs status {};
  // After an error of the host's disk ext4 is read-only; let go and mounted again, its journal puts it right.
  if (kept != kept_.end() && (fstatvfs(kept->second.mount.get(), &status) < 0 || (status.f_flag & ST_RDONLY) != 0)) {
    kept_.erase(kept);
    kept = kept_.end();
  }
  if (kept == kept_.end()) {
    auto mount = mount_image(*disks, image_name(agent_id));
    if (!mount) return tl::unexpected(mount.error());
    if (auto done = take_spare_inodes(mount->mount.get(), limit.inodes()); !done) return tl::unexpected(done.error());
    kept = kept_.emplace(agent_id, std::move(*mount)).first;
  }
  auto mount = mount_ext4(kept->second.device);
  if (!mount) return tl::unexpected(mount.error());
  return PrivateData{.kind = starter::MOUNT, .fd = std::move(*mount), .readable = Fd()};
}

Result<> Disks::keep_attached(const std::string& agent_id) {
  const auto disks = directory(kImages);
  if (!disks) return tl::unexpected(disks.error());
  const Fd image(openat(disks->get(), image_name(agent_id).c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!image) return errno_failure("open", image_name(agent_id));
  auto device = find_loop_device(image.get());
  if (!device) return tl::unexpected(device.error());
  if (!*device) return {};  // its agent has ended meanwhile
  auto mount = mount_ext4((*device)->path);
  if (!mount) return tl::unexpected(mount.error());
  keep(agent_id, {std::move(*mount), std::move((*device)->path)});
  return {};
}

/// Makes the image, or makes it as large as the policy says now.
Result<> Disks::fit(const Fd& disks, const std::string& agent_id, const spec::Disk& limit) {
  const std::string name = image_name(agent_id);
  const auto wanted = static_cast<off_t>(image_bytes(limit));
  struct stat status {};
  if (fstatat(disks.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) < 0) {
    if (errno != ENOENT) return errno_failure("stat", name);
    return make_image(disks.get(), name, limit);
  }
  if (!S_ISREG(status.st_mode) || status.st_uid != 0) {
    return failure(state_dir_ + "/disks/" + name + " is not a disk image of kaid's; move it away");
  }
  const Fd image(openat(disks.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!image) return errno_failure("open", name);
  const auto inodes = image_inodes(image.get());
  if (!inodes) return tl::unexpected(inodes.error());
  if (*inodes != limit.inodes()) {
    return failure("its private data was made for " + std::to_string(*inodes) + " files, the policy now says " +
                   std::to_string(limit.inodes()) +
                   ": that cannot be changed; set limits.inodes back, or purge the agent, which removes its data");
  }
  if (status.st_size == wanted) return {};
  if (status.st_size > wanted) {
    return failure("its private data is larger than the policy's limits.disk, " + megabytes(limit.size_bytes()) +
                   ", and cannot be made smaller: set the limit back, or purge the agent, which removes its data");
  }
  // What an earlier kaid could not end in order is put right by a mount, before its size is changed.
  if (auto mount = mount_image(disks, name); !mount) return tl::unexpected(mount.error());
  kept_.erase(agent_id);
  const auto still = find_loop_device(image.get());
  if (!still) return tl::unexpected(still.error());
  if (*still && !Fd(::open((*still)->path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC))) {
    return failure("its private data is still in use and cannot grow to the policy's " + megabytes(limit.size_bytes()) +
                   " yet: stop the agent, and start it again");
  }
  return grow_image(disks.get(), name, image_bytes(limit));
}

std::optional<Disks::Space> Disks::space(const std::string& agent_id) const {
  const auto kept = kept_.find(agent_id);
  struct statfs status {};
  if (kept == kept_.end() || fstatfs(kept->second.mount.get(), &status) < 0) return std::nullopt;
  const auto block = static_cast<std::uint64_t>(status.f_bsize);
  return Space{status.f_blocks * block, status.f_bavail * block, status.f_files, status.f_ffree};
}

Result<> Disks::drop(const std::string& agent_id) {
  kept_.erase(agent_id);
  if (const auto disks = directory(kImages); !disks) {
    return tl::unexpected(disks.error());
  } else if (unlinkat(disks->get(), image_name(agent_id).c_str(), 0) < 0 && errno != ENOENT) {
    return errno_failure("unlink", image_name(agent_id));
  }
  // Both: the machine could have changed what it can do since.
  const auto parent = directory(kDirectories);
  if (!parent) return tl::unexpected(parent.error());
  return remove_tree(parent->get(), agent_id.c_str());
}

}  // namespace kai::keeper
