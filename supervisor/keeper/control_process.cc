#include "supervisor/keeper/control_process.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "base/unix.h"
#include "sandbox/confine.h"
#include "sandbox/mounts.h"

namespace kai::keeper {
namespace {

using spec::Mount;

void add(spec::SandboxSpec& view, Mount::Kind kind, const std::string& path) {
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

// What control sees of the host. Directories above state and runtime directory are made anew and open to it, whatever
// their modes on the host are.
spec::SandboxSpec control_view(const Config& config, const Programs& programs) {
  spec::SandboxSpec view;
  for (const char* path : {"/usr", "/etc", "/sys"}) add(view, Mount::SYSTEM, path);
  for (const char* name : {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}) {
    std::array<char, PATH_MAX> text{};
    if (readlink(name, text.data(), text.size() - 1) > 0) {
      auto* link = view.add_mounts();
      link->set_kind(Mount::SYMLINK);
      link->set_source(text.data());
      link->set_target(name);
    } else if (access(name, F_OK) == 0) {
      add(view, Mount::SYSTEM, name);
    }
  }
  add(view, Mount::SYSTEM, programs.directory);
  add(view, Mount::SYSTEM, programs.sdk);
  // Whether the kernel's clock is the one of before, as agents' memory expires by it (machine_time()). Its own /proc
  // has processes alone.
  auto* boot_id = view.add_mounts();
  boot_id->set_kind(Mount::SYSTEM);
  boot_id->set_source("/proc/sys/kernel/random/boot_id");
  boot_id->set_target("/boot_id");
  add(view, Mount::STATE, config.state_dir);
  add(view, Mount::STATE, config.runtime_dir);
  return view;
}

Result<> enter_view(const Config& config, const Programs& programs) {
  if (unshare(CLONE_NEWNS) < 0) return errno_failure("unshare", "mount namespace of control");
  if (mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) < 0) return errno_failure("mount", "/ as slave");
  const auto view = control_view(config, programs);
  auto mounts = sandbox::prepare_mounts(view, {}, {});
  if (!mounts) return tl::unexpected(mounts.error());
  auto devices = sandbox::prepare_devices();
  if (!devices) return tl::unexpected(devices.error());
  return sandbox::build_root(view, *mounts, *devices);
}

Result<> give_up_privilege(const Identity& identity) {
  if (setgroups(0, nullptr) < 0) return errno_failure("setgroups");
  if (setresgid(identity.control_gid, identity.control_gid, identity.control_gid) < 0)
    return errno_failure("setresgid");
  // Kept across the change of ids only so that the bounding set can be emptied after it.
  if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) < 0) return errno_failure("prctl", "PR_SET_SECUREBITS");
  if (setresuid(identity.control_uid, identity.control_uid, identity.control_uid) < 0)
    return errno_failure("setresuid");
  // What was kept is permitted, not effective (capabilities(7)).
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> sets{};
  if (syscall(SYS_capget, &header, sets.data()) < 0) return errno_failure("capget");
  for (__user_cap_data_struct& set : sets) set.effective = set.permitted;
  if (syscall(SYS_capset, &header, sets.data()) < 0) return errno_failure("capset");
  return sandbox::drop_capabilities();
}

Result<> become_control(const Config& config, const Identity& identity, const Programs& programs, const Fd& channel,
                        pid_t keeper) {
  // Its own session: no terminal that it could type into (TIOCSTI), and no key of the operator's.
  if (auto done = sandbox::leave_session(); !done) return done;
  const Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null || dup2(null.get(), STDIN_FILENO) < 0) return errno_failure("dup2", "/dev/null");
  if (identity.root) {
    if (auto done = enter_view(config, programs); !done) return done;
    if (auto done = give_up_privilege(identity); !done) return done;
  }
  if (auto done = sandbox::set_no_new_privs(); !done) return done;
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) return errno_failure("prctl", "PR_SET_PDEATHSIG");
  if (getppid() != keeper) return failure("the keeper ended");
  const int high = fcntl(channel.get(), F_DUPFD_CLOEXEC, 16);
  if (high < 0 || dup2(high, kControlChannelFd) < 0) return errno_failure("dup2");
  if (syscall(SYS_close_range, kControlChannelFd + 1, UINT_MAX, 0) < 0) return errno_failure("close_range");
  sigset_t none;
  sigemptyset(&none);
  if (sigprocmask(SIG_SETMASK, &none, nullptr) < 0) return errno_failure("sigprocmask");
  const std::string program = programs.directory + "/kai-control";
  execl(program.c_str(), "kai-control", static_cast<char*>(nullptr));
  return errno_failure("exec", program);
}

Result<std::string> directory_with(const std::string& path) {
  std::array<char, PATH_MAX> resolved{};
  if (realpath(path.c_str(), resolved.data()) == nullptr) return errno_failure("realpath", path);
  return std::string(resolved.data());
}

}  // namespace

Result<Programs> find_programs() {
  const auto own = program_directory();
  if (!own) return tl::unexpected(own.error());
  const bool beside = access((*own + "/kai-control").c_str(), X_OK) == 0;
  auto directory = directory_with(beside ? *own : *own + "/../lib/kai");
  if (!directory) return tl::unexpected(directory.error());
  auto sdk = directory_with(beside ? *own + "/../sdk" : *own + "/../share/kai/sdk");
  if (!sdk) return tl::unexpected(sdk.error());
  return Programs{*directory, *sdk};
}

Result<ControlProcess> start_control(const Config& config, const Identity& identity, const Programs& programs) {
  auto channel = socket_pair(SOCK_SEQPACKET);
  if (!channel) return tl::unexpected(channel.error());
  const pid_t keeper = getpid();
  const pid_t pid = fork();
  if (pid < 0) return errno_failure("fork");
  if (pid == 0) {
    const auto failed = become_control(config, identity, programs, channel->second, keeper);
    std::fprintf(stderr, "kaid: cannot start control: %s\n", failed.error().message().c_str());
    _exit(127);
  }
  auto pidfd = open_pidfd(pid);
  if (!pidfd) return tl::unexpected(pidfd.error());
  return ControlProcess{pid, std::move(*pidfd), std::move(channel->first)};
}

}  // namespace kai::keeper
