#include "agent-host/serve.h"

#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>

#include "agent-host/bridge.h"
#include "agent-host/klp_link.h"
#include "agent-host/reap.h"
#include "agent-host/reconnect.h"
#include "agent-host/rpc_channel.h"
#include "agent-host/runner.h"
#include "agent-host/signing.h"
#include "base/text.h"

namespace kai {
namespace {

constexpr int kStatusNotRun = 126;  // as env(1) and shells say it
constexpr int kStatusNotFound = 127;
constexpr int kStatusInternal = 1;

/// Big buffers get their own mapping, which goes back to the kernel when they are freed; the heap keeps little slack.
void keep_heap_small() {
  mallopt(M_MMAP_THRESHOLD, 128 << 10);
  mallopt(M_TRIM_THRESHOLD, 128 << 10);
  mallopt(M_TOP_PAD, 16 << 10);
}

/// SIGCHLD and SIGTERM as a descriptor. SIGTERM has to be caught by a PID 1: without a handler the kernel drops it.
Fd signal_descriptor() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigaddset(&set, SIGTERM);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  return Fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

/// The runner has the agent's streams. Held here too, they would not end with the agent's processes.
void leave_standard_streams() {
  const Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  for (int fd = 0; fd <= 2; ++fd) {
    if (!null || dup2(null.get(), fd) < 0) close(fd);
  }
}

/// Says why there is no agent, and leaves nothing behind.
int report_failure(KlpLink& control, const RunnerFailure& failure, pid_t runner = 0) {
  klp::Envelope envelope;
  klp::StartFailed& failed = *envelope.mutable_start_failed();
  failed.set_step("exec");
  failed.set_errno_value(failure.error_number);
  failed.set_message(failure.message);
  control.send(envelope);
  control.flush_finally();
  kill_everything(runner);
  return failure.not_found ? kStatusNotFound : kStatusNotRun;
}

/// The one loop: poll(2) rather than epoll, as it has four descriptors and their interests change at every turn.
class Loop {
 public:
  Loop(const spec::SandboxSpec& spec, const SigningKey& key, KlpLink& control, KeeperLink& keeper, bool outlives_keeper,
       Runner runner, Fd signals)
      : control_(control),
        keeper_(keeper),
        outlives_keeper_(outlives_keeper),
        runner_(runner.pid),
        channel_(std::move(runner.channel)),
        signals_(std::move(signals)),
        bridge_(spec, key, control_, channel_, runner_) {}

  int run() {
    while (!end_ && !bridge_.kill_now()) turn();
    const auto last = kill_everything(runner_);
    if (!end_) end_ = last;
    // What the runner said before it ended still counts; nobody is left to add to it.
    while (bridge_.listens_to_runner() && channel_.receive()) take_lines();
    const int status = bridge_.on_runner_end(end_.value_or(ProcessEnd{true, SIGKILL}));
    control_.flush_finally();
    return status;
  }

 private:
  enum Source : std::size_t { kSignals, kControl, kChannel, kKeeper, kSources };

  void turn() {
    control_.flush();
    channel_.flush();
    auto sources = interests();
    if (poll(sources.data(), sources.size(), timeout()) < 0 && errno != EINTR) return bridge_.on_control_broken();
    bridge_.on_time(monotonic_ms());
    if (sources[kSignals].revents != 0) take_signals();
    if ((sources[kControl].revents & ~POLLOUT) != 0) take_envelopes();
    if (sources[kKeeper].revents != 0) take_reconnect((sources[kKeeper].revents & (POLLHUP | POLLERR)) != 0);
    if (control_.broken()) return bridge_.on_control_broken();
    if (sources[kChannel].revents != 0 && bridge_.listens_to_runner()) take_channel();
  }

  /// Who is waited for now: one who does not read what it has caused is not read either.
  std::array<pollfd, kSources> interests() const {
    std::array<pollfd, kSources> sources{};
    sources[kSignals] = {signals_.get(), POLLIN, 0};
    short control = control_.queued() > 0 ? POLLOUT : 0;
    if (control_.queued() < kQueuedFramesPauseControl && !bridge_.waits_for_runner()) control |= POLLIN;
    sources[kControl] = {control_.fd(), control, 0};
    short channel = channel_.queued() > 0 ? POLLOUT : 0;
    const bool listens = bridge_.listens_to_runner() && control_.queued() < kQueuedFramesPauseRunner;
    if (listens && !channel_.ended()) channel |= POLLIN;
    sources[kChannel] = {channel == 0 ? -1 : channel_.fd(), channel, 0};
    sources[kKeeper] = {keeper_.fd(), POLLIN, 0};
    return sources;
  }

  int timeout() const {
    const std::int64_t next = bridge_.next_deadline();
    if (next == kNever) return -1;
    return static_cast<int>(std::clamp<std::int64_t>(next - monotonic_ms(), 0, INT_MAX));
  }

  void take_signals() {
    signalfd_siginfo info{};
    while (read(signals_.get(), &info, sizeof info) == sizeof info) {
      if (info.ssi_signo == SIGTERM) bridge_.on_terminate();
    }
    end_ = reap(runner_);
  }

  /// False: nothing had come.
  bool take_envelopes() {
    const bool came = control_.receive();
    while (const auto envelope = control_.next()) bridge_.on_envelope(*envelope);
    if (control_.away()) {
      if (keeper_.ended() && !outlives_keeper_) bridge_.on_keeper_gone(false);
      bridge_.on_control_lost();
    }
    return came;
  }

  void take_reconnect(bool hung_up) {
    auto klp = keeper_.receive(hung_up);
    if (keeper_.ended()) bridge_.on_keeper_gone(outlives_keeper_);
    if (!klp) return;
    // A stop that the dead control had sent holds.
    while (!control_.away() && take_envelopes()) continue;
    if (control_.broken()) return;
    bridge_.on_reconnect(std::move(*klp));
    answer_lost_calls();
  }

  void take_channel() {
    channel_.receive();
    take_lines();
    if (channel_.ended() && !said_ended_) {
      said_ended_ = true;
      bridge_.on_channel_closed();
    }
  }

  void take_lines() {
    while (const auto line = channel_.next()) bridge_.on_line(*line);
    if (channel_.overlong()) bridge_.on_overlong_line();
  }

  KlpLink& control_;
  KeeperLink& keeper_;
  const bool outlives_keeper_;
  const pid_t runner_;
  RpcChannel channel_;
  Fd signals_;
  Bridge bridge_;
  std::optional<ProcessEnd> end_;  // the runner's
  bool said_ended_ = false;
};

}  // namespace

int serve(const spec::SandboxSpec& spec, SupervisorLinks links) {
  keep_heap_small();
  KlpLink control(std::move(links.klp));
  KeeperLink keeper(std::move(links.keeper));
  Fd signals = signal_descriptor();
  if (!signals) return kStatusInternal;
  auto runner = start_runner(spec);
  leave_standard_streams();
  if (!runner) return report_failure(control, runner.error());
  SigningKey key;
  if (const auto made = key.make(spec.crypto()); !made) {
    return report_failure(control, {made.error().error_number, "making the agent's key: " + made.error().what},
                          runner->pid);
  }
  Loop loop(spec, key, control, keeper, links.outlives_keeper, std::move(*runner), std::move(signals));
  return loop.run();
}

}  // namespace kai
