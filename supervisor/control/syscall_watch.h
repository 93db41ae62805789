// The notification listener of one instance's seccomp filter (seccomp_unotify(2)): every system call that the filter
// refuses waits here for its errno. It is always an errno, never "continue": what a process may do is the filter's
// decision, and nothing that it writes into its memory meanwhile can change the answer.
//
// A refused call costs its process a wait and control some 30 us. Each instance has a budget; beyond it its listener is
// left unread for a moment, which slows only that agent.
//
// What an earlier control had received is answered when agent-host asks for it (proto/reserved_call.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/fd.h"
#include "supervisor/control/denials.h"
#include "supervisor/control/keeper_client.h"
#include "supervisor/loop/event_loop.h"

namespace kai {

class SyscallWatch {
 public:
  /// `profile`: of the filter, to find the rule. `keeper` is asked who a process is, while that one waits.
  SyscallWatch(EventLoop& loop, KeeperClient& keeper, std::uint64_t instance, std::string profile, Fd listener,
               DenialLog& denials);
  ~SyscallWatch();
  SyscallWatch(const SyscallWatch&) = delete;
  SyscallWatch& operator=(const SyscallWatch&) = delete;

 private:
  struct Call;

  void readable();
  bool take_one();
  void tell(const Call& call, Denial denial);
  void answer(const Call& call) const;
  void answer_lost(std::uint64_t last);
  [[nodiscard]] bool ended() const;

  KeeperClient& keeper_;
  std::uint64_t instance_;
  std::string profile_;
  Fd listener_;
  DenialLog& denials_;
  LogBudget budget_;
  bool lost_answered_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::unique_ptr<Poll> poll_;
  Timer pause_;
};

}  // namespace kai
