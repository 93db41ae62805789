// A profile's rules as BPF, by libseccomp. Nothing is installed here: the bytes travel in the SandboxSpec.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <memory>

#include "base/fd.h"
#include "base/unix.h"
#include "policies/compile.h"
#include "policies/profiles.h"

namespace kai {
namespace {

using Context = std::unique_ptr<void, decltype(&seccomp_release)>;

#if defined(__x86_64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "kAI's filters are written for x86_64 and aarch64"
#endif

constexpr std::uint32_t kX32Bit = 0x40000000;  // x86: a call of the x32 ABI
// set_mempolicy_home_node(2) of Linux 5.17: the newest call that the profiles' authors have judged. A constant, not
// what libseccomp's tables know, so that a filter is the same with every libseccomp.
constexpr std::uint32_t kNewestJudged = 450;

scmp_compare operation(SyscallRule::Argument::Op op) {
  using Op = SyscallRule::Argument::Op;
  switch (op) {
    case Op::kEqual:
      return SCMP_CMP_EQ;
    case Op::kNotEqual:
      return SCMP_CMP_NE;
    case Op::kLess:
      return SCMP_CMP_LT;
    case Op::kLessEqual:
      return SCMP_CMP_LE;
    case Op::kGreater:
      return SCMP_CMP_GT;
    case Op::kGreaterEqual:
      return SCMP_CMP_GE;
    case Op::kMaskedEqual:
      return SCMP_CMP_MASKED_EQ;
  }
  return SCMP_CMP_EQ;
}

tl::unexpected<Error> seccomp_failure(const char* what, int negative_errno, const std::string& context) {
  return tl::unexpected(Error{what, -negative_errno, context});
}

Result<> add_rule(const Context& context, const SyscallRule& rule) {
  const int number = seccomp_syscall_resolve_name(rule.name.c_str());
  if (number == __NR_SCMP_ERROR) return failure("unknown system call in a seccomp profile", rule.name);
  if (number < 0) return {};  // a call that this architecture does not have
  std::vector<scmp_arg_cmp> arguments;
  for (const SyscallRule::Argument& argument : rule.arguments) {
    const bool masked = argument.op == SyscallRule::Argument::Op::kMaskedEqual;
    arguments.push_back(
        {argument.index, operation(argument.op), masked ? argument.mask : argument.value, masked ? argument.value : 0});
  }
  const std::uint32_t action = rule.action == SyscallRule::Action::kAllow
                                   ? SCMP_ACT_ALLOW
                                   : SCMP_ACT_ERRNO(static_cast<std::uint32_t>(rule.error_number));
  const int failed =
      seccomp_rule_add_array(context.get(), action, number, static_cast<unsigned>(arguments.size()), arguments.data());
  if (failed != 0) return seccomp_failure("seccomp_rule_add", failed, rule.name);
  return {};
}

/// libseccomp's program. 2.5 exports only to a descriptor.
Result<std::string> export_program(const Context& context) {
  const Fd file(memfd_create("kai-seccomp", MFD_CLOEXEC));
  if (!file) return errno_failure("memfd_create", "kai-seccomp");
  if (const int failed = seccomp_export_bpf(context.get(), file.get()); failed != 0) {
    return seccomp_failure("seccomp_export_bpf", failed, {});
  }
  if (lseek(file.get(), 0, SEEK_SET) != 0) return errno_failure("lseek", "kai-seccomp");
  return read_all(file.get(), BPF_MAXINSNS * sizeof(sock_filter));
}

/// Put before libseccomp's program: a call newer than the profiles gets ENOSYS, on which libcs fall back to an older
/// one. EPERM, the default, would break them; and ENOSYS as default would hide what is refused. Another architecture
/// and x32 go on to libseccomp's program, which kills the process.
std::string unknown_calls_prologue() {
  const sock_filter prologue[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, kX32Bit, 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, kNewestJudged, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
  };
  std::string bytes(sizeof(prologue), '\0');
  std::memcpy(bytes.data(), prologue, sizeof(prologue));
  return bytes;
}

}  // namespace

const SeccompProfile* find_profile(std::string_view name) {
  for (const SeccompProfile& profile : all_profiles()) {
    if (profile.name == name) return &profile;
  }
  return nullptr;
}

Result<std::string> compile_seccomp(const SeccompProfile& profile) {
  const Context context(seccomp_init(SCMP_ACT_ERRNO(EPERM)), &seccomp_release);
  if (!context) return failure("seccomp_init", profile.name);
  const std::pair<scmp_filter_attr, std::uint32_t> attributes[] = {
      {SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS},
      {SCMP_FLTATR_CTL_OPTIMIZE, 2},  // a binary tree over the numbers instead of a list
  };
  for (const auto& [attribute, value] : attributes) {
    if (const int failed = seccomp_attr_set(context.get(), attribute, value); failed != 0) {
      return seccomp_failure("seccomp_attr_set", failed, profile.name);
    }
  }
  for (const SyscallRule& rule : profile.rules) {
    if (auto added = add_rule(context, rule); !added) return tl::unexpected(added.error());
  }
  auto program = export_program(context);
  if (!program) return program;
  std::string whole = unknown_calls_prologue() + *program;
  if (whole.size() > BPF_MAXINSNS * sizeof(sock_filter)) return failure("the filter is too long", profile.name);
  return whole;
}

}  // namespace kai
