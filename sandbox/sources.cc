#include "sandbox/sources.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstdint>
#include <memory>
#include <utility>

#include "base/unix.h"

namespace kai::sandbox {
namespace {

constexpr std::uint64_t kNoPrivilege = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
constexpr std::uint64_t kReadOnly = kNoPrivilege | MOUNT_ATTR_RDONLY;
constexpr std::array kDeviceNames = {"null", "zero", "full", "random", "urandom"};

constexpr std::uint64_t data_attributes(bool read_only) {
  return (read_only ? kReadOnly : kNoPrivilege) | MOUNT_ATTR_NOEXEC;
}

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

/// As prepare_opened, read-only, but the agent does not see where on the host it lies. `directory` has it as `name`.
Result<PreparedMount> prepare_hidden(const Fd& directory, const std::string& name, const Fd& opened,
                                     const Sources& sources, const std::string& target) {
  if (sources.overlays == nullptr) return prepare_opened(opened, name, target);
  struct stat status {};
  if (fstat(opened.get(), &status) < 0) return errno_failure("fstat", name);
  const bool is_directory = S_ISDIR(status.st_mode);
  if (!is_directory && !S_ISREG(status.st_mode)) return failure("neither a regular file nor a directory:", name);
  auto mount =
      is_directory ? sources.overlays->of_directory(opened) : sources.overlays->of_file(directory, name, opened);
  // What cannot be a layer is shown as it is; only its place on the host is then seen: a file that is a mount of its
  // own, a file system that overlays do not take, an ordinary user's directory with a mount of the host's beneath.
  if (!mount) return prepare_opened(opened, name, target);
  if (auto done = restrict_mount(mount->get(), kReadOnly, false); !done) return tl::unexpected(done.error());
  return PreparedMount{.mount = std::move(*mount), .directory = is_directory, .target = target};
}

Result<PreparedMount> prepare_below(const std::string& directory, const std::string& name, const Sources& sources,
                                    const std::string& target) {
  const auto dir = open_at(AT_FDCWD, directory, O_PATH | O_DIRECTORY);
  if (!dir) return tl::unexpected(dir.error());
  const auto opened = open_at(dir->get(), name, O_PATH, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
  if (!opened) return tl::unexpected(opened.error());
  return prepare_hidden(*dir, name, *opened, sources, target);
}

/// What `opened` stands for, writable. As root its owner on the host is the agent inside, so that what the agent writes
/// belongs to whoever the directory belongs to.
Result<PreparedMount> prepare_writable(const Fd& opened, const std::string& source, const Sources& sources,
                                       const std::string& target) {
  if (!sources.map_owners) return prepare_opened(opened, source, target, data_attributes(false));
  struct stat status {};
  if (fstat(opened.get(), &status) < 0) return errno_failure("fstat", source);
  const bool directory = S_ISDIR(status.st_mode);
  if (!directory && !S_ISREG(status.st_mode)) return failure("neither a regular file nor a directory:", source);
  if (status.st_uid == 0) {
    return failure(
        "an agent may not write as root on the host: give the path to another user with chown, or let it be read-only:",
        source);
  }
  auto tree = clone_mount(opened.get(), false);  // without what is mounted beneath, which has owners of its own
  if (!tree) return tl::unexpected(Error{tree.error().what, tree.error().error_number, source});
  if (auto done = map_owner(*tree, {status.st_uid, status.st_gid}, sources.agent); !done) {
    return tl::unexpected(Error{done.error().what, done.error().error_number, source});
  }
  if (auto done = restrict_mount(tree->get(), data_attributes(false), false); !done)
    return tl::unexpected(done.error());
  return PreparedMount{.mount = std::move(*tree), .directory = directory, .target = target};
}

// A file or directory that the operator's kaictl opened.
Result<PreparedMount> prepare_descriptor(const Fd& fd, const spec::Mount& mount, const Sources& sources) {
  const auto path = path_of(fd);
  if (!path) return tl::unexpected(path.error());
  const auto again = reopen_here(fd, O_PATH);
  if (!again) return tl::unexpected(again.error());
  if (!mount.read_only()) return prepare_writable(*again, *path, sources, mount.target());
  struct stat status {};
  if (fstat(again->get(), &status) < 0) return errno_failure("fstat", *path);
  // A directory may change on the host while it is mounted, which an overlay would not show.
  if (S_ISDIR(status.st_mode)) return prepare_opened(*again, *path, mount.target());
  const std::size_t slash = path->rfind('/');
  const auto directory =
      open_at(AT_FDCWD, path->substr(0, slash + 1), O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
  if (!directory) return tl::unexpected(directory.error());
  return prepare_hidden(*directory, path->substr(slash + 1), *again, sources, mount.target());
}

Result<PreparedMount> prepare_private(const spec::Mount& mount, const PrivateData& data) {
  const auto directory = data.directory(mount.source());
  if (!directory) return tl::unexpected(directory.error());
  auto tree = clone_mount(directory->get(), false);
  if (!tree) return tl::unexpected(Error{tree.error().what, tree.error().error_number, mount.source()});
  if (auto done = restrict_mount(tree->get(), data_attributes(mount.read_only()), false); !done)
    return tl::unexpected(done.error());
  return PreparedMount{.mount = std::move(*tree), .directory = true, .target = mount.target()};
}

// A path that the operator's policy maps.
Result<PreparedMount> prepare_host(const spec::Mount& mount, const Sources& sources) {
  const auto opened = open_at(AT_FDCWD, mount.source(), O_PATH, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
  if (!opened) {
    return tl::unexpected(
        Error{"the host path that the operator's policy maps (files) cannot be opened without following a link:",
              opened.error().error_number, mount.source()});
  }
  if (!mount.read_only()) return prepare_writable(*opened, mount.source(), sources, mount.target());
  return prepare_opened(*opened, mount.source(), mount.target(), data_attributes(true));
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
      return prepare_below(sources.packages_dir, mount.source(), sources, mount.target());
    case spec::Mount::PROGRAM: {
      constexpr std::string_view kSdk = "sdk/";
      const bool sdk = mount.source().starts_with(kSdk);
      return prepare_below(sdk ? sources.sdk_dir : sources.program_dir,
                           sdk ? mount.source().substr(kSdk.size()) : mount.source(), sources, mount.target());
    }
    case spec::Mount::DESCRIPTOR:
      if (mount.descriptor() >= descriptors.size()) return failure("a mount names a descriptor that did not come");
      return prepare_descriptor(descriptors[mount.descriptor()], mount, sources);
    case spec::Mount::PRIVATE:
      return prepare_private(mount, sources.private_data);
    case spec::Mount::HOST:
      return prepare_host(mount, sources);
    default:
      return PreparedMount{.directory = true, .skipped = false, .target = mount.target()};
  }
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

Result<std::vector<PreparedMount>> prepare_host_entries() {
  std::vector<PreparedMount> entries;
  const std::unique_ptr<DIR, int (*)(DIR*)> top(opendir("/"), closedir);
  if (!top) return errno_failure("opendir", "/");
  while (const dirent* entry = readdir(top.get())) {
    const std::string name = entry->d_name;
    if (name == "." || name == ".." || name == "proc") continue;  // it gets a proc of its own pid namespace
    PreparedMount prepared{.target = "/" + name};
    const Fd opened(openat(dirfd(top.get()), entry->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat status {};
    if (!opened || fstat(opened.get(), &status) < 0) return errno_failure("open", prepared.target);
    if (S_ISLNK(status.st_mode)) {
      std::array<char, PATH_MAX> text{};
      if (readlinkat(opened.get(), "", text.data(), text.size() - 1) < 0) return errno_failure("readlink", name);
      prepared.link = text.data();
    } else if (S_ISDIR(status.st_mode) || S_ISREG(status.st_mode)) {
      prepared.directory = S_ISDIR(status.st_mode);
      auto tree = clone_mount(opened.get(), prepared.directory);
      if (!tree) return tl::unexpected(Error{tree.error().what, tree.error().error_number, prepared.target});
      prepared.mount = std::move(*tree);
    } else {
      continue;
    }
    entries.push_back(std::move(prepared));
  }
  return entries;
}

}  // namespace kai::sandbox
