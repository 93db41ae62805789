// Every argument rule of the profiles, both ways, in a user-space BPF interpreter.
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <set>

#include "tests/unit/policies/filter_program.h"

namespace kai {

using namespace testing;

TEST_CASE("what no profile may have is refused") {
  for (const char* profile : kProfiles) {
    const Program filter(profile);
    for (const char* call : {"seccomp",
                             "unshare",
                             "setns",
                             "mount",
                             "umount2",
                             "pivot_root",
                             "chroot",
                             "move_mount",
                             "open_tree",
                             "fsopen",
                             "fsconfig",
                             "fsmount",
                             "fspick",
                             "mount_setattr",
                             "ptrace",
                             "process_vm_readv",
                             "process_vm_writev",
                             "process_madvise",
                             "pidfd_getfd",
                             "kcmp",
                             "keyctl",
                             "add_key",
                             "request_key",
                             "bpf",
                             "perf_event_open",
                             "userfaultfd",
                             "kexec_load",
                             "kexec_file_load",
                             "init_module",
                             "finit_module",
                             "delete_module",
                             "reboot",
                             "swapon",
                             "swapoff",
                             "sethostname",
                             "setdomainname",
                             "settimeofday",
                             "clock_settime",
                             "clock_adjtime",
                             "adjtimex",
                             "acct",
                             "quotactl",
                             "syslog",
                             "iopl",
                             "ioperm",
                             "setuid",
                             "setgid",
                             "setresuid",
                             "setresgid",
                             "setgroups",
                             "setfsuid",
                             "capset",
                             "name_to_handle_at",
                             "open_by_handle_at",
                             "fanotify_init",
                             "lookup_dcookie",
                             "vhangup",
                             "shmget",
                             "shmat",
                             "semget",
                             "msgget",
                             "mq_open",
                             "mbind",
                             "move_pages",
                             "migrate_pages",
                             "memfd_create",
                             "memfd_secret",
                             "mlockall",
                             "ioprio_set",
                             "sched_setscheduler",
                             "sched_setattr",
                             "sync",
                             "landlock_create_ruleset",
                             "modify_ldt",
                             "vmsplice",
                             "execveat",
                             "remap_file_pages"}) {
      CAPTURE(profile);
      CAPTURE(call);
      CHECK(filter.call(call) == kRefused);
    }
  }
}

TEST_CASE("clone makes threads and children but no namespace") {
  const Program filter("base");
  constexpr std::uint64_t kThread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                                    CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
  for (const std::uint64_t flags :
       Values{kThread, std::uint64_t{SIGCHLD}, std::uint64_t{CLONE_VM | CLONE_VFORK | SIGCHLD}}) {
    CHECK(filter.call("clone", {flags}) == kAllow);
    for (const std::uint64_t space :
         Values{CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET}) {
      CHECK(filter.call("clone", {flags | space}) == kRefused);
      CHECK(filter.call("clone", {flags | space | kHigh}) == kRefused);
    }
  }
}

TEST_CASE("sockets: local, TCP and UDP only") {
  for (const char* profile : kProfiles) {
    const Program filter(profile);
    CHECK(filter.call("socket", {AF_UNIX, SOCK_STREAM, 0}) == kAllow);
    CHECK(filter.call("socketpair", {AF_UNIX, SOCK_SEQPACKET, 0}) == kAllow);
    CHECK(filter.call("socketpair", {AF_INET, SOCK_STREAM, 0}) == kRefused);
    for (const std::uint64_t family : Values{AF_INET, AF_INET6}) {
      for (const std::uint64_t protocol :
           Values{std::uint64_t{0}, std::uint64_t{IPPROTO_TCP}, std::uint64_t{IPPROTO_UDP}}) {
        CHECK(filter.call("socket", {family, SOCK_STREAM, protocol}) == kAllow);
      }
      for (const std::uint64_t protocol :
           Values{std::uint64_t{IPPROTO_ICMP}, std::uint64_t{IPPROTO_RAW}, std::uint64_t{132}, std::uint64_t{33},
                  std::uint64_t{136}, std::uint64_t{262}}) {
        CHECK(filter.call("socket", {family, SOCK_STREAM, protocol}) == kRefused);
      }
    }
    for (std::uint64_t family = 0; family < 64; ++family) {
      if (family == AF_UNIX || family == AF_INET || family == AF_INET6) continue;
      CAPTURE(family);
      const std::uint32_t expected = family == AF_NETLINK ? kEperm : kRefused;  // NETLINK_ROUTE is asked for by libcs
      CHECK(filter.call("socket", {family, SOCK_RAW, 0}) == expected);
      CHECK(filter.call("socket", {family | kHigh, SOCK_RAW, 0}) == expected);
      CHECK(filter.call("socket", {family, SOCK_RAW, 9}) == kRefused);
    }
  }
}

TEST_CASE("ioctl is an allowlist over the low 32 bits (CVE-2019-10063)") {
  for (const char* profile : kProfiles) {
    const Program filter(profile);
    const std::set<std::uint64_t> allowed = {FIONREAD, FIONBIO, FIOCLEX, FIONCLEX, TCGETS, TIOCGWINSZ, TIOCGPGRP};
    for (std::uint64_t request = 0x5400; request < 0x5490; ++request) {
      const std::uint32_t expected = allowed.contains(request) ? kAllow : kRefused;
      CAPTURE(request);
      CHECK(filter.call("ioctl", {0, request}) == expected);
      CHECK(filter.call("ioctl", {0, request | kHigh}) == expected);
      CHECK(filter.call("ioctl", {0, request | 0xffffffff00000000U}) == expected);  // sign-extended by musl
    }
    constexpr std::uint64_t kTioclinux = 0x541C;
    CHECK(filter.call("ioctl", {0, kTioclinux | (1ULL << 32)}) == kRefused);
    CHECK(filter.call("ioctl", {0, TIOCSTI | (1ULL << 32)}) == kRefused);
  }
}

TEST_CASE("prctl is an allowlist") {
  for (const char* profile : kProfiles) {
    const Program filter(profile);
    const std::set<int> allowed = {PR_SET_NAME,         PR_GET_NAME,         PR_GET_DUMPABLE, PR_GET_PDEATHSIG,
                                   PR_GET_NO_NEW_PRIVS, PR_SET_NO_NEW_PRIVS, PR_GET_SECCOMP,  PR_GET_SECUREBITS,
                                   PR_CAPBSET_READ,     PR_GET_TIMERSLACK};
    for (int option = 0; option < 80; ++option) {
      if (option == PR_CAP_AMBIENT) continue;
      CAPTURE(option);
      const std::uint32_t expected = allowed.contains(option) ? kAllow : kRefused;
      CHECK(filter.call("prctl", {static_cast<std::uint64_t>(option)}) == expected);
      CHECK(filter.call("prctl", {static_cast<std::uint64_t>(option) | kHigh}) == expected);
    }
    CHECK(filter.call("prctl", {PR_SET_VMA}) == kAllow);
    CHECK(filter.call("prctl", {PR_SET_PTRACER}) == kRefused);
    CHECK(filter.call("prctl", {PR_SET_SECCOMP, 2}) == kRefused);
    CHECK(filter.call("prctl", {PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET}) == kAllow);
    for (const std::uint64_t change : Values{PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_LOWER, PR_CAP_AMBIENT_CLEAR_ALL}) {
      CHECK(filter.call("prctl", {PR_CAP_AMBIENT, change}) == kRefused);
      CHECK(filter.call("prctl", {PR_CAP_AMBIENT | kHigh, change}) == kRefused);
    }
  }
}

TEST_CASE("the other argument rules") {
  const Program filter("base");
  CHECK(filter.call("personality", {0}) == kAllow);
  CHECK(filter.call("personality", {0xffffffff}) == kAllow);
  CHECK(filter.call("personality", {0xffffffffffffffffU}) == kAllow);
  for (const std::uint64_t persona :
       Values{std::uint64_t{ADDR_NO_RANDOMIZE}, std::uint64_t{READ_IMPLIES_EXEC}, std::uint64_t{8}}) {
    CHECK(filter.call("personality", {persona}) == kRefused);
    CHECK(filter.call("personality", {persona | kHigh}) == kRefused);
  }
  CHECK(filter.call("prlimit64", {0, 7}) == kAllow);
  CHECK(filter.call("prlimit64", {1, 7}) == kRefused);
  CHECK(filter.call("prlimit64", {1 | kHigh, 7}) == kRefused);
  for (const std::uint64_t mode : Values{S_IFIFO | 0600, S_IFIFO | 01777}) {
    CHECK(filter.call("mknod", {0, mode}) == kAllow);
    CHECK(filter.call("mknodat", {0, 0, mode}) == kAllow);
  }
  for (const std::uint64_t mode : Values{S_IFCHR | 0600, S_IFBLK | 0600, S_IFSOCK | 0600, S_IFREG | 0600, 0600}) {
    CHECK(filter.call("mknod", {0, mode}) == kRefused);
    CHECK(filter.call("mknodat", {0, 0, mode | kHigh}) == kRefused);
  }
#if defined(__x86_64__)
  constexpr std::uint64_t kSetGs = 0x1001;
  constexpr std::uint64_t kSetFs = 0x1002;
  constexpr std::uint64_t kSetCpuid = 0x1012;
  CHECK(filter.call("arch_prctl", {kSetFs}) == kAllow);
  CHECK(filter.call("arch_prctl", {kSetGs}) == kRefused);
  CHECK(filter.call("arch_prctl", {kSetCpuid}) == kRefused);
#endif
}

TEST_CASE("only node has protection keys") {
  for (const char* call : {"pkey_alloc", "pkey_free", "pkey_mprotect"}) {
    CHECK(Program("node").call(call) == kAllow);
    for (const char* other : {"base", "python", "native"}) CHECK(Program(other).call(call) == kRefused);
  }
}

TEST_CASE("harmless probes are refused without a notification") {
  for (const char* profile : kProfiles) {
    const Program filter(profile);
    for (const char* call : {"chown", "fchown", "lchown", "fchownat", "get_mempolicy"})
      CHECK(filter.call(call) == kEperm);
    for (const std::uint64_t request : Values{0x8912, 0x8913, 0x8927}) {
      CHECK(filter.call("ioctl", {0, request}) == kEperm);
      CHECK(filter.call("ioctl", {0, request | kHigh}) == kEperm);
    }
    CHECK(filter.call("ioctl", {0, 0x40049409}) == (SECCOMP_RET_ERRNO | EOPNOTSUPP));
    CHECK(filter.call("ioctl", {0, 0x8914}) == kRefused);  // SIOCSIFFLAGS changes one
  }
}

TEST_CASE("set-id bits are refused wherever an argument shows them") {
  constexpr std::uint64_t kPlain = 01777;
  for (const Architecture architecture : kArchitectures) {
    const Program filter("base", false, architecture);
    for (const std::uint64_t bits : Values{04000, 02000, 06000}) {
      CHECK(filter.call("fchmod", {3, kPlain}) == kAllow);
      CHECK(filter.call("fchmod", {3, kPlain | bits}) == kRefused);
      CHECK(filter.call("fchmod", {3, kPlain | bits | kHigh}) == kRefused);
      CHECK(filter.call("fchmodat", {0, 0, kPlain}) == kAllow);
      CHECK(filter.call("fchmodat", {0, 0, kPlain | bits}) == kRefused);
      for (const std::uint64_t make : Values{O_CREAT | O_WRONLY, 020000000 | O_RDWR}) {
        CHECK(filter.call("openat", {0, 0, make, 0644}) == kAllow);
        CHECK(filter.call("openat", {0, 0, make, 0644 | bits}) == kRefused);
        CHECK(filter.call("openat", {0, 0, make | kHigh, 0644 | bits | kHigh}) == kRefused);
      }
      CHECK(filter.call("openat", {0, 0, O_RDONLY | O_CLOEXEC, bits}) ==
            kAllow);  // the kernel does not read a mode then
      CHECK(filter.call("mknodat", {0, 0, S_IFIFO | 0600 | bits}) == kRefused);
      if (architecture != Architecture::kX86_64) continue;
      CHECK(filter.call("chmod", {0, kPlain}) == kAllow);
      CHECK(filter.call("chmod", {0, kPlain | bits}) == kRefused);
      CHECK(filter.call("creat", {0, 0644}) == kAllow);
      CHECK(filter.call("creat", {0, 0644 | bits}) == kRefused);
      CHECK(filter.call("open", {0, O_RDONLY, bits}) == kAllow);
      CHECK(filter.call("open", {0, O_CREAT, 0644}) == kAllow);
      CHECK(filter.call("open", {0, O_CREAT, 0644 | bits}) == kRefused);
    }
    CHECK(filter.call("openat2") == kEnosys);
  }
}

}  // namespace kai
