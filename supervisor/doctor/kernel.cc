// System calls are asked for, not looked up by version: distributions add and take away.
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <climits>

#include "supervisor/doctor/check.h"
#include "supervisor/doctor/probe.h"

namespace kai::doctor {
namespace {

struct SystemCall {
  const char* name;
  const char* since;
  long number;
  std::array<long, 5> arguments;  // chosen so that the call fails at once and does nothing
};

constexpr std::array<SystemCall, 9> kNeeded = {{
    {"pidfd_send_signal", "5.1", SYS_pidfd_send_signal, {-1, 0, 0, 0, 0}},
    {"open_tree", "5.2", SYS_open_tree, {-1, 0, 0, 0, 0}},
    {"move_mount", "5.2", SYS_move_mount, {-1, 0, -1, 0, 0}},
    {"clone3", "5.3", SYS_clone3, {0, 0, 0, 0, 0}},
    {"pidfd_open", "5.3", SYS_pidfd_open, {-1, 0, 0, 0, 0}},
    {"openat2", "5.6", SYS_openat2, {-1, 0, 0, 0, 0}},
    {"close_range", "5.9", SYS_close_range, {UINT_MAX, 0, 0, 0, 0}},
    {"mount_setattr", "5.12", SYS_mount_setattr, {-1, 0, 0, 0, 0}},
    {"seccomp", "3.17", SYS_seccomp, {-1, 0, 0, 0, 0}},
}};

void check_system_calls(Checks& checks) {
  utsname machine{};
  uname(&machine);
  std::string absent;
  for (const SystemCall& call : kNeeded) {
    const auto& a = call.arguments;
    // A container's filter may answer ENOSYS too; either way the call is not to be had.
    if (syscall(call.number, a[0], a[1], a[2], a[3], a[4]) < 0 && errno == ENOSYS) {
      absent += std::string(absent.empty() ? "" : ", ") + call.name + " (Linux " + call.since + ")";
    }
  }
  Check check{"kernel", Status::kOk, std::string("Linux ") + machine.release + ", all system calls that kAI needs", ""};
  if (!absent.empty()) {
    check.status = Status::kMissing;
    check.detail = std::string("Linux ") + machine.release + " lacks " + absent;
    check.remedy = "use Linux 5.14 or newer; in a container, let its seccomp profile pass these calls";
  }
  checks.push_back(std::move(check));
}

/// Installs a filter that allows everything, with a listener if `flags` says so.
Answer install_filter(unsigned flags) {
  sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  sock_fprog program{1, &allow};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return failed("prctl no_new_privs");
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program) < 0) return failed("seccomp");
  return {};
}

void check_seccomp(Checks& checks) {
  const Answer filter = ask_child([] { return install_filter(0); });
  checks.push_back(filter.ok() ? Check{"seccomp filter", Status::kOk, "installed and allowed in a probe", ""}
                               : Check{"seccomp filter", Status::kMissing, filter.text(),
                                       "use a kernel with CONFIG_SECCOMP_FILTER; in a container, allow seccomp(2)"});
  const Answer listener = ask_child([] { return install_filter(SECCOMP_FILTER_FLAG_NEW_LISTENER); });
  checks.push_back(
      listener.ok() ? Check{"seccomp notify", Status::kOk, "user notification is there", ""}
                    : Check{"seccomp notify", Status::kMissing, listener.text(),
                            "use Linux 5.0 or newer, and run kaid where no filter with a listener is in force already; "
                            "or let the operator's policies say degrade: [seccompNotify], and denials are not seen"});
}

}  // namespace

void check_kernel(Checks& checks) {
  check_system_calls(checks);
  check_seccomp(checks);
}

}  // namespace kai::doctor
