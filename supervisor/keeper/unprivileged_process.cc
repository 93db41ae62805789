#include "supervisor/keeper/unprivileged_process.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstdio>
#include <utility>

#include "base/unix.h"
#include "sandbox/confine.h"
#include "sandbox/mounts.h"

namespace kai::keeper {
namespace {

using spec::Mount;

Result<> enter_view(const UnprivilegedProgram& program) {
  if (unshare(CLONE_NEWNS) < 0) return errno_failure("unshare", "mount namespace");
  if (mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) < 0) return errno_failure("mount", "/ as slave");
  auto mounts = sandbox::prepare_mounts(program.view, {}, {});
  if (!mounts) return tl::unexpected(mounts.error());
  auto devices = sandbox::prepare_devices();
  if (!devices) return tl::unexpected(devices.error());
  return sandbox::build_root(program.view, *mounts, *devices);
}

Result<> give_up_privilege(const UnprivilegedProgram& program) {
  if (setgroups(0, nullptr) < 0) return errno_failure("setgroups");
  if (setresgid(program.gid, program.gid, program.gid) < 0) return errno_failure("setresgid");
  // Kept across the change of ids only so that the bounding set can be emptied after it.
  if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) < 0) return errno_failure("prctl", "PR_SET_SECUREBITS");
  if (setresuid(program.uid, program.uid, program.uid) < 0) return errno_failure("setresuid");
  // What was kept is permitted, not effective (capabilities(7)).
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> sets{};
  if (syscall(SYS_capget, &header, sets.data()) < 0) return errno_failure("capget");
  for (__user_cap_data_struct& set : sets) set.effective = set.permitted;
  if (syscall(SYS_capset, &header, sets.data()) < 0) return errno_failure("capset");
  return sandbox::drop_capabilities();
}

/// Returns only where it fails.
Result<> become(const UnprivilegedProgram& program, bool root, const Fd& channel, pid_t keeper) {
  // Its own session: no terminal that it could type into (TIOCSTI), and no key of the operator's.
  if (auto done = sandbox::leave_session(); !done) return done;
  const Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null || dup2(null.get(), STDIN_FILENO) < 0) return errno_failure("dup2", "/dev/null");
  if (root) {
    if (auto done = enter_view(program); !done) return done;
    if (auto done = give_up_privilege(program); !done) return done;
  }
  if (auto done = sandbox::set_no_new_privs(); !done) return done;
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) return errno_failure("prctl", "PR_SET_PDEATHSIG");
  if (getppid() != keeper) return failure("the keeper ended");
  const int high = fcntl(channel.get(), F_DUPFD_CLOEXEC, 16);
  if (high < 0 || dup2(high, kChannelFd) < 0) return errno_failure("dup2");
  if (syscall(SYS_close_range, kChannelFd + 1, UINT_MAX, 0) < 0) return errno_failure("close_range");
  sigset_t none;
  sigemptyset(&none);
  if (sigprocmask(SIG_SETMASK, &none, nullptr) < 0) return errno_failure("sigprocmask");
  const std::string path = program.directory + "/" + program.name;
  std::array<char*, 2> arguments = {const_cast<char*>(program.name.c_str()), nullptr};
  std::array<char*, 1> nothing = {nullptr};
  execve(path.c_str(), arguments.data(), program.only_told ? nothing.data() : environ);
  return errno_failure("exec", path);
}

}  // namespace

void add_to_view(spec::SandboxSpec& view, Mount::Kind kind, const std::string& path) {
  for (const auto& mount : view.mounts()) {
    if (mount.target() == path) return;
    // A program directory below /usr is there already, and /usr is read-only.
    if (mount.kind() == Mount::SYSTEM && kind == Mount::SYSTEM && path.starts_with(mount.target() + "/")) return;
  }
  auto* mount = view.add_mounts();
  mount->set_kind(kind);
  mount->set_source(path);
  mount->set_target(path);
}

spec::SandboxSpec programs_view(const std::string& directory) {
  spec::SandboxSpec view;
  add_to_view(view, Mount::SYSTEM, "/usr");
  for (const char* name : {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}) {
    std::array<char, PATH_MAX> text{};
    if (readlink(name, text.data(), text.size() - 1) > 0) {
      auto* link = view.add_mounts();
      link->set_kind(Mount::SYMLINK);
      link->set_source(text.data());
      link->set_target(name);
    } else if (access(name, F_OK) == 0) {
      add_to_view(view, Mount::SYSTEM, name);
    }
  }
  add_to_view(view, Mount::SYSTEM, directory);
  return view;
}

void refuse_descriptors(const Fd& socket) {
  constexpr int kPassRights = 83;  // SO_PASSRIGHTS, which Debian 12's headers do not have
  const int no = 0;
  (void)setsockopt(socket.get(), SOL_SOCKET, kPassRights, &no, sizeof no);
}

Result<UnprivilegedProcess> start_unprivileged(const UnprivilegedProgram& program, bool root) {
  auto channel = socket_pair(SOCK_SEQPACKET);
  if (!channel) return tl::unexpected(channel.error());
  if (program.only_told) {
    refuse_descriptors(channel->first);
    if (shutdown(channel->first.get(), SHUT_RD) < 0) return errno_failure("shutdown");
  }
  const pid_t keeper = getpid();
  const pid_t pid = fork();
  if (pid < 0) return errno_failure("fork");
  if (pid == 0) {
    const auto failed = become(program, root, channel->second, keeper);
    std::fprintf(stderr, "kaid: cannot start %s: %s\n", program.name.c_str(), failed.error().message().c_str());
    _exit(127);
  }
  auto pidfd = open_pidfd(pid);
  if (!pidfd) return tl::unexpected(pidfd.error());
  return UnprivilegedProcess{pid, std::move(*pidfd), std::move(channel->first)};
}

}  // namespace kai::keeper
