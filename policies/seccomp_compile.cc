// A profile's rules as BPF, by libseccomp. Nothing is installed here: the bytes travel in the SandboxSpec.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "base/fd.h"
#include "base/unix.h"
#include "policies/filters.h"

namespace kai {
namespace {

using Context = std::unique_ptr<void, decltype(&seccomp_release)>;

// With seccomp an agent could put a filter of its own in front of this one and so hide its denials; prctl can do the
// same (PR_SET_SECCOMP).
constexpr std::array<std::string_view, 2> kNeverGranted = {"seccomp", "prctl"};
// libseccomp does not take SCMP_ACT_NOTIFY with an errno, and one compilation shall give both programs: so a refusal is
// compiled as SCMP_ACT_TRACE(errno), which no profile uses, and rewritten below.
constexpr std::uint32_t kRefusal = SECCOMP_RET_TRACE;
constexpr std::uint32_t kX32Bit = 0x40000000;  // x86: a call of the x32 ABI
// set_mempolicy_home_node(2) of Linux 5.17: the newest call that the profiles' authors have judged. A constant, not
// what libseccomp's tables know, so that a filter is the same with every libseccomp. From 424 on the numbers are the
// same on every architecture.
constexpr std::uint32_t kNewestJudged = 450;

struct Machine {
  std::uint32_t audit_arch;  // of the kernel
  std::uint32_t token;       // of libseccomp
};
Machine machine_of(Architecture architecture) {
  return architecture == Architecture::kX86_64 ? Machine{AUDIT_ARCH_X86_64, SCMP_ARCH_X86_64}
                                               : Machine{AUDIT_ARCH_AARCH64, SCMP_ARCH_AARCH64};
}

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

std::uint32_t action_of(const SyscallRule& rule) {
  const auto error_number = static_cast<std::uint32_t>(rule.error_number);
  switch (rule.action) {
    case SyscallRule::Action::kAllow:
      return SCMP_ACT_ALLOW;
    case SyscallRule::Action::kErrno:
      return SCMP_ACT_ERRNO(error_number);
    case SyscallRule::Action::kNotify:
      return SCMP_ACT_TRACE(error_number);
  }
  return SCMP_ACT_TRACE(EPERM);
}

Result<> add_rule(const Context& context, const SyscallRule& rule, const Machine& machine) {
  const int number = seccomp_syscall_resolve_name(rule.name.c_str());
  if (number == __NR_SCMP_ERROR) return failure("unknown system call in a seccomp profile", rule.name);
  // Negative: a call that the architecture does not have. libseccomp takes this machine's numbers and translates them.
  if (seccomp_syscall_resolve_name_arch(machine.token, rule.name.c_str()) < 0) return {};
  const std::uint32_t action = action_of(rule);
  if (action == SCMP_ACT_TRACE(EPERM)) return {};  // the default; the rule is there for its reason
  std::vector<scmp_arg_cmp> arguments;
  for (const SyscallRule::Argument& argument : rule.arguments) {
    const bool masked = argument.op == SyscallRule::Argument::Op::kMaskedEqual;
    arguments.push_back(
        {argument.index, operation(argument.op), masked ? argument.mask : argument.value, masked ? argument.value : 0});
  }
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
std::string unknown_calls_prologue(const Machine& machine) {
  const bool x86 = machine.audit_arch == AUDIT_ARCH_X86_64;
  const sock_filter prologue[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, machine.audit_arch, 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, kX32Bit, static_cast<unsigned char>(x86 ? 2 : 1), 0),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, kNewestJudged, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
  };
  std::string bytes(sizeof(prologue), '\0');
  std::memcpy(bytes.data(), prologue, sizeof(prologue));
  return bytes;
}

/// The refusals of `program` as notifications, or as their errno. Only return instructions change, so the program is as
/// long as before and every jump stays right.
std::string tell_refusals(std::string program, bool notify) {
  for (std::size_t at = 0; at + sizeof(sock_filter) <= program.size(); at += sizeof(sock_filter)) {
    sock_filter instruction;
    std::memcpy(&instruction, program.data() + at, sizeof instruction);
    if (instruction.code != (BPF_RET | BPF_K) || (instruction.k & SECCOMP_RET_ACTION_FULL) != kRefusal) continue;
    instruction.k = notify ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_ERRNO | (instruction.k & SECCOMP_RET_DATA);
    std::memcpy(program.data() + at, &instruction, sizeof instruction);
  }
  return program;
}

Result<> configure(const Context& context, const Machine& machine) {
  if (machine.token != seccomp_arch_native()) {
    if (const int failed = seccomp_arch_remove(context.get(), seccomp_arch_native()); failed != 0)
      return seccomp_failure("seccomp_arch_remove", failed, {});
    if (const int failed = seccomp_arch_add(context.get(), machine.token); failed != 0)
      return seccomp_failure("seccomp_arch_add", failed, {});
  }
  const std::pair<scmp_filter_attr, std::uint32_t> attributes[] = {
      {SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS},
      {SCMP_FLTATR_CTL_OPTIMIZE, 2},  // a binary tree over the numbers instead of a list
  };
  for (const auto& [attribute, value] : attributes) {
    if (const int failed = seccomp_attr_set(context.get(), attribute, value); failed != 0)
      return seccomp_failure("seccomp_attr_set", failed, {});
  }
  return {};
}

Result<> check_extra(const std::string& call) {
  if (std::find(kNeverGranted.begin(), kNeverGranted.end(), call) != kNeverGranted.end()) {
    return failure("a policy cannot grant this system call, as the agent could hide its denials with it:", call);
  }
  if (seccomp_syscall_resolve_name(call.c_str()) == __NR_SCMP_ERROR) {
    return failure("a policy grants a system call that this kernel interface does not have:", call);
  }
  return {};
}

}  // namespace

const SeccompProfile* find_profile(std::string_view name) {
  for (const SeccompProfile& profile : all_profiles()) {
    if (profile.name == name) return &profile;
  }
  return nullptr;
}

Result<Filter> compile_filter(const SeccompProfile& profile, const std::vector<std::string>& extra_calls,
                              Architecture architecture) {
  const Machine machine = machine_of(architecture);
  const Context context(seccomp_init(SCMP_ACT_TRACE(EPERM)), &seccomp_release);
  if (!context) return failure("seccomp_init", profile.name);
  if (auto done = configure(context, machine); !done) return tl::unexpected(done.error());
  for (const std::string& call : extra_calls) {
    if (auto done = check_extra(call); !done) return tl::unexpected(done.error());
    const SyscallRule granted{call, SyscallRule::Action::kAllow, 0, {}, {}, {}};
    if (auto added = add_rule(context, granted, machine); !added) return tl::unexpected(added.error());
  }
  for (const SyscallRule& rule : profile.rules) {
    if (std::find(extra_calls.begin(), extra_calls.end(), rule.name) != extra_calls.end()) continue;
    if (auto added = add_rule(context, rule, machine); !added) return tl::unexpected(added.error());
  }
  auto program = export_program(context);
  if (!program) return tl::unexpected(program.error());
  const std::string whole = unknown_calls_prologue(machine) + *program;
  if (whole.size() > BPF_MAXINSNS * sizeof(sock_filter)) return failure("the filter is too long", profile.name);
  return Filter{tell_refusals(whole, true), tell_refusals(whole, false)};
}

Result<Filter> compiled_filter(std::string_view name, const std::vector<std::string>& extra_calls) {
  static std::mutex mutex;
  static std::map<std::pair<std::string, std::vector<std::string>>, Filter> compiled;
  const SeccompProfile* profile = find_profile(name);
  if (profile == nullptr) return failure("no seccomp profile", std::string(name));
  std::vector<std::string> calls = extra_calls;  // in one order, each once
  std::sort(calls.begin(), calls.end());
  calls.erase(std::unique(calls.begin(), calls.end()), calls.end());
  const std::scoped_lock lock(mutex);
  const std::pair key(std::string(name), calls);
  if (const auto found = compiled.find(key); found != compiled.end()) return found->second;
  auto filter = compile_filter(*profile, calls);
  if (filter) compiled.emplace(key, *filter);
  return filter;
}

}  // namespace kai
