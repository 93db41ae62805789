#include "supervisor/keeper/directories.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstdlib>

#include "base/unix.h"

namespace kai::keeper {
namespace {

Result<> make_parents(const std::string& path) {
  for (std::size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) {
    const std::string parent = path.substr(0, at);
    if (mkdir(parent.c_str(), 0755) < 0 && errno != EEXIST) return errno_failure("mkdir", parent);
  }
  return {};
}

/// Makes `path` if it is missing; it must be a directory of `owner` (or of root) that nobody else may write to.
Result<> own_directory(const std::string& path, mode_t mode, uid_t owner, gid_t group) {
  const bool made = mkdir(path.c_str(), mode) == 0;
  if (!made && errno != EEXIST) return errno_failure("mkdir", path);
  const auto fd = open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (!fd) return tl::unexpected(fd.error());
  struct stat status {};
  if (fstat(fd->get(), &status) < 0) return errno_failure("fstat", path);
  if (status.st_uid != owner && status.st_uid != geteuid()) {
    return failure(path + " belongs to uid " + std::to_string(status.st_uid) +
                   "; give kaid a directory of its own (--state-dir, --runtime-dir)");
  }
  if (!made && status.st_uid != owner && std::count(path.begin(), path.end(), '/') < 2) {
    // It would be given to control's user, with all that is in it.
    return failure(path + " is a directory of the system; give kaid one of its own below it");
  }
  if (!made && (status.st_mode & S_IWOTH) != 0) {
    return failure(path + " is writable for everybody; chmod o-w it, or give kaid a directory of its own");
  }
  if (made && fchmod(fd->get(), mode) < 0) return errno_failure("chmod", path);
  if (geteuid() == 0 && (status.st_uid != owner || status.st_gid != group) && fchown(fd->get(), owner, group) < 0) {
    return errno_failure("chown", path);
  }
  return {};
}

Result<std::string> absolute(const std::string& path) {
  std::array<char, PATH_MAX> resolved{};
  if (realpath(path.c_str(), resolved.data()) == nullptr) return errno_failure("realpath", path);
  return std::string(resolved.data());
}

// The directory itself is locked: no file is left behind in it.
Result<Fd> lock_runtime(const std::string& runtime_dir) {
  auto lock = open_at(AT_FDCWD, runtime_dir, O_RDONLY | O_DIRECTORY);
  if (!lock) return lock;
  if (flock(lock->get(), LOCK_EX | LOCK_NB) < 0) {
    if (errno != EWOULDBLOCK) return errno_failure("flock", runtime_dir);
    return failure("another kaid serves its socket in " + runtime_dir + "; give this one another --runtime-dir");
  }
  return lock;
}

Result<Fd> lock_state(const std::string& state_dir) {
  const std::string path = state_dir + "/lock";
  Fd lock(open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!lock) return errno_failure("open", path);
  if (flock(lock.get(), LOCK_EX | LOCK_NB) < 0) {
    if (errno != EWOULDBLOCK) return errno_failure("flock", path);
    auto holder = read_all(lock.get(), 64);
    const std::string pid = holder ? holder->substr(0, holder->find('\n')) : "";
    return failure("another kaid" + (pid.empty() ? "" : " (pid " + pid + ")") + " uses the state directory " +
                   state_dir + "; stop that one, or give this one another --state-dir");
  }
  if (ftruncate(lock.get(), 0) < 0) return errno_failure("ftruncate", path);
  if (auto done = write_all(lock.get(), std::to_string(getpid()) + "\n"); !done) return tl::unexpected(done.error());
  return lock;
}

uid_t uid_of(const char* name, uid_t otherwise) {
  const passwd* const user = getpwnam(name);
  return user != nullptr ? user->pw_uid : otherwise;
}

gid_t gid_of(const char* name, gid_t otherwise) {
  const group* const found = getgrnam(name);
  return found != nullptr ? found->gr_gid : otherwise;
}

}  // namespace

Identity find_identity() {
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  if (uid != 0) {
    return {.root = false, .control_uid = uid, .control_gid = gid, .egress_uid = uid, .egress_gid = gid};
  }
  return {.root = true,
          .control_uid = uid_of("kai", kFallbackId),
          .control_gid = gid_of("kai", kFallbackId),
          .egress_uid = uid_of("kai-egress", kEgressFallbackId),
          .egress_gid = gid_of("kai-egress", kEgressFallbackId)};
}

Result<Locks> prepare_directories(Config& config, const Identity& identity, std::optional<Locks> held) {
  if (auto done = make_parents(config.state_dir); !done) return tl::unexpected(done.error());
  if (auto done = own_directory(config.state_dir, 0711, geteuid(), getegid()); !done)
    return tl::unexpected(done.error());
  auto state = absolute(config.state_dir);
  if (!state) return tl::unexpected(state.error());
  config.state_dir = *state;
  auto lock = held ? Result<Fd>(std::move(held->state)) : lock_state(config.state_dir);
  if (!lock) return tl::unexpected(lock.error());
  for (const char* part : {"audit", "backups", "db", "log", "memory", "packages", "quarantine"}) {
    const std::string path = config.state_dir + "/" + part;
    if (auto done = own_directory(path, 0700, identity.control_uid, identity.control_gid); !done) {
      return tl::unexpected(done.error());
    }
  }
  if (auto done = make_parents(config.runtime_dir); !done) return tl::unexpected(done.error());
  // An ordinary user's is closed to others; root's is not, as group kai has to reach the socket in it.
  const mode_t mode = identity.root ? 0755 : 0700;
  if (auto done = own_directory(config.runtime_dir, mode, identity.control_uid, identity.control_gid); !done) {
    return tl::unexpected(done.error());
  }
  auto runtime = absolute(config.runtime_dir);
  if (!runtime) return tl::unexpected(runtime.error());
  config.runtime_dir = *runtime;
  auto runtime_lock = held ? Result<Fd>(std::move(held->runtime)) : lock_runtime(config.runtime_dir);
  if (!runtime_lock) return tl::unexpected(runtime_lock.error());
  return Locks{std::move(*lock), std::move(*runtime_lock)};
}

}  // namespace kai::keeper
