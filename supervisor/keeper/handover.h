// SIGUSR2: kaid becomes the program that is on disk now, by execve(2), so that its pid, its children, its locks and the
// descriptors that it leaves open stay what they are. proto/handover.proto says what it is told.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "proto/handover.pb.h"

namespace kai::keeper {

/// Of handover::State: a kaid takes over from one that writes the same.
inline constexpr std::uint32_t kHandoverVersion = 3;

/// Where the program that runs has its file: also after another one has taken that name.
Result<std::string> own_program();

/// Runs `program --check-handover VERSION` with the arguments and environment of this one, for at most some seconds:
/// whether it would take over, and whether configuration and policies are such that it would serve.
Result<> check_next(const std::string& program);

/// Descriptors that are to stay open across execve(2); closed on exec again at the end of its life, where there was
/// none.
class Inheritance {
 public:
  Inheritance() = default;
  ~Inheritance();
  Inheritance(const Inheritance&) = delete;
  Inheritance& operator=(const Inheritance&) = delete;
  /// The number to be written down; 0: there is no descriptor.
  std::int32_t add(const Fd& fd);

 private:
  std::vector<int> fds_;
};

/// Becomes `program`. Returns only where that fails; nothing has changed then.
Error exec_next(const std::string& program, const handover::State& state);

/// The state in a sealed memfd.
Result<handover::State> read_state(const Fd& memfd);

/// What the program before left to this one; nullopt: there was none.
Result<std::optional<handover::State>> take_inheritance();

/// Owns a descriptor that the program before left, close-on-exec; empty: it left none.
Fd inherited(std::int32_t number);

}  // namespace kai::keeper
