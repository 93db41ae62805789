#include "supervisor/egress/confine.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "base/fd.h"

namespace kai::egress {
namespace {

// Every access to files that Linux 5.13, the first with Landlock, knows; a later one adds what the filter refuses too.
constexpr std::uint64_t kEveryFileAccess = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1U) - 1;

/// A domain without a rule: no file at all.
Result<> leave_files() {
  const landlock_ruleset_attr attributes{.handled_access_fs = kEveryFileAccess};
  const Fd rules(static_cast<int>(syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0)));
  if (!rules) {
    // The filter alone then, which holds as well: this is the second lock.
    if (errno == ENOSYS || errno == EOPNOTSUPP) return {};
    return errno_failure("landlock_create_ruleset");
  }
  if (syscall(SYS_landlock_restrict_self, rules.get(), 0) < 0) return errno_failure("landlock_restrict_self");
  return {};
}

// Whatever their arguments are.
constexpr int kCalls[] = {
    // bytes
    SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(splice),
    SCMP_SYS(pipe2), SCMP_SYS(close), SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(lseek), SCMP_SYS(dup),

    // sockets that are there
    SCMP_SYS(bind), SCMP_SYS(connect), SCMP_SYS(accept4), SCMP_SYS(getsockname), SCMP_SYS(getpeername),
    SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(shutdown), SCMP_SYS(sendto), SCMP_SYS(sendmsg),
    SCMP_SYS(sendmmsg), SCMP_SYS(recvfrom), SCMP_SYS(recvmsg), SCMP_SYS(recvmmsg),
    // waiting
    SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(poll),
    SCMP_SYS(ppoll), SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep), SCMP_SYS(gettimeofday), SCMP_SYS(futex),
    SCMP_SYS(restart_syscall), SCMP_SYS(sched_yield),
    // memory
    SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(getrandom),
    // its own end
    SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction), SCMP_SYS(sigaltstack), SCMP_SYS(getpid),
    SCMP_SYS(gettid), SCMP_SYS(exit), SCMP_SYS(exit_group)};

using Filter = std::unique_ptr<void, decltype(&seccomp_release)>;

/// libseccomp's negative errno as an Error.
Result<> added(int status, const char* what) {
  if (status == 0) return {};
  return tl::unexpected(Error{"seccomp", -status, what});
}

Result<> allow_with_arguments(const Filter& filter) {
  for (const auto family : {AF_INET, AF_INET6}) {
    const auto rule = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                                       SCMP_A0(SCMP_CMP_EQ, static_cast<scmp_datum_t>(family)));
    if (auto done = added(rule, "socket"); !done) return done;
  }
  // Not F_SETOWN, F_SETSIG and their kin: with them a descriptor signals whomever one likes. No ioctl(2) for the same.
  for (const int command : {F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_GETPIPE_SZ, F_SETPIPE_SZ}) {
    const auto rule = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
                                       SCMP_A1(SCMP_CMP_EQ, static_cast<scmp_datum_t>(command)));
    if (auto done = added(rule, "fcntl"); !done) return done;
  }
  for (const int call : {SCMP_SYS(mmap), SCMP_SYS(mprotect)}) {
    const auto rule = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, 1,
                                       SCMP_A2(SCMP_CMP_MASKED_EQ, static_cast<scmp_datum_t>(PROT_EXEC), 0));
    if (auto done = added(rule, "memory"); !done) return done;
  }
  // abort(3) sends itself a signal, and nobody else.
  const auto rule = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                                     SCMP_A0(SCMP_CMP_EQ, static_cast<scmp_datum_t>(getpid())));
  return added(rule, "tgkill");
}

}  // namespace

Result<> confine() {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return errno_failure("prctl", "PR_SET_NO_NEW_PRIVS");
  if (prctl(PR_SET_DUMPABLE, 0) < 0) return errno_failure("prctl", "PR_SET_DUMPABLE");
  if (auto done = leave_files(); !done) return done;
  const Filter filter(seccomp_init(SCMP_ACT_ERRNO(EPERM)), &seccomp_release);
  if (!filter) return failure("seccomp_init");
  for (const int call : kCalls) {
    if (auto done = added(seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, 0), "rule"); !done) return done;
  }
  if (auto done = allow_with_arguments(filter); !done) return done;
  return added(seccomp_load(filter.get()), "load");
}

}  // namespace kai::egress
