// What an operator reads about a refused call.
#include "policies/refusal.h"

#include <linux/audit.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>

#include <string>

#include <doctest/doctest.h>

#include "policies/profiles.h"

namespace kai {
namespace {

using Arguments = std::array<std::uint64_t, 6>;

Refusal refusal(const char* call, const Arguments& arguments, const char* profile = "base") {
  return explain_refusal(profile, AUDIT_ARCH_X86_64, seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86_64, call),
                         arguments);
}

}  // namespace

TEST_CASE("calls that matter read as they were written") {
  struct Case {
    const char* call;
    Arguments arguments;
    const char* text;
  };
  const Case cases[] = {
      {"unshare", {CLONE_NEWUSER}, "unshare(CLONE_NEWUSER)"},
      {"unshare", {CLONE_NEWUSER | CLONE_NEWNS}, "unshare(CLONE_NEWNS|CLONE_NEWUSER)"},
      {"unshare", {0xdeadbeef00000000U | CLONE_NEWUSER}, "unshare(CLONE_NEWUSER)"},
      {"unshare", {0}, "unshare(0x0)"},
      {"setns", {7, CLONE_NEWNET}, "setns(7, CLONE_NEWNET)"},
      {"clone", {CLONE_NEWPID | SIGCHLD}, "clone(CLONE_NEWPID|SIGCHLD, 0x0, 0x0, 0x0, 0x0)"},
      {"socket", {AF_ALG, SOCK_SEQPACKET | SOCK_CLOEXEC, 0}, "socket(AF_ALG, SOCK_CLOEXEC|SOCK_SEQPACKET, 0)"},
      {"socket", {AF_PACKET, SOCK_RAW, 768}, "socket(AF_PACKET, SOCK_RAW, 768)"},
      {"socket", {63, 99, 1}, "socket(0x3f, 0x63, 1)"},
      {"mount", {1, 2, 3, MS_BIND | MS_REC, 4}, "mount(0x1, 0x2, 0x3, MS_BIND|MS_REC, 0x4)"},
      {"ptrace", {PTRACE_ATTACH, 12, 0, 0}, "ptrace(PTRACE_ATTACH, 12, 0x0, 0x0)"},
      {"prctl", {PR_SET_SECCOMP, 2, 9, 0, 0}, "prctl(PR_SET_SECCOMP, 0x2, 0x9, 0x0, 0x0)"},
      {"keyctl", {KEYCTL_JOIN_SESSION_KEYRING}, "keyctl(KEYCTL_JOIN_SESSION_KEYRING, 0x0, 0x0, 0x0, 0x0)"},
      {"ioctl", {0, TIOCSTI | (1ULL << 40), 8}, "ioctl(0, TIOCSTI, 0x8)"},
      {"ioctl", {3, 0x541c, 8}, "ioctl(3, TIOCLINUX, 0x8)"},
      {"bpf", {5, 16, 48}, "bpf(BPF_PROG_LOAD, 0x10, 48)"},
      {"seccomp", {1, 8, 16}, "seccomp(SECCOMP_SET_MODE_FILTER, 0x8, 0x10)"},
      {"personality", {ADDR_NO_RANDOMIZE}, "personality(ADDR_NO_RANDOMIZE)"},
      {"personality", {8}, "personality(PER_LINUX32)"},
      {"fchmod", {3, 04755}, "fchmod(3, 04755)"},
      {"sync", {1, 2, 3}, "sync()"},
      {"quotactl", {1, 2, 3, 4, 5, 6}, "quotactl(0x1, 0x2, 0x3, 0x4, 0x5, 0x6)"},
  };
  for (const Case& each : cases) CHECK(refusal(each.call, each.arguments).text == each.text);
}

TEST_CASE("a refusal names its rule, its reason and its errno") {
  const Refusal unshare = refusal("unshare", {CLONE_NEWUSER});
  CHECK(unshare.call == "unshare");
  CHECK(unshare.error_number == EPERM);
  CHECK(unshare.rule.starts_with("base.yaml:"));
  CHECK(unshare.reason.find("amespaces") != std::string::npos);
  // The same call, by argument.
  CHECK(refusal("prctl", {PR_SET_SECCOMP}).rule != refusal("prctl", {PR_SET_PDEATHSIG}).rule);
  CHECK(refusal("prctl", {PR_SET_SECCOMP | (1ULL << 33)}).rule == refusal("prctl", {PR_SET_SECCOMP}).rule);
  CHECK(refusal("ioctl", {0, TIOCSTI}).rule != refusal("ioctl", {0, 1}).rule);
  // A quiet rule is nobody's to explain: without notification nobody asks.
  CHECK(refusal("socket", {AF_NETLINK, SOCK_RAW, 9}).reason.starts_with("Netlink"));
  // A profile that includes another gives that one's rules.
  CHECK(refusal("unshare", {CLONE_NEWUSER}, "node").rule == unshare.rule);
}

TEST_CASE("what no rule names has the default reason") {
  const Refusal mystery = refusal("pkey_alloc", {}, "python");
  CHECK(mystery.reason == "not among the calls that profile python allows");
  CHECK(mystery.rule == "python.yaml (default)");
  CHECK(mystery.error_number == EPERM);
}

TEST_CASE("numbers without a name, and names of the other architecture") {
  const Refusal unknown = explain_refusal("base", AUDIT_ARCH_X86_64, 4711, {1, 2, 3, 4, 5, 6});
  CHECK(unknown.call == "syscall_4711");
  CHECK(unknown.text == "syscall_4711(0x1, 0x2, 0x3, 0x4, 0x5, 0x6)");
  CHECK(explain_refusal("base", AUDIT_ARCH_X86_64, -1, {}).call == "syscall_-1");
  CHECK(explain_refusal("base", AUDIT_ARCH_AARCH64, 97, {CLONE_NEWUSER}).text == "unshare(CLONE_NEWUSER)");
  CHECK(explain_refusal("base", 0, 97, {}).call == "syscall_97");
  CHECK(explain_refusal("nodejs", AUDIT_ARCH_X86_64, 272, {}).rule == "nodejs.yaml (default)");
}

TEST_CASE("every rule of every profile has a place and a reason") {
  for (const SeccompProfile& profile : all_profiles()) {
    for (const SyscallRule& rule : profile.rules) {
      CAPTURE(rule.name);
      CHECK(rule.place.find(".yaml:") != std::string::npos);
      CHECK(rule.reason.ends_with('.'));
      CHECK((rule.error_number == 0) == (rule.action == SyscallRule::Action::kAllow));
    }
  }
}

}  // namespace kai
