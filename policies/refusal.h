// Why a filter refused a system call, and what the call was, in words: for the log, the event and the errno that the
// notification is answered with.
#pragma once

#include <array>
#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>

namespace kai {

struct Refusal {
  std::string call;    ///< "unshare"; "syscall_451" where the number has no name here
  std::string text;    ///< "unshare(CLONE_NEWUSER)"
  std::string reason;  ///< one sentence
  std::string rule;    ///< "base.yaml:88", or "base.yaml (default)"
  int error_number = EPERM;
};

/// Pure. The arguments are struct seccomp_data's: pointers are told as numbers, what they point to could change while
/// one looks.
Refusal explain_refusal(std::string_view profile, std::uint32_t arch, std::int32_t number,
                        const std::array<std::uint64_t, 6>& arguments);

/// The call with its arguments, "socket(AF_ALG, SOCK_SEQPACKET, 0x0)": flags and commands of the calls that matter by
/// name, everything else in hex.
std::string describe_call(std::string_view call, const std::array<std::uint64_t, 6>& arguments);

}  // namespace kai
