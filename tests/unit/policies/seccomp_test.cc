// The compiled filters in a user-space BPF interpreter: every argument rule both ways, foreign architectures, unknown
// numbers, and goldens of what each profile answers. tests/sandbox tries the same filters on the kernel.
#include <fcntl.h>
#include <linux/audit.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "policies/compile.h"
#include "tests/unit/policies/bpf.h"

namespace kai {
namespace {

constexpr std::array kProfiles = {"base", "node", "python", "native"};
constexpr std::uint32_t kAllow = SECCOMP_RET_ALLOW;
constexpr std::uint32_t kEperm = SECCOMP_RET_ERRNO | EPERM;
constexpr std::uint32_t kEnosys = SECCOMP_RET_ERRNO | ENOSYS;
constexpr std::uint32_t kKill = SECCOMP_RET_KILL_PROCESS;
using Values = std::vector<std::uint64_t>;
constexpr std::uint64_t kHigh = 0xdeadbeef00000000U;  // bits of an int argument that the kernel does not read
#if defined(__x86_64__)
constexpr std::uint32_t kNative = AUDIT_ARCH_X86_64;
#else
constexpr std::uint32_t kNative = AUDIT_ARCH_AARCH64;
#endif

class Filter {
 public:
  explicit Filter(const char* profile) : program_(compile_seccomp(*find_profile(profile)).value()) {}

  using Arguments = std::array<std::uint64_t, 6>;

  std::uint32_t number(int number, const Arguments& arguments = {}, std::uint32_t arch = kNative) const {
    seccomp_data data{.nr = number, .arch = arch};
    for (std::size_t at = 0; at < arguments.size(); ++at) data.args[at] = arguments[at];
    const auto answer = program_.run(data);
    REQUIRE(answer);
    return *answer;
  }
  std::uint32_t call(const char* name, const Arguments& arguments = {}) const {
    const int resolved = seccomp_syscall_resolve_name(name);
    REQUIRE_MESSAGE(resolved != __NR_SCMP_ERROR, name);
    return number(resolved, arguments);
  }

 private:
  testing::BpfProgram program_;
};

std::string answer_name(std::uint32_t answer) {
  switch (answer) {
    case kAllow:
      return "allow";
    case kEperm:
      return "EPERM";
    case kEnosys:
      return "ENOSYS";
    case SECCOMP_RET_ERRNO | EOPNOTSUPP:
      return "EOPNOTSUPP";
    case kKill:
      return "kill";
    default:
      return std::to_string(answer);
  }
}

/// Every call up to Linux 5.17 and its answer; a call with argument rules is `arguments` and has its own test
/// here.
std::string golden_of(const char* profile) {
  const Filter filter(profile);
  std::set<std::string> with_arguments;
  for (const SyscallRule& rule : find_profile(profile)->rules) {
    if (!rule.arguments.empty()) with_arguments.insert(rule.name);
  }
  std::ostringstream text;
  for (int number = 0; number <= 450; ++number) {  // newer ones are ENOSYS, by number
    char* known = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);
    if (known == nullptr) continue;
    const std::string name = known;
    std::free(known);
    text << name << ' ' << (with_arguments.contains(name) ? "arguments" : answer_name(filter.number(number))) << '\n';
  }
  return text.str();
}

}  // namespace

TEST_CASE("profiles are found by name and are of a sane size") {
  CHECK(find_profile("nodejs") == nullptr);
  CHECK(find_profile("") == nullptr);
  for (const char* name : kProfiles) {
    CAPTURE(name);
    REQUIRE(find_profile(name) != nullptr);
    const auto program = compile_seccomp(*find_profile(name));
    REQUIRE(program);
    CHECK(program->size() % sizeof(sock_filter) == 0);
    CHECK(program->size() / sizeof(sock_filter) < 1024);
    CHECK(*program == *compile_seccomp(*find_profile(name)));  // the same every time
  }
}

TEST_CASE("an unknown system call in a profile is an error") {
  const SeccompProfile profile{"broken", {{"read_minds", SyscallRule::Action::kAllow, 0, {}}}};
  const auto program = compile_seccomp(profile);
  REQUIRE(!program);
  CHECK(program.error().context == "read_minds");
}

TEST_CASE("every kind of argument comparison is compiled") {
  using Op = SyscallRule::Argument::Op;
  const auto allowed = [](Op op, std::uint64_t value, std::uint64_t argument) {
    const SeccompProfile profile{"one", {{"close", SyscallRule::Action::kAllow, 0, {{0, op, value, 0xff}}}}};
    seccomp_data data{.nr = seccomp_syscall_resolve_name("close"), .arch = kNative};
    data.args[0] = argument;
    return testing::BpfProgram(compile_seccomp(profile).value()).run(data) == kAllow;
  };
  CHECK((allowed(Op::kEqual, 5, 5) && !allowed(Op::kEqual, 5, 6) && !allowed(Op::kEqual, 5, 5 | kHigh)));
  CHECK((allowed(Op::kNotEqual, 5, 6) && !allowed(Op::kNotEqual, 5, 5)));
  CHECK((allowed(Op::kLess, 5, 4) && !allowed(Op::kLess, 5, 5) && !allowed(Op::kLess, 5, 4 | kHigh)));
  CHECK((allowed(Op::kLessEqual, 5, 5) && !allowed(Op::kLessEqual, 5, 6)));
  CHECK((allowed(Op::kGreater, 5, 6) && !allowed(Op::kGreater, 5, 5) && allowed(Op::kGreater, 5, kHigh)));
  CHECK((allowed(Op::kGreaterEqual, 5, 5) && !allowed(Op::kGreaterEqual, 5, 4)));
  CHECK((allowed(Op::kMaskedEqual, 5, 0xf05) && !allowed(Op::kMaskedEqual, 5, 0x04)));
}

TEST_CASE("another architecture and x32 kill the process") {
  for (const char* name : kProfiles) {
    const Filter filter(name);
    for (const int number : {0, 1, 59, 435, 100000}) {
      CHECK(filter.number(number, {}, AUDIT_ARCH_I386) == kKill);
      CHECK(filter.number(number, {}, AUDIT_ARCH_ARM) == kKill);
      CHECK(filter.number(number, {}, kNative ^ __AUDIT_ARCH_64BIT) == kKill);
    }
#if defined(__x86_64__)
    for (const int number : {0, 1, 59, 435, 512, 547, 1000}) {
      CHECK(filter.number(number | 0x40000000) == kKill);
      CHECK(filter.number(static_cast<int>(static_cast<unsigned>(number) | 0xC0000000U)) == kKill);
    }
#endif
  }
}

TEST_CASE("unknown numbers answer ENOSYS, known refused ones EPERM") {
  for (const char* name : kProfiles) {
    const Filter filter(name);
    for (const int number : {451, 452, 462, 1000, 0x3fffffff}) CHECK(filter.number(number) == kEnosys);
    for (const char* call : {"clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"}) {
      CHECK(filter.call(call) == kEnosys);
    }
  }
}

TEST_CASE("what no profile may have is refused") {
  for (const char* profile : kProfiles) {
    const Filter filter(profile);
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
                             "chown",
                             "fchown",
                             "lchown",
                             "fchownat",
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
      CHECK(filter.call(call) == kEperm);
    }
  }
}

TEST_CASE("clone makes threads and children but no namespace") {
  const Filter filter("base");
  constexpr std::uint64_t kThread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                                    CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
  for (const std::uint64_t flags :
       Values{kThread, std::uint64_t{SIGCHLD}, std::uint64_t{CLONE_VM | CLONE_VFORK | SIGCHLD}}) {
    CHECK(filter.call("clone", {flags}) == kAllow);
    for (const std::uint64_t space :
         Values{CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET}) {
      CHECK(filter.call("clone", {flags | space}) == kEperm);
      CHECK(filter.call("clone", {flags | space | kHigh}) == kEperm);
    }
  }
}

TEST_CASE("sockets: local, TCP and UDP only") {
  for (const char* profile : kProfiles) {
    const Filter filter(profile);
    CHECK(filter.call("socket", {AF_UNIX, SOCK_STREAM, 0}) == kAllow);
    CHECK(filter.call("socketpair", {AF_UNIX, SOCK_SEQPACKET, 0}) == kAllow);
    CHECK(filter.call("socketpair", {AF_INET, SOCK_STREAM, 0}) == kEperm);
    for (const std::uint64_t family : Values{AF_INET, AF_INET6}) {
      for (const std::uint64_t protocol :
           Values{std::uint64_t{0}, std::uint64_t{IPPROTO_TCP}, std::uint64_t{IPPROTO_UDP}}) {
        CHECK(filter.call("socket", {family, SOCK_STREAM, protocol}) == kAllow);
      }
      for (const std::uint64_t protocol :
           Values{std::uint64_t{IPPROTO_ICMP}, std::uint64_t{IPPROTO_RAW}, std::uint64_t{132}, std::uint64_t{33},
                  std::uint64_t{136}, std::uint64_t{262}}) {
        CHECK(filter.call("socket", {family, SOCK_STREAM, protocol}) == kEperm);
      }
    }
    for (std::uint64_t family = 0; family < 64; ++family) {
      if (family == AF_UNIX || family == AF_INET || family == AF_INET6) continue;
      CAPTURE(family);
      CHECK(filter.call("socket", {family, SOCK_RAW, 0}) == kEperm);
      CHECK(filter.call("socket", {family | kHigh, SOCK_RAW, 0}) == kEperm);
    }
  }
}

TEST_CASE("ioctl is an allowlist over the low 32 bits (CVE-2019-10063)") {
  for (const char* profile : kProfiles) {
    const Filter filter(profile);
    const std::set<std::uint64_t> allowed = {FIONREAD, FIONBIO, FIOCLEX, FIONCLEX, TCGETS, TIOCGWINSZ, TIOCGPGRP};
    for (std::uint64_t request = 0x5400; request < 0x5490; ++request) {
      const std::uint32_t expected = allowed.contains(request) ? kAllow : kEperm;
      CAPTURE(request);
      CHECK(filter.call("ioctl", {0, request}) == expected);
      CHECK(filter.call("ioctl", {0, request | kHigh}) == expected);
      CHECK(filter.call("ioctl", {0, request | 0xffffffff00000000U}) == expected);  // sign-extended by musl
    }
    constexpr std::uint64_t kTioclinux = 0x541C;
    CHECK(filter.call("ioctl", {0, kTioclinux | (1ULL << 32)}) == kEperm);
    CHECK(filter.call("ioctl", {0, TIOCSTI | (1ULL << 32)}) == kEperm);
  }
}

TEST_CASE("prctl is an allowlist") {
  for (const char* profile : kProfiles) {
    const Filter filter(profile);
    const std::set<int> allowed = {PR_SET_NAME,         PR_GET_NAME,         PR_GET_DUMPABLE, PR_GET_PDEATHSIG,
                                   PR_GET_NO_NEW_PRIVS, PR_SET_NO_NEW_PRIVS, PR_GET_SECCOMP,  PR_GET_SECUREBITS,
                                   PR_CAPBSET_READ,     PR_GET_TIMERSLACK};
    for (int option = 0; option < 80; ++option) {
      if (option == PR_CAP_AMBIENT) continue;
      CAPTURE(option);
      const std::uint32_t expected = allowed.contains(option) ? kAllow : kEperm;
      CHECK(filter.call("prctl", {static_cast<std::uint64_t>(option)}) == expected);
      CHECK(filter.call("prctl", {static_cast<std::uint64_t>(option) | kHigh}) == expected);
    }
    CHECK(filter.call("prctl", {PR_SET_VMA}) == kAllow);
    CHECK(filter.call("prctl", {PR_SET_PTRACER}) == kEperm);
    CHECK(filter.call("prctl", {PR_SET_SECCOMP, 2}) == kEperm);
    CHECK(filter.call("prctl", {PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET}) == kAllow);
    for (const std::uint64_t change : Values{PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_LOWER, PR_CAP_AMBIENT_CLEAR_ALL}) {
      CHECK(filter.call("prctl", {PR_CAP_AMBIENT, change}) == kEperm);
      CHECK(filter.call("prctl", {PR_CAP_AMBIENT | kHigh, change}) == kEperm);
    }
  }
}

TEST_CASE("the other argument rules") {
  const Filter filter("base");
  CHECK(filter.call("personality", {0}) == kAllow);
  CHECK(filter.call("personality", {0xffffffff}) == kAllow);
  CHECK(filter.call("personality", {0xffffffffffffffffU}) == kAllow);
  for (const std::uint64_t persona :
       Values{std::uint64_t{ADDR_NO_RANDOMIZE}, std::uint64_t{READ_IMPLIES_EXEC}, std::uint64_t{8}}) {
    CHECK(filter.call("personality", {persona}) == kEperm);
    CHECK(filter.call("personality", {persona | kHigh}) == kEperm);
  }
  CHECK(filter.call("prlimit64", {0, 7}) == kAllow);
  CHECK(filter.call("prlimit64", {1, 7}) == kEperm);
  CHECK(filter.call("prlimit64", {1 | kHigh, 7}) == kEperm);
  for (const std::uint64_t mode : Values{S_IFIFO | 0600, S_IFIFO | 04777}) {
    CHECK(filter.call("mknod", {0, mode}) == kAllow);
    CHECK(filter.call("mknodat", {0, 0, mode}) == kAllow);
  }
  for (const std::uint64_t mode : Values{S_IFCHR | 0600, S_IFBLK | 0600, S_IFSOCK | 0600, S_IFREG | 0600, 0600}) {
    CHECK(filter.call("mknod", {0, mode}) == kEperm);
    CHECK(filter.call("mknodat", {0, 0, mode | kHigh}) == kEperm);
  }
#if defined(__x86_64__)
  constexpr std::uint64_t kSetGs = 0x1001;
  constexpr std::uint64_t kSetFs = 0x1002;
  constexpr std::uint64_t kSetCpuid = 0x1012;
  CHECK(filter.call("arch_prctl", {kSetFs}) == kAllow);
  CHECK(filter.call("arch_prctl", {kSetGs}) == kEperm);
  CHECK(filter.call("arch_prctl", {kSetCpuid}) == kEperm);
#endif
}

TEST_CASE("only node has protection keys") {
  for (const char* call : {"pkey_alloc", "pkey_free", "pkey_mprotect"}) {
    CHECK(Filter("node").call(call) == kAllow);
    for (const char* other : {"base", "python", "native"}) CHECK(Filter(other).call(call) == kEperm);
  }
}

#if defined(__x86_64__)
// A golden shows in review what a change of a profile changes. Made anew with KAI_WRITE_GOLDENS=1.
TEST_CASE("goldens: the answer to every known call") {
  for (const char* profile : kProfiles) {
    CAPTURE(profile);
    const std::string path = std::string(KAI_SOURCE_DIR "/tests/unit/policies/golden/") + profile + ".x86_64.txt";
    if (std::getenv("KAI_WRITE_GOLDENS") != nullptr) std::ofstream(path) << golden_of(profile);
    std::ifstream file(path);
    std::ostringstream golden;
    golden << file.rdbuf();
    CHECK(golden_of(profile) == golden.str());
  }
}
#endif

}  // namespace kai
