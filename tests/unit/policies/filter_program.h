// A profile's program in the interpreter, called by names and arguments.
#pragma once

#include <linux/audit.h>
#include <seccomp.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <vector>

#include <doctest/doctest.h>

#include "policies/filters.h"
#include "tests/unit/policies/bpf.h"

namespace kai::testing {

inline constexpr std::array kProfiles = {"base", "node", "python", "native"};
inline constexpr std::uint32_t kAllow = SECCOMP_RET_ALLOW;
inline constexpr std::uint32_t kRefused = SECCOMP_RET_USER_NOTIF;
inline constexpr std::uint32_t kEperm = SECCOMP_RET_ERRNO | EPERM;
inline constexpr std::uint32_t kEnosys = SECCOMP_RET_ERRNO | ENOSYS;
inline constexpr std::uint32_t kKill = SECCOMP_RET_KILL_PROCESS;
using Values = std::vector<std::uint64_t>;
inline constexpr std::uint64_t kHigh = 0xdeadbeef00000000U;  // bits of an int argument that the kernel does not read

constexpr std::uint32_t audit_arch(Architecture architecture) {
  return architecture == Architecture::kX86_64 ? AUDIT_ARCH_X86_64 : AUDIT_ARCH_AARCH64;
}
inline constexpr std::array kArchitectures = {Architecture::kX86_64, Architecture::kAarch64};

class Program {
 public:
  explicit Program(const char* profile, bool silent = false, Architecture architecture = kNativeArchitecture)
      : Program(compile_filter(*find_profile(profile), {}, architecture).value(), silent, architecture) {}
  Program(const Filter& filter, bool silent, Architecture architecture = kNativeArchitecture)
      : architecture_(architecture), program_(silent ? filter.silent : filter.notifying) {}

  using Arguments = std::array<std::uint64_t, 6>;

  std::uint32_t number(int number, const Arguments& arguments, std::uint32_t arch) const {
    seccomp_data data{.nr = number, .arch = arch};
    for (std::size_t at = 0; at < arguments.size(); ++at) data.args[at] = arguments[at];
    const auto answer = program_.run(data);
    REQUIRE(answer);
    return *answer;
  }
  std::uint32_t number(int number, const Arguments& arguments = {}) const {
    return this->number(number, arguments, audit_arch(architecture_));
  }
  /// Negative: the architecture does not have it.
  int resolve(const char* name) const {
    const std::uint32_t token = architecture_ == Architecture::kX86_64 ? SCMP_ARCH_X86_64 : SCMP_ARCH_AARCH64;
    const int resolved = seccomp_syscall_resolve_name_arch(token, name);
    REQUIRE_MESSAGE(resolved != __NR_SCMP_ERROR, name);
    return resolved;
  }
  std::uint32_t call(const char* name, const Arguments& arguments = {}) const {
    return number(resolve(name), arguments);
  }

 private:
  Architecture architecture_;
  BpfProgram program_;
};

}  // namespace kai::testing
