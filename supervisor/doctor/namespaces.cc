// Namespaces as an agent gets them: always inside a user namespace of its own, made by this very user.
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>

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
    return "give kaid an AppArmor profile with `userns,`, or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, "
           "or run kaid as root";
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

/// A private mount tree with a proc of the namespace's own: what `kind` of process 1 does.
Answer mount_proc() {
  if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0) return failed("make mounts private");
  if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) < 0) return failed("mount proc");
  return {};
}

/// Makes the namespaces, has the parent write the maps, and mounts proc as the first process in them.
Answer in_new_namespaces(int ready_write, int go_read) {
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID) < 0) return failed("unshare");
  char byte = 0;
  if (write(ready_write, &byte, 1) != 1 || read(go_read, &byte, 1) != 1) return failed("wait for the id maps");
  if (byte != 'y') return {EPERM, "id maps"};
  return ask_child(mount_proc);
}

struct Maps {
  Answer maps;
  Answer proc;
};

Maps ask_maps_and_proc() {
  auto ready = make_pipe();
  auto go = make_pipe();
  if (!ready || !go) return {failed("pipe2"), failed("pipe2")};
  Maps result;
  // Two children: one enters, the other, its elder, writes the maps as the keeper would.
  result.proc = ask_child([&]() -> Answer {
    const pid_t parent = getpid();
    const Answer answer = ask_child([&] {
      ready->first.reset();
      go->second.reset();
      // As root a proc that nothing covers is mounted first, as the keeper does: else none may be mounted within.
      if (geteuid() == 0 && unshare(CLONE_NEWNS) == 0) static_cast<void>(mount_proc());
      const pid_t inner = fork();
      if (inner < 0) return failed("fork");
      if (inner == 0) {
        const Answer entered = in_new_namespaces(ready->second.get(), go->first.get());
        _exit(entered.error_number);
      }
      ready->second.reset();
      go->first.reset();
      return Answer();
    });
    static_cast<void>(parent);
    return answer;
  });
  return result;
}

}  // namespace
}  // namespace kai::doctor
