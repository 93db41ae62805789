// The state machine between control (KLP) and the runner (JSON-RPC): what is said to one because of what came from the
// other. It never waits and makes no system call but kill(2) on the runner's process group; serve.cc is its loop.
//
//   hello ──accepted──► init ──ok──► start ──ok──► serving ──stop──► stopping ──► the runner's end
//   (protocol none: hello ──accepted──► serving)
//   (Accepted.held: hello ──accepted──► held ──COMMIT──► serving; control asks for init, start and more by HookCall)
//
// While it serves, control may load another version beside it and make that one serve (bridge_hooks.cc).
//
// Control may die at any of them and be started again: the agent goes on, and says Resume (or its hello, where that was
// never answered) on the socket to the next control. Meanwhile the runner's requests fail as UNAVAILABLE.
//
// bridge.cc: life cycle and time. bridge_control.cc: what control sends. bridge_runner.cc: what the runner sends.
// bridge_memory.cc: memory.*, both ways. bridge_hooks.cc: the steps of upgrades, snapshots and held starts.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "agent-host/deadline_table.h"
#include "agent-host/health.h"
#include "agent-host/klp_link.h"
#include "agent-host/klp_message.h"
#include "agent-host/limits.h"
#include "agent-host/memory_json.h"
#include "agent-host/reap.h"
#include "agent-host/rpc_channel.h"
#include "agent-host/signing.h"
#include "proto/sandbox_spec.pb.h"

namespace kai {

class Bridge {
 public:
  /// `key`, `control` and `channel` outlive the bridge. `runner` has been exec'd.
  Bridge(const spec::SandboxSpec& spec, const SigningKey& key, KlpLink& control, RpcChannel& channel, pid_t runner);

  // What has happened, in the order in which it did.

  void on_envelope(const klp::Envelope& envelope);
  /// Control died.
  void on_control_lost();
  /// The keeper brought the socket to another control, whether or not the loss of the one before was seen.
  void on_reconnect(Fd klp);
  /// Control sent what is no KLP, or refused the agent: it ends.
  void on_control_broken();
  /// Nobody is left who could bring another control. `outlived`: the agent waits kKeeperPatienceMs.
  void on_keeper_gone(bool outlived);
  void on_line(std::string_view line);
  /// The runner sent more than kMaxLineBytes without a line feed.
  void on_overlong_line();
  /// The runner closed descriptor 3. It may be about to exit, and gets kClosedChannelExitMs for that.
  void on_channel_closed();
  /// SIGTERM to agent-host.
  void on_terminate();
  /// Called once a turn of the loop: acts on every deadline that has passed.
  void on_time(std::int64_t now);

  /// When on_time() has something to do, at the latest; kNever.
  [[nodiscard]] std::int64_t next_deadline() const;
  /// Everything in the sandbox has to be killed now; nothing more is read.
  [[nodiscard]] bool kill_now() const { return kill_now_; }
  /// The runner is read only when control has accepted the agent: so control hears of a runner only while serving.
  [[nodiscard]] bool listens_to_runner() const { return answered_ && !kill_now_; }
  /// The runner is slow to read the answers that it has asked for: control is not read meanwhile, as its next ones
  /// would find no room. Not for longer than a deadline: then nothing is asked for any more.
  [[nodiscard]] bool waits_for_runner() const {
    return memory_calls_.size() > 0 && channel_.queued() > kQueuedLinesPauseControl;
  }

  /// Last words: how the runner ended. Returns agent-host's own exit status.
  int on_runner_end(const ProcessEnd& end);

 private:
  enum class Phase { kHello, kInit, kStart, kHeld, kServing, kStopping };
  struct HealthCall {
    std::uint64_t id = 0;
    std::uint64_t sequence = 0;
    std::int64_t deadline = kNever;
  };
  struct OpenHookCall {
    std::uint64_t id = 0;  // of the HookCall
    klp::HookCall::Hook hook = klp::HookCall::UNSPECIFIED;
    std::uint64_t rpc_id = 0;
  };
  struct OpenMemoryCall {
    MemoryCall call;
    std::string rpc_id;
  };

  // bridge.cc
  void fill_hello(klp::Hello& hello) const;
  [[nodiscard]] klp::Envelope greeting() const;
  void forget_control();
  void reconnected();
  std::uint64_t call(std::string_view method, std::string_view params_json, std::size_t queue_limit);  // 0: not taken
  void call_hook(Phase phase, std::string_view method, std::string_view params_json);
  void started();
  void start_failed(std::string_view step, const std::string& message, const std::string& details_json);
  void stop(std::int64_t grace_ms);
  void violation(const std::string& message);
  void log(std::string_view level, std::string_view message, std::string_view fields_json);
  void signal_runner(int number) const;
  void expire_calls();

  // bridge_control.cc
  [[nodiscard]] bool legal(klp::Envelope::KindCase kind) const;
  [[nodiscard]] bool stopped() const;
  void on_accepted(const klp::Accepted& accepted);
  void on_message(const std::string& bytes);
  void deliver(const klp::Message& message);
  std::optional<KlpError> try_deliver(const klp::Message& message);
  void notify(const klp::Message& message);
  void answer_send(const klp::Message& message);
  void on_event_refused(const klp::Message& message);
  void on_health_request(std::uint64_t sequence);
  void append_init_members(std::string& json, const klp::Load& version, std::string_view manifest_json) const;

  // bridge_runner.cc
  void broken_line();
  bool first_word(const RpcMessage& message);  // false: no runner protocol that we speak
  void on_answer(const RpcMessage& message);
  void on_hook_answer(const RpcMessage& message);
  void on_message_answer(const RpcMessage& message, const Correspondent& to);
  klp::HealthReport health_said(const RpcMessage& message, FailedChecks& failed) const;
  void on_notification(const RpcMessage& message);
  void on_request(const RpcMessage& message);
  void on_send(const RpcMessage& message);
  void on_emit(const RpcMessage& message);
  void publish(const klp::Message& event, std::string_view rpc_id, std::string_view result_json);
  void refuse(const RpcMessage& message, RpcCode code, const KlpError& error);
  void answer_runner(const std::string& line);

  // bridge_memory.cc
  void on_memory(const RpcMessage& message, MemoryCall call);
  void on_memory_answer(const klp::MemoryAnswer& answer);
  void abandon(const klp::MemoryAnswer& answer);  // nobody waits for it
  void expire_memory();

  // bridge_hooks.cc
  void on_hook_call(const klp::HookCall& asked);
  [[nodiscard]] std::optional<KlpError> out_of_place(const klp::HookCall& asked) const;
  void without_runner(const klp::HookCall& asked);
  [[nodiscard]] std::string hook_params(const klp::HookCall& asked) const;
  bool ask_runner(const klp::HookCall& asked, std::string_view params_json);  // false: control was told why not
  void serve_held(std::uint64_t id);
  void discard(const klp::HookCall& asked);
  void on_hook_returned(const RpcMessage& message);
  [[nodiscard]] std::optional<KlpError> hook_error(klp::HookCall::Hook hook, const RpcMessage& message) const;
  void on_commit_answer(const RpcMessage& message);
  void hook_done(const klp::HookDone& done);
  void hook_failed(std::uint64_t id, const KlpError& error);
  [[nodiscard]] bool committing() const;
  void serve_next();
  void drop_next();
  void forget_hook_call();

  void send_message(const klp::Message& message);
  void report_health(std::uint64_t sequence, klp::HealthReport report);
  [[nodiscard]] HealthBasis health_basis() const;

  const spec::SandboxSpec& spec_;
  const SigningKey& key_;
  KlpLink& control_;
  RpcChannel& channel_;
  const pid_t runner_;

  Phase phase_ = Phase::kHello;
  klp::Load serving_;             // version, capabilities and permissions of what serves, or is to
  std::uint32_t soft_swaps_ = 0;  // versions that the runner has changed to
  bool refused_ = false;          // control said refused: no more may be said to it
  bool answered_ = false;         // a control said accepted: to the next one the agent says Resume
  bool connected_ = false;        // this control knows the agent: it said accepted or resumed
  bool spoken_ = false;           // the runner's first valid line has come
  bool kill_now_ = false;
  std::optional<int> status_;  // exit status, where it is not the runner's
  std::optional<klp::StartFailed> start_failure_;
  int broken_lines_ = 0;

  // Of Accepted.
  std::uint32_t max_in_flight_ = kDefaultInFlight;
  std::size_t max_payload_ = kMaxFrameBytes;
  std::int64_t message_deadline_ms_ = kDefaultMessageDeadlineMs;

  // Questions to the runner. Ids are never used twice: an answer to a forgotten question is known as late.
  std::uint64_t last_call_ = 0;
  std::uint64_t hook_call_ = 0;  // init, start or shutdown, by phase_; 0: none
  std::optional<HealthCall> health_call_;
  FailedChecks failed_checks_;
  std::optional<OpenHookCall> open_hook_;
  std::uint64_t commit_call_ = 0;  // the last `commit`, until it is answered, whether or not control still waits for it
  std::optional<klp::Load> next_;  // beside the version that serves, from its LOAD on until COMMIT or DISCARD
  bool ready_ = false;             // the held or loaded version's START has returned
  DeadlineTable<std::uint64_t, Correspondent> messages_;
  // The runner's klp.send, by the KLP id: its JSON-RPC id.
  DeadlineTable<std::string, std::string> sends_;
  // Events lately sent, by their KLP id: where to. Only an error comes back.
  DeadlineTable<std::string, std::string> events_;
  // The runner's memory.*, by the id of the MemoryRequest. Ids are never used twice.
  std::uint64_t last_memory_call_ = 0;
  DeadlineTable<std::uint64_t, OpenMemoryCall> memory_calls_;

  // Times, monotonic unless they say otherwise.
  std::int64_t now_;
  const std::int64_t started_at_;
  std::int64_t last_activity_unix_ms_;
  std::int64_t terminate_at_ = kNever;      // SIGTERM
  std::int64_t kill_at_ = kNever;           // SIGKILL
  std::int64_t channel_deadline_ = kNever;  // the runner closed descriptor 3 and has to be gone by then
  std::int64_t keeper_deadline_ = kNever;   // the keeper is gone
};

}  // namespace kai
