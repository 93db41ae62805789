// A classic BPF interpreter for seccomp programs: what the kernel would answer, without a kernel. It knows exactly the
// instructions that seccomp allows (kernel/seccomp.c, seccomp_check_filter) and rejects a program that the kernel
// would.
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

namespace kai::testing {

class BpfProgram {
 public:
  explicit BpfProgram(std::string_view bytes) : code_(bytes.size() / sizeof(sock_filter)) {
    std::memcpy(code_.data(), bytes.data(), code_.size() * sizeof(sock_filter));
  }

  [[nodiscard]] std::size_t size() const { return code_.size(); }

  /// SECCOMP_RET_*; nullopt where the program is not one that the kernel accepts.
  [[nodiscard]] std::optional<std::uint32_t> run(const seccomp_data& data) const {
    std::uint32_t accumulator = 0;
    for (std::size_t at = 0; at < code_.size(); ++at) {
      const sock_filter& instruction = code_[at];
      const std::uint32_t k = instruction.k;
      switch (instruction.code) {
        case BPF_LD | BPF_W | BPF_ABS: {
          if (k % 4 != 0 || k > sizeof data - 4) return std::nullopt;
          std::memcpy(&accumulator, reinterpret_cast<const char*>(&data) + k, 4);
          break;
        }
        case BPF_ALU | BPF_AND | BPF_K:
          accumulator &= k;
          break;
        case BPF_JMP | BPF_JA:
          at += k;
          break;
        case BPF_JMP | BPF_JEQ | BPF_K:
          at += accumulator == k ? instruction.jt : instruction.jf;
          break;
        case BPF_JMP | BPF_JGT | BPF_K:
          at += accumulator > k ? instruction.jt : instruction.jf;
          break;
        case BPF_JMP | BPF_JGE | BPF_K:
          at += accumulator >= k ? instruction.jt : instruction.jf;
          break;
        case BPF_JMP | BPF_JSET | BPF_K:
          at += (accumulator & k) != 0 ? instruction.jt : instruction.jf;
          break;
        case BPF_RET | BPF_K:
          return k;
        default:
          return std::nullopt;
      }
    }
    return std::nullopt;  // ran over the end
  }

 private:
  std::vector<sock_filter> code_;
};

}  // namespace kai::testing
