#include "sandbox/confine.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>
#include <string>
#include <vector>

#include "base/unix.h"
#include "proto/starter.pb.h"
#include "sandbox/setup.h"

namespace kai::sandbox {
namespace {

constexpr std::string_view kSeccompNotify = "seccompNotify";

/// The listener where `flags` ask for one; else an empty descriptor.
Result<Fd> install_filter(std::string_view program, unsigned flags) {
  if (program.empty() || program.size() % sizeof(sock_filter) != 0 ||
      program.size() / sizeof(sock_filter) > BPF_MAXINSNS) {
    return failure("seccomp program of an impossible size:", std::to_string(program.size()));
  }
  std::vector<sock_filter> instructions(program.size() / sizeof(sock_filter));
  std::memcpy(instructions.data(), program.data(), program.size());
  const sock_fprog filter{static_cast<unsigned short>(instructions.size()), instructions.data()};
  const long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter);
  if (result < 0) return errno_failure("seccomp");
  return flags == 0 ? Fd() : Fd(static_cast<int>(result));
}

}  // namespace

bool may_miss(const spec::SandboxSpec& spec, std::string_view layer) {
  return std::find(spec.degrade().begin(), spec.degrade().end(), layer) != spec.degrade().end();
}

Result<> leave_session() {
  if (setsid() < 0) return errno_failure("setsid");
  // ENOSYS: a kernel without key retention has no keyring to inherit either.
  if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr) < 0 && errno != ENOSYS) {
    return errno_failure("keyctl", "KEYCTL_JOIN_SESSION_KEYRING");
  }
  return {};
}

Result<> enter_cgroups(std::span<const Fd> v1_tasks) {
  for (const Fd& tasks : v1_tasks) {
    if (write(tasks.get(), "0", 1) != 1) return errno_failure("write 0", "tasks");
  }
  if (unshare(CLONE_NEWCGROUP) < 0) return errno_failure("unshare", "cgroup namespace");
  return {};
}

Result<> set_host_name(const std::string& name) {
  if (sethostname(name.data(), name.size()) < 0) return errno_failure("sethostname", name);
  return {};
}

Result<> set_rlimits(const spec::SandboxSpec& spec) {
  for (const auto& limit : spec.rlimits()) {
    const rlimit value{limit.soft(), limit.hard()};
    if (setrlimit(static_cast<__rlimit_resource>(limit.resource()), &value) < 0) {
      return errno_failure("setrlimit", std::to_string(limit.resource()));
    }
  }
  return {};
}

Result<> drop_capabilities() {
  constexpr unsigned long kLocked = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                    SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                                    SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
  if (prctl(PR_SET_SECUREBITS, kLocked) < 0) return errno_failure("prctl", "PR_SET_SECUREBITS");
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) return errno_failure("prctl", "PR_CAP_AMBIENT");
  // Until EINVAL: the kernel may know capabilities that these headers do not (capabilities(7)).
  for (unsigned long capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; ++capability) {
    if (prctl(PR_CAPBSET_DROP, capability) < 0) return errno_failure("prctl", "PR_CAPBSET_DROP");
  }
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const std::array<__user_cap_data_struct, 2> none{};
  if (syscall(SYS_capset, &header, none.data()) < 0) return errno_failure("capset");
  return {};
}

Result<> set_no_new_privs() {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return errno_failure("prctl", "PR_SET_NO_NEW_PRIVS");
  return {};
}

Result<> load_seccomp(const spec::SandboxSpec& spec, const Fd& report, std::vector<std::string>& degraded) {
  auto listener =
      install_filter(spec.seccomp(), SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
  // EINVAL: Linux before 5.19 does not know WAIT_KILLABLE_RECV, without which a signal makes a refused call start anew.
  if (!listener && listener.error().error_number == EINVAL) {
    listener = install_filter(spec.seccomp(), SECCOMP_FILTER_FLAG_NEW_LISTENER);
  }
  if (!listener) {
    // EBUSY: whoever started kaid has a listener already, and the kernel lets a process have one. EINVAL: Linux < 5.0.
    const int why = listener.error().error_number;
    const bool none = why == EBUSY || why == EINVAL;
    if (!none || !may_miss(spec, kSeccompNotify)) return tl::unexpected(listener.error());
    const auto silent = install_filter(spec.seccomp_silent(), 0);
    if (!silent) return tl::unexpected(silent.error());
    degraded.emplace_back(kSeccompNotify);
    return {};
  }
  starter::Report message;
  message.set_listener(true);
  const int fd = listener->get();
  return send_packet(report.get(), message.SerializeAsString(), {&fd, 1});
}

Result<> settle_descriptors(Fd& input, Fd& output, Fd& error, Fd& klp, Fd& report) {
  std::array<Fd*, 5> wanted = {&input, &output, &error, &klp, &report};
  // First all of them above the places that they will take, so that no dup3 closes one that is still needed.
  constexpr int kAbove = 16;
  std::array<int, 5> high{};
  for (std::size_t at = 0; at < wanted.size(); ++at) {
    high[at] = fcntl(wanted[at]->get(), F_DUPFD_CLOEXEC, kAbove);
    if (high[at] < 0) return errno_failure("fcntl F_DUPFD_CLOEXEC");
    (void)wanted[at]->release();  // closed below, with everything else
  }
  for (std::size_t at = 0; at < wanted.size(); ++at) {
    const int place = static_cast<int>(at);
    if (dup3(high[at], place, place > STDERR_FILENO ? O_CLOEXEC : 0) < 0) return errno_failure("dup3");
  }
  if (syscall(SYS_close_range, kReportFd + 1, UINT_MAX, 0) < 0) return errno_failure("close_range");
  klp.reset(kKlpFd);
  report.reset(kReportFd);
  return {};
}

}  // namespace kai::sandbox
