#include "supervisor/control/syscall_watch.h"

#include <linux/seccomp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/text.h"
#include "policies/refusal.h"
#include "proto/reserved_call.h"

namespace kai {
namespace {

constexpr std::uint32_t kCallsPerSecond = 1000;
constexpr int kCallsPerRound = 32;  // then the other agents have their turn
// How many were received since the oldest that is not answered: an answer waits for one round trip to the keeper, so
// this is the budget of four seconds. ENOENT costs 0.3 us each.
constexpr std::uint64_t kLostCalls = 4 * kCallsPerSecond;
constexpr std::chrono::milliseconds kPause{20};

std::string error_name(int number) {
  const char* name = strerrorname_np(number);
  return name != nullptr ? name : std::to_string(number);
}

}  // namespace

struct SyscallWatch::Call {
  std::uint64_t id;
  int pid;  // on the host; 0: it is in a pid namespace that is not below this one
  int error_number;
};

SyscallWatch::SyscallWatch(EventLoop& loop, KeeperClient& keeper, std::uint64_t instance, std::string profile,
                           Fd listener, DenialLog& denials)
    : keeper_(keeper),
      instance_(instance),
      profile_(std::move(profile)),
      listener_(std::move(listener)),
      denials_(denials),
      budget_(kCallsPerSecond, monotonic_ms()),
      poll_(std::make_unique<Poll>(loop, listener_.get(), [this](int) { readable(); })),
      pause_(loop) {
  poll_->watch(UV_READABLE);
}

SyscallWatch::~SyscallWatch() {
  *alive_ = false;
}

void SyscallWatch::readable() {
  for (int taken = 0; taken < kCallsPerRound; ++taken) {
    if (!budget_.take(monotonic_ms())) {
      poll_->watch(0);
      pause_.start(kPause, [this] { poll_->watch(UV_READABLE); });
      return;
    }
    if (!take_one()) break;
  }
  // Nobody is left under the filter: the descriptor would wake the loop for ever.
  if (ended()) poll_->watch(0);
}

bool SyscallWatch::ended() const {
  pollfd state{.fd = listener_.get(), .events = POLLIN, .revents = 0};
  return poll(&state, 1, 0) == 1 && (state.revents & POLLIN) == 0;
}

bool SyscallWatch::take_one() {
  pollfd state{.fd = listener_.get(), .events = POLLIN, .revents = 0};
  // SECCOMP_IOCTL_NOTIF_RECV waits where there is nothing.
  if (poll(&state, 1, 0) != 1 || (state.revents & POLLIN) == 0) return false;
  seccomp_notif request{};  // has to be zero (seccomp_unotify(2))
  if (ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_RECV, &request) < 0) return errno == EINTR;
  if (request.data.nr == SYS_seccomp && request.data.args[0] == kReservedOperation) {
    answer(Call{request.id, static_cast<int>(request.pid), EPERM});
    answer_lost(request.id);
    return true;
  }
  std::array<std::uint64_t, 6> arguments{};
  std::memcpy(arguments.data(), request.data.args, sizeof arguments);
  const Refusal refusal = explain_refusal(profile_, request.data.arch, request.data.nr, arguments);
  const Call call{request.id, static_cast<int>(request.pid), refusal.error_number};
  if (!denials_.reserve()) {
    denials_.count(1);
    answer(call);
    return true;
  }
  Denial denial;
  denial.kind = Denial::Kind::kSyscall;
  denial.what = refusal.call;
  denial.detail = refusal.text;
  denial.reason = refusal.reason;
  denial.rule = refusal.rule;
  denial.error = error_name(refusal.error_number);
  tell(call, std::move(denial));
  return true;
}

// The process waits in its call until it is answered, so that its number still means it.
void SyscallWatch::tell(const Call& call, Denial denial) {
  keeper::Request request;
  request.mutable_describe()->set_instance(instance_);
  request.mutable_describe()->set_pid(call.pid);
  keeper_.request(std::move(request), {},
                  [this, alive = alive_, call, denial = std::move(denial)](const keeper::Reply& reply,
                                                                           const std::vector<Fd>&) mutable {
                    if (!*alive) return;
                    denial.process = reply.process().name();
                    denial.pid = reply.process().pid();
                    denials_.write_reserved(denial);
                    answer(call);
                  });
}

// A number below `last` is answered already (ENOENT), or was received by a control that died, and its process waits
// for this. Once is enough, and an agent that asks again and again holds up nobody.
void SyscallWatch::answer_lost(std::uint64_t last) {
  if (std::exchange(lost_answered_, true)) return;
  for (std::uint64_t before = 1; before <= kLostCalls; ++before) answer(Call{last - before, 0, EPERM});
}

void SyscallWatch::answer(const Call& call) const {
  seccomp_notif_resp response{};
  response.id = call.id;
  response.error = -call.error_number;
  // ENOENT: it was killed meanwhile.
  static_cast<void>(ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_SEND, &response));
}

}  // namespace kai
