// Seccomp profiles as BPF programs (struct sock_filter[]). Made here, installed by sandbox/confine.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "policies/profiles.h"

namespace kai {

/// Both programs decide the same; they differ in how a refusal is told.
struct Filter {
  std::string notifying;  ///< refusals are SECCOMP_RET_USER_NOTIF: the listener is told and answers
  std::string silent;     ///< refusals are the errno alone: where the kernel gives no listener
};

enum class Architecture { kX86_64, kAarch64 };
#if defined(__x86_64__)
inline constexpr Architecture kNativeArchitecture = Architecture::kX86_64;
#elif defined(__aarch64__)
inline constexpr Architecture kNativeArchitecture = Architecture::kAarch64;
#else
#error "kAI's filters are written for x86_64 and aarch64"
#endif

/// `extra_calls` are allowed whatever their arguments, in place of the profile's own rules for them (grant
/// syscalls:NAME). An error where one is unknown, or would let the agent hide its denials (seccomp, prctl). The
/// constants in the rules are those of the building machine: they are the same on both architectures, and no rule may
/// use one that is not.
Result<Filter> compile_filter(const SeccompProfile& profile, const std::vector<std::string>& extra_calls = {},
                              Architecture architecture = kNativeArchitecture);

/// The same by name and for this machine, made once in a process for each (profile, extra calls). Thread-safe.
Result<Filter> compiled_filter(std::string_view profile, const std::vector<std::string>& extra_calls);

}  // namespace kai
