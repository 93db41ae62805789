#include "sandbox/mounts.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <utility>

#include "base/unix.h"
#include "sandbox/new_mount.h"

// glibc's <sys/mount.h> clashes with <linux/mount.h> in 2.36; these two are all that is needed of it.
extern "C" int umount2(const char* target, int flags) noexcept;
#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif

namespace kai::sandbox {
namespace {

constexpr std::uint64_t kNoPrivilege = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
constexpr std::uint64_t kReadOnly = kNoPrivilege | MOUNT_ATTR_RDONLY;
constexpr std::uint64_t kRootBytes = 1 << 20;  // directories, links and the synthetic /etc files; read-only once built
constexpr std::uint64_t kRootInodes = 1024;
constexpr std::uint64_t kShmBytes = 64 << 20;  // POSIX semaphores and shared memory; charged to the agent's cgroup
// The root is attached here before the pivot: a directory that every host has, covered only in this namespace.
constexpr const char* kStagingPoint = "/proc";

struct Tmpfs {
  std::uint64_t bytes = 0;
  std::uint64_t inodes = 0;
  unsigned mode = 0755;
  std::uint64_t attributes = 0;
};

Result<Fd> make_tmpfs(const Tmpfs& wanted) {
  std::array<char, 8> mode{};
  std::snprintf(mode.data(), mode.size(), "%o", wanted.mode);
  const std::array<MountOption, 3> options = {
      {{"size", std::to_string(wanted.bytes)}, {"nr_inodes", std::to_string(wanted.inodes)}, {"mode", mode.data()}}};
  return new_mount("tmpfs", options, wanted.attributes);
}

Result<> attach(int mount, int dir, const std::string& target) {
  if (syscall(SYS_move_mount, mount, "", dir, target.c_str(), MOVE_MOUNT_F_EMPTY_PATH) < 0) {
    return errno_failure("move_mount", "/" + target);
  }
  return {};
}

/// The fresh root while it is built; every name is relative to it.
class Root {
 public:
  static Result<Root> create() {
    auto mount = make_tmpfs({kRootBytes, kRootInodes, 0755, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV});
    if (!mount) return tl::unexpected(mount.error());
    if (auto done = attach(mount->get(), AT_FDCWD, kStagingPoint); !done) return tl::unexpected(done.error());
    return Root(std::move(*mount));
  }

  /// Makes every directory above `path`, and gives `path` without its leading slash.
  Result<std::string> with_parents(const std::string& path) {
    for (std::size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) {
      if (auto done = directory(path.substr(1, at - 1)); !done) return tl::unexpected(done.error());
    }
    return path.substr(1);
  }

  Result<> directory(const std::string& name) {
    if (mkdirat(fd_.get(), name.c_str(), 0755) < 0 && errno != EEXIST) return errno_failure("mkdir", "/" + name);
    return {};
  }

  Result<> file(const std::string& name, const std::string& content, mode_t mode) {
    // RESOLVE_IN_ROOT: names come from the spec, and an earlier entry may have put a link there.
    auto fd = open_at(fd_.get(), name, O_WRONLY | O_CREAT | O_EXCL, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS, mode);
    if (!fd) return tl::unexpected(fd.error());
    return write_all(fd->get(), content);
  }

  Result<> link(const std::string& name, const std::string& text) {
    if (symlinkat(text.c_str(), fd_.get(), name.c_str()) < 0) return errno_failure("symlink", "/" + name);
    return {};
  }

  /// Attaches a detached mount at a new directory or empty file.
  Result<> mount(const PreparedMount& prepared) {
    auto name = with_parents(prepared.target);
    if (!name) return tl::unexpected(name.error());
    auto place = prepared.directory ? directory(*name) : mount_point_file(*name);
    if (!place) return place;
    return attach(prepared.mount.get(), fd_.get(), *name);
  }

  Result<> tmpfs(const std::string& target, const Tmpfs& wanted) {
    auto made = make_tmpfs(wanted);
    if (!made) return tl::unexpected(made.error());
    return mount({.mount = std::move(*made), .directory = true, .skipped = false, .target = target});
  }

  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  explicit Root(Fd fd) : fd_(std::move(fd)) {}

  Result<> mount_point_file(const std::string& name) {
    const Fd fd(openat(fd_.get(), name.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0444));
    if (!fd && errno != EEXIST) return errno_failure("create", "/" + name);
    return {};
  }

  Fd fd_;
};

Result<> fill_dev(Root& root, std::vector<PreparedMount>& devices) {
  if (auto done = root.directory("dev"); !done) return done;
  for (const auto& device : devices) {
    if (auto done = root.mount(device); !done) return done;
  }
  constexpr std::array<std::pair<const char*, const char*>, 4> kLinks = {{{"dev/fd", "/proc/self/fd"},
                                                                          {"dev/stdin", "/proc/self/fd/0"},
                                                                          {"dev/stdout", "/proc/self/fd/1"},
                                                                          {"dev/stderr", "/proc/self/fd/2"}}};
  for (const auto& [name, text] : kLinks) {
    if (auto done = root.link(name, text); !done) return done;
  }
  return root.tmpfs("/dev/shm", {kShmBytes, 1024, 01777, kNoPrivilege | MOUNT_ATTR_NOEXEC});
}

// subset=pid leaves only the processes: host-wide numbers, hardware, kernel configuration and /proc/sys are not there.
// hidepid=ptraceable hides agent-host, which is not dumpable, from the agent.
Result<> mount_proc(Root& root, bool whole = false) {
  static const std::array<MountOption, 2> kOptions = {{{"subset", "pid"}, {"hidepid", "ptraceable"}}};
  const std::span<const MountOption> options = whole ? std::span<const MountOption>() : kOptions;  // unsandboxed: whole
  auto mount = new_mount("proc", options, kNoPrivilege | MOUNT_ATTR_NOEXEC);
  if (!mount && mount.error().error_number == EPERM) {
    return tl::unexpected(Error{"mount proc: EPERM means that the host's /proc is partly covered", EPERM, ""});
  }
  if (!mount) return tl::unexpected(mount.error());
  return root.mount({.mount = std::move(*mount), .directory = true, .skipped = false, .target = "/proc"});
}

Result<> place(Root& root, const spec::Mount& mount, const PreparedMount& prepared) {
  if (prepared.skipped) return {};
  switch (mount.kind()) {
    case spec::Mount::TMPFS: {
      std::uint64_t attributes = kNoPrivilege | MOUNT_ATTR_NOEXEC;
      if (mount.read_only()) attributes |= MOUNT_ATTR_RDONLY;
      return root.tmpfs(mount.target(),
                        {mount.size_bytes(), mount.inodes(), mount.mode() != 0 ? mount.mode() : 0755, attributes});
    }
    case spec::Mount::SYMLINK: {
      auto name = root.with_parents(mount.target());
      return name ? root.link(*name, mount.source()) : tl::unexpected(name.error());
    }
    case spec::Mount::CONTENT: {
      auto name = root.with_parents(mount.target());
      if (!name) return tl::unexpected(name.error());
      return root.file(*name, mount.content(), mount.mode() != 0 ? mount.mode() : 0444);
    }
    default:
      return root.mount(prepared);
  }
}

// The old root is stacked on the new one by pivot_root(".", ".") and then detached (pivot_root(2), NOTES).
Result<> pivot(const Root& root) {
  if (fchdir(root.fd()) < 0) return errno_failure("fchdir", "new root");
  if (syscall(SYS_pivot_root, ".", ".") < 0) return errno_failure("pivot_root");
  if (umount2(".", MNT_DETACH) < 0) return errno_failure("umount2", "old root");
  if (chdir("/") < 0) return errno_failure("chdir", "/");
  return {};
}

}  // namespace

Result<> build_root(const spec::SandboxSpec& spec, std::vector<PreparedMount>& mounts,
                    std::vector<PreparedMount>& devices) {
  auto root = Root::create();
  if (!root) return tl::unexpected(root.error());
  if (auto done = mount_proc(*root); !done) return done;
  if (auto done = fill_dev(*root, devices); !done) return done;
  for (int at = 0; at < spec.mounts_size(); ++at) {
    if (auto done = place(*root, spec.mounts(at), mounts[static_cast<std::size_t>(at)]); !done) return done;
  }
  if (auto done = restrict_mount(root->fd(), kReadOnly | MOUNT_ATTR_NOEXEC, false); !done) return done;
  if (auto done = pivot(*root); !done) return done;
  mounts.clear();
  devices.clear();
  return {};
}

Result<> build_host_root(const spec::SandboxSpec& spec, std::vector<PreparedMount>& mounts,
                         std::vector<PreparedMount>& entries) {
  auto root = Root::create();
  if (!root) return tl::unexpected(root.error());
  if (auto done = mount_proc(*root, true); !done) return done;
  for (const auto& entry : entries) {
    auto done = entry.link.empty() ? root->mount(entry) : root->link(entry.target.substr(1), entry.link);
    if (!done) return done;
  }
  for (int at = 0; at < spec.mounts_size(); ++at) {
    const auto kind = spec.mounts(at).kind();
    const bool program =
        kind == spec::Mount::PACKAGE || kind == spec::Mount::PROGRAM || kind == spec::Mount::DESCRIPTOR;
    if (!program) continue;  // the host has its own
    if (auto done = root->mount(mounts[static_cast<std::size_t>(at)]); !done) return done;
  }
  if (auto done = restrict_mount(root->fd(), kReadOnly | MOUNT_ATTR_NOEXEC, false); !done) return done;
  if (auto done = pivot(*root); !done) return done;
  mounts.clear();
  entries.clear();
  return {};
}

}  // namespace kai::sandbox
