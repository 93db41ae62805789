#include "sandbox/idmap.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "base/unix.h"

namespace kai::sandbox {
namespace {

/// A process that only stands there to carry a user namespace, until it is ended and waited for.
class Holder {
 public:
  static Result<Holder> create() {
    clone_args args{};
    args.flags = CLONE_NEWUSER;
    args.exit_signal = SIGCHLD;
    const long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) return errno_failure("clone3", "user namespace of an idmapped mount");
    if (pid == 0) {
      for (;;) pause();
    }
    return Holder(static_cast<pid_t>(pid));
  }
  Holder(Holder&& other) noexcept : pid_(std::exchange(other.pid_, 0)) {}
  Holder& operator=(Holder&&) = delete;
  ~Holder() {
    if (pid_ == 0) return;
    (void)kill(pid_, SIGKILL);  // an own child, not yet waited for: the number is still its
    (void)waitpid(pid_, nullptr, 0);
  }

  [[nodiscard]] std::string file(const char* name) const { return "/proc/" + std::to_string(pid_) + "/" + name; }

 private:
  explicit Holder(pid_t pid) : pid_(pid) {}
  pid_t pid_;
};

std::string line(id_t inside, id_t outside) {
  return std::to_string(inside) + " " + std::to_string(outside) + " 1";
}

}  // namespace

Result<> map_owner(const Fd& mount, Owner on_disk, Owner seen) {
  const auto holder = Holder::create();
  if (!holder) return tl::unexpected(holder.error());
  if (auto done = write_file(holder->file("uid_map"), line(on_disk.uid, seen.uid)); !done) return done;
  if (auto done = write_file(holder->file("gid_map"), line(on_disk.gid, seen.gid)); !done) return done;
  const std::string path = holder->file("ns/user");
  const Fd space(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!space) return errno_failure("open", path);
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_IDMAP;
  attributes.userns_fd = static_cast<unsigned>(space.get());
  if (syscall(SYS_mount_setattr, mount.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) < 0) {
    return errno_failure("mount_setattr MOUNT_ATTR_IDMAP (EINVAL: the file system cannot map owners)");
  }
  return {};
}

}  // namespace kai::sandbox
