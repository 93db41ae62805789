// Namespaces as an agent gets them: always inside a user namespace of its own, made by this very user.
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "base/fd.h"
#include "base/unix.h"
#include "supervisor/doctor/check.h"
#include "supervisor/doctor/probe.h"

namespace kai::doctor {
namespace {

struct Namespace {
  const char* name;
  int flag;
  const char* sysctl;  // how many a user may have; 0 there switches them off
};

constexpr std::array<Namespace, 7> kNamespaces = {{
    {"user", 0, "max_user_namespaces"},
    {"mnt", CLONE_NEWNS, "max_mnt_namespaces"},
    {"pid", CLONE_NEWPID, "max_pid_namespaces"},
    {"net", CLONE_NEWNET, "max_net_namespaces"},
    {"ipc", CLONE_NEWIPC, "max_ipc_namespaces"},
    {"uts", CLONE_NEWUTS, "max_uts_namespaces"},
    {"cgroup", CLONE_NEWCGROUP, "max_cgroup_namespaces"},
}};

// The ids that an agent's namespace gets, as root: any range will do to see that one can be written.
constexpr const char* kRootMap = "0 1879048192 65536\n";

std::string remedy_for(const Namespace& wanted) {
  const std::string sysctl = std::string("user.") + wanted.sysctl;
  if (number_in(std::string("/proc/sys/user/") + wanted.sysctl) == 0) return "sysctl -w " + sysctl + "=10000";
  if (geteuid() != 0 && number_in("/proc/sys/kernel/unprivileged_userns_clone") == 0) {
    return "sysctl -w kernel.unprivileged_userns_clone=1, or run kaid as root";
  }
  if (geteuid() != 0 && number_in("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == 1) {
    return "cp PREFIX/share/kai/apparmor/kai /etc/apparmor.d/ && apparmor_parser -r /etc/apparmor.d/kai (PREFIX: where "
           "kAI "
           "is installed), or run kaid as root";
  }
  return "run kaid on the host, not in a chroot; in a container, let its seccomp profile pass clone3 and unshare";
}

void check_each(Checks& checks) {
  for (const Namespace& wanted : kNamespaces) {
    const Answer answer = ask_child([&] {
      if (unshare(CLONE_NEWUSER | wanted.flag) < 0) return failed("unshare");
      return Answer();
    });
    Check check{std::string("namespace ") + wanted.name, Status::kOk, "made in a probe", ""};
    if (!answer.ok()) check = {check.name, Status::kMissing, answer.text(), remedy_for(wanted)};
    checks.push_back(std::move(check));
  }
}

/// Writes the id maps of `child`, which waits in a new user namespace.
Answer write_maps(pid_t child) {
  const std::string process = "/proc/" + std::to_string(child);
  const bool root = geteuid() == 0;
  const std::string uids = root ? kRootMap : "0 " + std::to_string(geteuid()) + " 1\n";
  const std::string gids = root ? kRootMap : "0 " + std::to_string(getegid()) + " 1\n";
  // An ordinary user gives up setgroups first (user_namespaces(7)).
  if (!root && !write_file(process + "/setgroups", "deny")) return failed("write setgroups");
  if (!write_file(process + "/uid_map", uids)) return failed("write uid_map");
  if (!write_file(process + "/gid_map", gids)) return failed("write gid_map");
  return {};
}

/// A proc of the process's own pid namespace, in mounts of its own.
Answer mount_proc() {
  if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0) return failed("make mounts private");
  if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) < 0) return failed("mount proc");
  return {};
}

struct Handshake {
  std::pair<Fd, Fd> ready;  // the namespaces are made
  std::pair<Fd, Fd> go;     // the id maps are written
};

/// In the child: makes the namespaces, waits for its maps, and mounts proc as the first process in there.
Answer enter(Handshake& handshake) {
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID) < 0) return failed("unshare");
  handshake.go.second.reset();
  char byte = 0;
  if (write(handshake.ready.second.get(), &byte, 1) != 1) return failed("write");
  if (read(handshake.go.first.get(), &byte, 1) != 1) return {ECHILD, "wait for the id maps"};
  return ask_child(mount_proc);
}

/// In its parent: writes the maps when it is there.
Answer let_in(Handshake& handshake, pid_t child) {
  handshake.ready.second.reset();
  char byte = 0;
  if (read(handshake.ready.first.get(), &byte, 1) != 1) return {};  // it failed before, and says so itself
  Answer written = write_maps(child);
  if (written.ok() && write(handshake.go.second.get(), &byte, 1) != 1) return failed("write");
  return written;
}

Answer map_and_mount() {
  // As root a proc that nothing covers is mounted first, as the keeper does: else none may be mounted within.
  if (geteuid() == 0 && unshare(CLONE_NEWNS) == 0) static_cast<void>(mount_proc());
  auto ready = make_pipe();
  auto go = make_pipe();
  if (!ready || !go) return failed("pipe2");
  Handshake handshake{std::move(*ready), std::move(*go)};
  return ask_child([&] { return enter(handshake); }, [&](pid_t child) { return let_in(handshake, child); });
}

void check_maps_and_proc(Checks& checks) {
  const Answer answer = ask_child(map_and_mount);
  const bool maps = answer.ok() || answer.step == "make mounts private" || answer.step == "mount proc";
  const bool root = geteuid() == 0;
  checks.push_back(maps
                       ? Check{"id maps", Status::kOk, root ? "a range of 65536 ids for each agent" : "own id only", ""}
                       : Check{"id maps", Status::kMissing, answer.text(),
                               "run kaid on the host; in a container, give it ids from 1879048192 on (uid_map)"});
  checks.push_back(answer.ok()
                       ? Check{"private proc", Status::kOk, "mounted in a new user and pid namespace", ""}
                       : Check{"private proc", Status::kMissing, answer.text(),
                               "a container that covers parts of /proc forbids this: run kaid on the host, or give the "
                               "container an uncovered /proc (docker: --security-opt systempaths=unconfined)"});
}

/// setgroups(2) is denied in the user namespace of an ordinary user (user_namespaces(7)).
void check_groups(Checks& checks) {
  checks.push_back(geteuid() == 0
                       ? Check{"groups", Status::kOk, "agents have none of kaid's groups", ""}
                       : Check{"groups", Status::kDegraded,
                               "an ordinary user cannot drop its supplementary groups: agents keep them, for "
                               "the host files that they are shown",
                               "run kaid as root, or as a user without supplementary groups"});
}

}  // namespace

void check_namespaces(Checks& checks) {
  check_each(checks);
  check_maps_and_proc(checks);
  check_groups(checks);
}

}  // namespace kai::doctor
