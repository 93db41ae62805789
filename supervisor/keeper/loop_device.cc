#include "supervisor/keeper/loop_device.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/major.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <memory>
#include <string_view>
#include <utility>

#include "base/unix.h"

namespace kai::keeper {
namespace {

constexpr int kAttempts = 64;  // others of this machine look for free devices too
constexpr std::uint32_t kBlockSize = 4096;

Result<LoopDevice> open_loop_device(const std::string& name) {
  LoopDevice device{Fd(), "/dev/" + name};
  device.fd.reset(open(device.path.c_str(), O_RDWR | O_CLOEXEC));
  if (!device.fd) return errno_failure("open", device.path);
  struct stat status {};
  if (fstat(device.fd.get(), &status) < 0) return errno_failure("fstat", device.path);
  if (!S_ISBLK(status.st_mode) || major(status.st_rdev) != LOOP_MAJOR) {
    return failure("not a loop device:", device.path);
  }
  return device;
}

}  // namespace

Result<std::optional<LoopDevice>> find_loop_device(int image) {
  struct stat wanted {};
  if (fstat(image, &wanted) < 0) return errno_failure("fstat", "disk image");
  const std::unique_ptr<DIR, int (*)(DIR*)> blocks(opendir("/sys/block"), closedir);
  if (!blocks) return errno_failure("opendir", "/sys/block");
  while (const dirent* entry = readdir(blocks.get())) {
    const std::string name = entry->d_name;
    // Attached ones have the directory `loop`.
    if (!name.starts_with("loop") || access(("/sys/block/" + name + "/loop").c_str(), F_OK) < 0) continue;
    auto device = open_loop_device(name);
    if (!device) continue;  // detached in between, and its node gone
    loop_info64 info{};
    if (ioctl(device->fd.get(), LOOP_GET_STATUS64, &info) < 0) continue;
    if (info.lo_inode == wanted.st_ino && info.lo_device == wanted.st_dev) return std::optional(std::move(*device));
  }
  return std::optional<LoopDevice>();
}

Result<LoopDevice> attach_loop_device(int image) {
  auto found = find_loop_device(image);
  if (!found) return tl::unexpected(found.error());
  if (*found) return std::move(**found);
  const Fd control(open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (!control) return errno_failure("open", "/dev/loop-control");
  loop_config config{};
  config.fd = static_cast<std::uint32_t>(image);
  config.block_size = kBlockSize;
  config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const int number = ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return errno_failure("LOOP_CTL_GET_FREE");
    auto device = open_loop_device("loop" + std::to_string(number));
    if (!device) return tl::unexpected(device.error());
    if (ioctl(device->fd.get(), LOOP_CONFIGURE, &config) == 0) return device;
    if (errno != EBUSY) return errno_failure("LOOP_CONFIGURE", device->path);
  }
  return failure("every free loop device was taken by somebody else first");
}

}  // namespace kai::keeper
