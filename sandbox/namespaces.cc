#include "sandbox/namespaces.h"

#include <grp.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>

#include "base/unix.h"
#include "sandbox/setup.h"

namespace kai::sandbox {
namespace {

std::string map_line(std::uint32_t inside, std::uint32_t outside, std::uint32_t count) {
  return std::to_string(inside) + " " + std::to_string(outside) + " " + std::to_string(count);
}

// An ordinary user may map its own id only, and only after giving up setgroups(2) (user_namespaces(7)).
Result<> map_own_id(const std::string& process, std::uint32_t uid, std::uint32_t gid, std::uint32_t inside_uid,
                    std::uint32_t inside_gid) {
  if (auto done = write_file(process + "/uid_map", map_line(inside_uid, uid, 1)); !done) return done;
  if (auto done = write_file(process + "/setgroups", "deny"); !done) return done;
  return write_file(process + "/gid_map", map_line(inside_gid, gid, 1));
}

Result<> bring_up_loopback() {
  const Fd socket_fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket_fd) return errno_failure("socket", "AF_INET");
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (ioctl(socket_fd.get(), SIOCSIFFLAGS, &request) < 0) return errno_failure("ioctl SIOCSIFFLAGS", "lo");
  return {};
}

}  // namespace

Result<> enter_starter_namespaces(bool root, bool host_network) {
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  if (unshare(CLONE_NEWNS | (host_network ? 0 : CLONE_NEWNET) | (root ? 0 : CLONE_NEWUSER)) < 0) {
    return errno_failure("unshare", root ? "mount and network namespace"
                                         : "user namespace (kaictl doctor says whether this host allows it)");
  }
  if (!root) {
    if (auto done = map_own_id("/proc/self", uid, gid, uid, gid); !done) return done;
  }
  // Slave: what the host mounts later is seen, nothing goes back.
  if (mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) < 0) return errno_failure("mount", "/ as slave");
  // proc can be mounted in a user namespace only where one proc mount is fully visible. Root makes sure of it; an
  // ordinary user cannot, and has the host's.
  if (root && mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) < 0) {
    return errno_failure("mount", "/proc");
  }
  return host_network ? Result<>{} : bring_up_loopback();
}

Result<> write_id_maps(pid_t pid, const IdRange& range) {
  const std::string process = "/proc/" + std::to_string(pid);
  if (range.count == 0) return map_own_id(process, geteuid(), getegid(), kAgentUid, kAgentGid);
  const std::string line = map_line(0, range.base, range.count);
  if (auto done = write_file(process + "/uid_map", line); !done) return done;
  return write_file(process + "/gid_map", line);
}

Result<> become_agent(bool drop_groups) {
  if (drop_groups && setgroups(0, nullptr) < 0) return errno_failure("setgroups");
  if (setresgid(kAgentGid, kAgentGid, kAgentGid) < 0) return errno_failure("setresgid");
  if (setresuid(kAgentUid, kAgentUid, kAgentUid) < 0) return errno_failure("setresuid");
  return {};
}

Result<> own_next_namespace(uid_t uid) {
  // Keeps the capabilities, which a change from 0 to another id would take (capabilities(7)); the new namespace begins
  // without these bits.
  if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) < 0) return errno_failure("prctl", "PR_SET_SECUREBITS");
  constexpr auto kUnchanged = static_cast<uid_t>(-1);
  if (setresuid(kUnchanged, uid, kUnchanged) < 0) return errno_failure("setresuid", std::to_string(uid));
  // The change made /proc/PID of this process, and so of the child, root's alone.
  if (prctl(PR_SET_DUMPABLE, 1) < 0) return errno_failure("prctl", "PR_SET_DUMPABLE");
  return {};
}

Result<> bound_counts() {
  struct Bound {
    const char* name;
    const char* value;
  };
  // These files are of the user namespace of whoever opens them (proc(5), /proc/sys/user).
  constexpr std::array<Bound, 3> kBounds = {
      {{"max_inotify_instances", "16"}, {"max_inotify_watches", "4096"}, {"max_user_namespaces", "0"}}};
  for (const Bound& bound : kBounds) {
    if (auto done = write_file(std::string("/proc/sys/user/") + bound.name, bound.value); !done) return done;
  }
  return {};
}

Result<pid_t> clone_agent(int cgroup) {
  clone_args args{};
  args.flags = CLONE_PARENT | kAgentNamespaces;
  if (cgroup >= 0) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<unsigned>(cgroup);
  }
  const long pid = syscall(SYS_clone3, &args, sizeof args);
  if (pid < 0) return errno_failure("clone3");
  return static_cast<pid_t>(pid);
}

Result<NamespaceIds> namespace_ids() {
  NamespaceIds ids;
  for (std::size_t at = 0; at < std::size(NamespaceIds::kNames); ++at) {
    const std::string path = std::string("/proc/self/ns/") + NamespaceIds::kNames[at];
    struct stat status {};
    if (stat(path.c_str(), &status) < 0) return errno_failure("stat", path);
    ids.inode[at] = status.st_ino;
  }
  return ids;
}

}  // namespace kai::sandbox
