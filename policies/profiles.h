// The seccomp profiles as data: the table that policies/profiles/generate.cc makes of policies/profiles/*.yaml at build
// time. filters.h makes BPF of it, refusal.h explains with it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kai {

/// One system call and what becomes of it. Whatever has no rule is refused with a notification and EPERM; calls newer
/// than Linux 5.17 get ENOSYS.
struct SyscallRule {
  enum class Action {
    kAllow,
    kErrno,   ///< refused without a notification: harmless probes, and calls whose errno makes a libc fall back
    kNotify,  ///< refused with a notification, for a reason of its own
  };
  struct Argument {  ///< all of a rule's arguments must hold; (argument & mask) OP value
    unsigned index = 0;
    enum class Op { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kMaskedEqual } op = Op::kEqual;
    std::uint64_t value = 0;
    std::uint64_t mask = ~0ULL;  ///< kMaskedEqual only
  };
  std::string name;  ///< of the system call
  Action action = Action::kAllow;
  int error_number = 0;  ///< not with kAllow
  std::vector<Argument> arguments;
  std::string place;   ///< "base.yaml:88"
  std::string reason;  ///< one sentence, as the file says it
};
struct SeccompProfile {
  std::string name;
  std::vector<SyscallRule> rules;
};

const std::vector<SeccompProfile>& all_profiles();

/// base, node, python, native (design.md). nullptr: no such profile.
const SeccompProfile* find_profile(std::string_view name);

}  // namespace kai
