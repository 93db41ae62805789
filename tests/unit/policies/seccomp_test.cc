// The compiled filters in a user-space BPF interpreter: foreign architectures, unknown numbers, grants, and goldens of
// what each profile answers; seccomp_rules_test.cc tries the argument rules, tests/sandbox the same filters on the
// kernel.
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "tests/unit/policies/filter_program.h"

namespace kai {
namespace {

using namespace testing;

std::string answer_name(std::uint32_t answer) {
  switch (answer) {
    case kAllow:
      return "allow";
    case kRefused:
      return "refused";
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
std::string golden_of(const char* profile, Architecture architecture) {
  const Program filter(profile, false, architecture);
  const std::uint32_t token = architecture == Architecture::kX86_64 ? SCMP_ARCH_X86_64 : SCMP_ARCH_AARCH64;
  std::set<std::string> with_arguments;
  for (const SyscallRule& rule : find_profile(profile)->rules) {
    if (!rule.arguments.empty() && rule.action != SyscallRule::Action::kNotify) with_arguments.insert(rule.name);
  }
  std::ostringstream text;
  for (int number = 0; number <= 450; ++number) {  // newer ones are ENOSYS, by number
    char* known = seccomp_syscall_resolve_num_arch(token, number);
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
    const auto filter = compile_filter(*find_profile(name));
    REQUIRE(filter);
    CHECK(filter->notifying.size() == filter->silent.size());
    CHECK(filter->notifying.size() % sizeof(sock_filter) == 0);
    CHECK(filter->notifying.size() / sizeof(sock_filter) < 1024);
    CHECK(filter->notifying == compile_filter(*find_profile(name))->notifying);  // the same every time
    CHECK(filter->notifying == compiled_filter(name, {})->notifying);
    CHECK(filter->silent == compiled_filter(name, {})->silent);
  }
}

TEST_CASE("an unknown system call in a profile is an error") {
  const SeccompProfile profile{"broken", {{"read_minds", SyscallRule::Action::kAllow, 0, {}, {}, {}}}};
  const auto program = compile_filter(profile);
  REQUIRE(!program);
  CHECK(program.error().context == "read_minds");
}

TEST_CASE("every kind of argument comparison is compiled") {
  using Op = SyscallRule::Argument::Op;
  const auto allowed = [](Op op, std::uint64_t value, std::uint64_t argument) {
    const SeccompProfile profile{"one", {{"close", SyscallRule::Action::kAllow, 0, {{0, op, value, 0xff}}, {}, {}}}};
    seccomp_data data{.nr = seccomp_syscall_resolve_name("close"), .arch = audit_arch(kNativeArchitecture)};
    data.args[0] = argument;
    return testing::BpfProgram(compile_filter(profile)->notifying).run(data) == kAllow;
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
    const Program filter(name);
    for (const int number : {0, 1, 59, 435, 100000}) {
      CHECK(filter.number(number, {}, AUDIT_ARCH_I386) == kKill);
      CHECK(filter.number(number, {}, AUDIT_ARCH_ARM) == kKill);
      CHECK(filter.number(number, {}, audit_arch(kNativeArchitecture) ^ __AUDIT_ARCH_64BIT) == kKill);
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
    const Program filter(name);
    for (const int number : {451, 452, 462, 1000, 0x3fffffff}) CHECK(filter.number(number) == kEnosys);
    for (const char* call : {"clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"}) {
      CHECK(filter.call(call) == kEnosys);
    }
  }
}

TEST_CASE("both architectures' programs decide the same") {
  struct Attempt {
    const char* call;
    Program::Arguments arguments;
  };
  const Attempt attempts[] = {
      {"read", {}},
      {"execve", {}},
      {"unshare", {CLONE_NEWUSER}},
      {"ptrace", {}},
      {"bpf", {}},
      {"seccomp", {1}},
      {"clone", {SIGCHLD}},
      {"clone", {CLONE_NEWUSER | SIGCHLD}},
      {"clone", {CLONE_NEWNET | kHigh}},
      {"clone3", {}},
      {"socket", {AF_UNIX, SOCK_STREAM}},
      {"socket", {AF_INET, SOCK_STREAM, IPPROTO_TCP}},
      {"socket", {AF_INET6, SOCK_DGRAM, IPPROTO_UDP}},
      {"socket", {AF_INET, SOCK_STREAM, 132}},
      {"socket", {AF_INET, SOCK_RAW, IPPROTO_RAW}},
      {"socket", {AF_ALG, SOCK_SEQPACKET}},
      {"socket", {AF_NETLINK, SOCK_RAW}},
      {"socket", {AF_UNIX | kHigh, SOCK_STREAM}},
      {"socketpair", {AF_UNIX}},
      {"socketpair", {AF_INET}},
      {"ioctl", {0, FIONBIO}},
      {"ioctl", {0, FIONREAD | kHigh}},
      {"ioctl", {0, TCGETS}},
      {"ioctl", {0, TIOCSTI}},
      {"ioctl", {0, TIOCSTI | kHigh}},
      {"ioctl", {0, 0x541c}},
      {"prctl", {PR_SET_NAME}},
      {"prctl", {PR_SET_SECCOMP, 2}},
      {"prctl", {PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET}},
      {"prctl", {PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE}},
      {"personality", {0}},
      {"personality", {0xffffffff}},
      {"personality", {ADDR_NO_RANDOMIZE}},
      {"prlimit64", {0}},
      {"prlimit64", {7}},
      {"mknodat", {0, 0, S_IFIFO | 0600}},
      {"mknodat", {0, 0, S_IFCHR | 0600}},
      {"io_uring_setup", {}},
      {"pkey_alloc", {}},
      {"setxattr", {}},
      {"keyctl", {}},
      {"landlock_create_ruleset", {}},
      {"openat2", {}},
      {"fchmodat", {0, 0, 0755}},
      {"fchmodat", {0, 0, 04755}},
      {"openat", {0, 0, O_CREAT, 0644}},
      {"openat", {0, 0, O_CREAT, 04644}},
      {"openat", {0, 0, O_RDONLY, 04644}},
      {"memfd_create", {}},
      {"getrandom", {}},
  };
  for (const char* profile : kProfiles) {
    for (const bool silent : {false, true}) {
      const Program x86(profile, silent, Architecture::kX86_64);
      const Program arm(profile, silent, Architecture::kAarch64);
      for (const Attempt& attempt : attempts) {
        CAPTURE(attempt.call);
        CAPTURE(attempt.arguments[0]);
        CAPTURE(attempt.arguments[1]);
        CHECK(answer_name(x86.call(attempt.call, attempt.arguments)) ==
              answer_name(arm.call(attempt.call, attempt.arguments)));
      }
      for (const int number : {451, 1000, 0x3fffffff}) CHECK(arm.number(number) == kEnosys);
      CHECK(arm.number(0x40000000) == kEnosys);  // no x32 there: an unknown number like any other
    }
  }
}

TEST_CASE("the silent program answers with the errno what the other tells its listener") {
  for (const char* profile : kProfiles) {
    const Program notifying(profile);
    const Program silent(profile, true);
    for (int number = 0; number <= 460; ++number) {
      CAPTURE(number);
      const std::uint32_t told = notifying.number(number);
      CHECK(silent.number(number) == (told == kRefused ? kEperm : told));
    }
  }
}

TEST_CASE("a policy may grant calls by name, but none that hides denials") {
  const auto& base = *find_profile("base");
  const Program granted(compile_filter(base, {"ptrace", "io_uring_setup", "socket"}).value(), false);
  CHECK(granted.call("ptrace", {16}) == kAllow);
  CHECK(granted.call("io_uring_setup") == kAllow);       // in place of the rule that answers ENOSYS
  CHECK(granted.call("socket", {AF_PACKET}) == kAllow);  // whatever its arguments
  CHECK(granted.call("io_uring_enter") == kEnosys);
  CHECK(granted.call("unshare") == kRefused);
  CHECK(compiled_filter("base", {"ptrace", "ptrace"})->notifying == compiled_filter("base", {"ptrace"})->notifying);
  for (const char* call : {"seccomp", "prctl"}) {
    const auto refused = compiled_filter("base", {call});
    REQUIRE(!refused);
    CHECK(refused.error().context == call);
  }
  CHECK(compiled_filter("base", {"read_minds"}).error().context == "read_minds");
  CHECK(compiled_filter("nodejs", {}).error().context == "nodejs");
}

// A golden shows in review what a change of a profile changes. Made anew with KAI_WRITE_GOLDENS=1.
TEST_CASE("goldens: the answer to every known call") {
  for (const char* profile : kProfiles) {
    for (const Architecture architecture : kArchitectures) {
      const char* name = architecture == Architecture::kX86_64 ? ".x86_64.txt" : ".aarch64.txt";
      CAPTURE(profile);
      CAPTURE(name);
      const std::string path = std::string(KAI_SOURCE_DIR "/tests/unit/policies/golden/") + profile + name;
      const std::string now = golden_of(profile, architecture);
      if (std::getenv("KAI_WRITE_GOLDENS") != nullptr) std::ofstream(path) << now;
      std::ifstream file(path);
      std::ostringstream golden;
      golden << file.rdbuf();
      CHECK(now == golden.str());
    }
  }
}

}  // namespace kai
