#include "sandbox/mounts.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "base/unix.h"

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
constexpr std::array kDeviceNames = {"null", "zero", "full", "random", "urandom"};
// The root is attached here before the pivot: a directory that every host has, covered only in this namespace.
constexpr const char* kStagingPoint = "/proc";

/// A mount of what `opened`, an O_PATH descriptor, stands for. `source` is for messages.
Result<PreparedMount> prepare_opened(const Fd& opened, const std::string& source, const std::string& target,
                                     std::uint64_t attributes = kReadOnly) {
  struct stat status {};
  if (fstat(opened.get(), &status) < 0) return errno_failure("fstat", source);
  const bool directory = S_ISDIR(status.st_mode);
  if (!directory && !S_ISREG(status.st_mode)) return failure("neither a regular file nor a directory:", source);
  auto tree = clone_mount(opened.get(), directory);
  if (!tree) return tl::unexpected(Error{tree.error().what, tree.error().error_number, source});
  if (auto done = restrict_mount(tree->get(), attributes, true); !done) return tl::unexpected(done.error());
  return PreparedMount{.mount = std::move(*tree), .directory = directory, .skipped = false, .target = target};
}

Result<PreparedMount> prepare_path(int dir, const std::string& source, std::uint64_t resolve, const std::string& target,
                                   std::uint64_t attributes = kReadOnly) {
  const auto opened = open_at(dir, source, O_PATH, resolve);
  if (!opened) return tl::unexpected(opened.error());
  return prepare_opened(*opened, source, target, attributes);
}

Result<PreparedMount> prepare_below(const std::string& directory, const std::string& name, const std::string& target) {
  const auto dir = open_at(AT_FDCWD, directory, O_PATH | O_DIRECTORY);
  if (!dir) return tl::unexpected(dir.error());
  return prepare_path(dir->get(), name, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS, target);
}

// A file that the operator's kaictl opened. Its mount may belong to another mount namespace, where open_tree(2) cannot
// copy it: so the same file is opened again here by its path, and taken only if it is the same inode.
Result<PreparedMount> prepare_descriptor(const Fd& fd, const std::string& target) {
  std::array<char, PATH_MAX> path{};
  const std::string link = "/proc/self/fd/" + std::to_string(fd.get());
  if (readlink(link.c_str(), path.data(), path.size() - 1) < 0) return errno_failure("readlink", link);
  struct stat given {};
  if (fstat(fd.get(), &given) < 0) return errno_failure("fstat", path.data());
  const auto again = open_at(AT_FDCWD, path.data(), O_PATH, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
  if (!again) return tl::unexpected(again.error());
  struct stat found {};
  if (fstat(again->get(), &found) < 0) return errno_failure("fstat", path.data());
  if (given.st_dev != found.st_dev || given.st_ino != found.st_ino) {
    return failure("the file was replaced, or is on a mount that kaid does not see:", path.data());
  }
  return prepare_opened(*again, path.data(), target);
}

Result<PreparedMount> prepare(const spec::Mount& mount, const Sources& sources, const std::vector<Fd>& descriptors,
                              SystemMounts& system) {
  switch (mount.kind()) {
    case spec::Mount::SYSTEM: {
      if (auto ready = system.take(mount.source())) {
        ready->target = mount.target();
        return std::move(*ready);
      }
      // The host's own system directories may be reached through symlinks (/etc/localtime); root made them.
      auto prepared = prepare_path(AT_FDCWD, mount.source(), RESOLVE_NO_MAGICLINKS, mount.target());
      if (!prepared && mount.optional() && prepared.error().error_number == ENOENT) {
        return PreparedMount{.skipped = true, .target = mount.target()};
      }
      return prepared;
    }
    case spec::Mount::STATE:
      return prepare_path(AT_FDCWD, mount.source(), RESOLVE_NO_MAGICLINKS, mount.target(),
                          kNoPrivilege | MOUNT_ATTR_NOEXEC);
    case spec::Mount::PACKAGE:
      return prepare_below(sources.packages_dir, mount.source(), mount.target());
    case spec::Mount::PROGRAM: {
      constexpr std::string_view kSdk = "sdk/";
      const bool sdk = mount.source().starts_with(kSdk);
      return prepare_below(sdk ? sources.sdk_dir : sources.program_dir,
                           sdk ? mount.source().substr(kSdk.size()) : mount.source(), mount.target());
    }
    case spec::Mount::DESCRIPTOR:
      if (mount.descriptor() >= descriptors.size()) return failure("a mount names a descriptor that did not come");
      return prepare_descriptor(descriptors[mount.descriptor()], mount.target());
    default:
      return PreparedMount{.directory = true, .skipped = false, .target = mount.target()};
  }
}

struct Tmpfs {
  std::uint64_t bytes = 0;
  std::uint64_t inodes = 0;
  unsigned mode = 0755;
  std::uint64_t attributes = 0;
};

Result<Fd> make_tmpfs(const Tmpfs& wanted) {
  const Fd context(static_cast<int>(syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC)));
  if (!context) return errno_failure("fsopen", "tmpfs");
  std::array<char, 8> mode{};
  std::snprintf(mode.data(), mode.size(), "%o", wanted.mode);
  const std::array<std::pair<const char*, std::string>, 3> options = {
      {{"size", std::to_string(wanted.bytes)}, {"nr_inodes", std::to_string(wanted.inodes)}, {"mode", mode.data()}}};
  for (const auto& [key, value] : options) {
    if (syscall(SYS_fsconfig, context.get(), FSCONFIG_SET_STRING, key, value.c_str(), 0) < 0) {
      return errno_failure("fsconfig", key);
    }
  }
  if (syscall(SYS_fsconfig, context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) < 0) {
    return errno_failure("fsconfig create", "tmpfs");
  }
  Fd mount(static_cast<int>(syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, wanted.attributes)));
  if (!mount) return errno_failure("fsmount", "tmpfs");
  return mount;
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
Result<> mount_proc(Root& root) {
  const Fd context(static_cast<int>(syscall(SYS_fsopen, "proc", FSOPEN_CLOEXEC)));
  if (!context) return errno_failure("fsopen", "proc");
  constexpr std::array<std::pair<const char*, const char*>, 2> kOptions = {
      {{"subset", "pid"}, {"hidepid", "ptraceable"}}};
  for (const auto& [key, value] : kOptions) {
    if (syscall(SYS_fsconfig, context.get(), FSCONFIG_SET_STRING, key, value, 0) < 0) {
      return errno_failure("fsconfig proc", key);
    }
  }
  if (syscall(SYS_fsconfig, context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) < 0) {
    return errno_failure("mount proc: EPERM means that the host's /proc is partly covered");
  }
  Fd mount(static_cast<int>(syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, kNoPrivilege | MOUNT_ATTR_NOEXEC)));
  if (!mount) return errno_failure("fsmount", "proc");
  return root.mount({.mount = std::move(mount), .directory = true, .skipped = false, .target = "/proc"});
}

Result<> place(Root& root, const spec::Mount& mount, const PreparedMount& prepared) {
  if (prepared.skipped) return {};
  switch (mount.kind()) {
    case spec::Mount::TMPFS:
    case spec::Mount::PRIVATE: {
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

SystemMounts SystemMounts::prepare() {
  // What policies/layout gives to every agent; another source is prepared when it is asked for.
  constexpr std::array kUsual = {"/usr", "/etc/ld.so.cache", "/etc/ssl/certs", "/etc/alternatives", "/etc/localtime"};
  SystemMounts mounts;
  for (const char* source : kUsual) {
    auto prepared = prepare_path(AT_FDCWD, source, RESOLVE_NO_MAGICLINKS, source);
    if (prepared) mounts.ready_.push_back(std::move(*prepared));
  }
  return mounts;
}

std::optional<PreparedMount> SystemMounts::take(const std::string& source) {
  for (PreparedMount& mount : ready_) {
    if (mount.mount.valid() && mount.target == source) return std::move(mount);
  }
  return std::nullopt;
}

Result<std::vector<PreparedMount>> prepare_mounts(const spec::SandboxSpec& spec, const Sources& sources,
                                                  const std::vector<Fd>& descriptors, SystemMounts system) {
  std::vector<PreparedMount> mounts;
  mounts.reserve(static_cast<std::size_t>(spec.mounts_size()));
  for (const auto& mount : spec.mounts()) {
    auto prepared = prepare(mount, sources, descriptors, system);
    if (!prepared) return tl::unexpected(prepared.error());
    mounts.push_back(std::move(*prepared));
  }
  return mounts;
}

Result<std::vector<PreparedMount>> prepare_devices() {
  std::vector<PreparedMount> devices;
  for (const char* name : kDeviceNames) {
    const std::string path = std::string("/dev/") + name;
    const auto node = open_at(AT_FDCWD, path, O_PATH, RESOLVE_NO_SYMLINKS);
    if (!node) return tl::unexpected(node.error());
    struct stat status {};
    if (fstat(node->get(), &status) < 0 || !S_ISCHR(status.st_mode)) return failure("not a character device:", path);
    auto tree = clone_mount(node->get(), false);
    if (!tree) return tl::unexpected(Error{tree.error().what, tree.error().error_number, path});
    // Read-only keeps its mode and owner from being changed; a device is written to all the same.
    const std::uint64_t attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY;
    if (auto done = restrict_mount(tree->get(), attributes, false); !done) return tl::unexpected(done.error());
    devices.push_back({.mount = std::move(*tree), .directory = false, .skipped = false, .target = path});
  }
  return devices;
}

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

}  // namespace kai::sandbox
