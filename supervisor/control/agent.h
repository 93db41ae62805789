// A registered agent: its place in the lifecycle, and the instance that runs now. It carries out the effects that
// lifecycle.h decides on. agent.cc: what operators ask and how a transition is made; agent_life.cc: what becomes of the
// instance, and what that means; agent_messages.cc: what others say to it, and it to others; agent_held.cc: what waits
// meanwhile; agent_memory.cc: what it keeps; agent_upgrade.cc: another version takes its place.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>

#include "policies/compile.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/connection_log.h"
#include "supervisor/control/environment.h"
#include "supervisor/control/health.h"
#include "supervisor/control/held_requests.h"
#include "supervisor/control/instance.h"
#include "supervisor/control/lifecycle.h"
#include "supervisor/control/memory_context.h"
#include "supervisor/control/output_pipes.h"
#include "supervisor/control/quarantine.h"
#include "supervisor/control/restart_policy.h"
#include "supervisor/control/upgrade.h"

namespace kai {

class Agent {
 public:
  using Done = std::function<void(Outcome<>)>;
  enum class Goal { kUp, kDown, kTerminated };

  Agent(Environment& environment, RegisteredAgent row, Manifest manifest);
  ~Agent() { alive_.reset(); }  // before what is called back while its parts go
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  // What operators ask for. Each is taken at once; wait() tells when it is reached. `asked_by` names the one who asks
  // in the records of what follows.
  void asked_by(std::uint32_t uid) { operator_uid_ = uid; }
  Outcome<> start();
  Outcome<> stop();
  Outcome<> restart();
  Outcome<> terminate();
  /// Out of service until recover(), which starts it anew and only then ends the quarantine. `force`: beyond
  /// maxRetries.
  Outcome<> quarantine(QuarantineReason reason);
  Outcome<> recover(bool force);
  /// kaid's own start of an agent that is desired running: crashes are met with backoff from the first.
  void start_at_boot();
  /// kaid ends: `desired` stays as it is.
  void shut_down();
  /// A quarantine that the control before this one began and did not finish: recorded, isolated, evidence kept.
  void finish_quarantine();
  /// An instance of it outlived the control before this one, or ended meanwhile.
  void adopt(KeeperClient::Adoption adoption);

  /// `done` is called once, when the goal is reached, can no longer be reached, or not within `timeout`.
  void wait(Goal goal, std::chrono::milliseconds timeout, Done done);

  /// A request to it, from whom `message.from` says; 0: the policy's deadline. See KlpChannel::request for the rest.
  void deliver(klp::Message message, std::chrono::milliseconds deadline, KlpChannel::Answer answer);
  /// Why nothing can be recorded now: what cannot be is not accepted.
  [[nodiscard]] std::optional<Failure> unrecordable() const { return environment_.audit.refusal(); }
  /// A message of its own was accepted, and goes where it is to go.
  void note_sent(const klp::Message& message);
  /// The answers to a request of its own. Nothing where it ended meanwhile.
  void answer(const klp::Message& request, klp::Message response);
  void answer_error(const klp::Message& request, const Failure& failure);
  /// An event of a topic that it may read. Dropped where it does not serve. false: lost, as it reads too slowly.
  [[nodiscard]] bool deliver_event(const klp::Message& event);
  /// What it may do with others' resources: manifest ∩ policy, as it was started.
  [[nodiscard]] const std::vector<Permission>& permissions() const;
  /// What it keeps, for operators, other agents and the end of it.
  [[nodiscard]] MemoryContext& memory() { return memory_; }
  [[nodiscard]] const MemoryContext& memory() const { return memory_; }
  /// It tried to read memory that it may not: one line of the log, counted.
  void deny_memory(std::string_view of, const std::string& reason);
  /// It tried to reach `to` and may not: one line of the log, counted.
  void deny(const klp::Message& message, const std::string& reason);

  /// Of one that runs: another version takes its place (upgrade.h). The caller has a claim.
  void upgrade(UpgradeOrder order, Upgrade::Done done);
  /// Another version took its place while it did not run: the record of it.
  void note_replaced(const UpgradeReport& report);
  /// Of the control before: whether this instance of it is the one that goes on.
  [[nodiscard]] bool wants(std::uint64_t instance) const;
  /// Of the control before, and nothing of the agent lives.
  void finish_interrupted_upgrade();
  /// Held from the order to the end of one upgrade, rollback or restore: there is one at a time. nullptr: there is one.
  [[nodiscard]] std::shared_ptr<void> claim();
  /// Empty: no upgrade is under way, and none on probation.
  [[nodiscard]] const std::optional<UpgradeRecord>& upgrade_record() const { return upgrade_record_; }
  /// The process of a version before is still there.
  [[nodiscard]] bool is_leaving() const { return !leaving_.empty(); }
  /// Whether `kaictl rollback` has somewhere to go.
  [[nodiscard]] bool rollback_available() const;
  /// How many versions its process has been through without a start.
  [[nodiscard]] std::uint32_t soft_swaps() const { return soft_swaps_; }
  /// Why `to`, compiled, cannot run in its process; empty: it can.
  [[nodiscard]] std::string needs_new_process(const Manifest& to, const Compiled& to_compiled) const;

  /// What saveState gives now, JSON: of one that runs and speaks the runner protocol, else empty. Requests wait from
  /// then on until release_messages(), which the caller owes whatever `done` said. CONFLICT where an upgrade or another
  /// snapshot is under way.
  void save_state(std::function<void(Outcome<std::string>)> done);
  void release_messages();

  /// Expired once the agent is unregistered: for who holds it across the loop's turns.
  [[nodiscard]] std::weak_ptr<bool> alive() const { return alive_; }

  /// Another version takes the place of the active one; nothing may be running.
  void replace(RegisteredAgent row, Manifest manifest);
  /// The sandbox's description, made once per version and policy. An error refuses the start.
  Result<const PreparedSandbox*> prepared();
  /// The operator's policies were read anew. What runs keeps its sandbox until its next start; `true`: that one will
  /// differ.
  bool policies_changed();

  /// Health, asked for now and answered from the last report where the agent is slower than `deadline`.
  void health(std::chrono::milliseconds deadline, std::function<void(std::string json)> answer);

  /// Whom it may reach, by the policies of now; nullopt: nobody, or it has the host's network.
  [[nodiscard]] std::optional<egress::Rules> network() const;
  [[nodiscard]] const std::optional<QuarantineRecord>& quarantined() const { return quarantine_; }
  [[nodiscard]] const RegisteredAgent& row() const { return row_; }
  [[nodiscard]] const Manifest& manifest() const { return manifest_; }
  [[nodiscard]] State state() const { return state_; }
  [[nodiscard]] const Instance* instance() const { return instance_.get(); }
  [[nodiscard]] std::int64_t uptime_ms() const;
  [[nodiscard]] std::uint32_t restarts() const { return restarts_; }
  /// In state backoff: the pause, and when it is over.
  struct Backoff {
    std::int64_t delay_ms = 0, until_unix_ms = 0;
  };
  [[nodiscard]] const Backoff& backoff() const { return backoff_; }
  [[nodiscard]] std::uint32_t crashes() const;
  [[nodiscard]] std::uint64_t denials() const { return denials_.total(); }
  [[nodiscard]] const PolicyRef& governing() const { return instance_ ? instance_->policy() : policy_; }
  /// The layers that it runs without, or last ran without.
  [[nodiscard]] const std::vector<std::string>& degraded() const {
    return instance_ ? instance_->degraded() : last_degraded_;
  }
  /// That governs it now: while it runs, the one that it was started under.
  [[nodiscard]] const Policy& policy() const { return *governing(); }
  [[nodiscard]] Package package() const;
  /// What the exposure score and policy explain are made of.
  [[nodiscard]] Result<Compiled> description() const;
  /// No instance, and none is about to come.
  [[nodiscard]] bool idle() const;
  /// The control before had begun to run it, and it had not come to rest.
  [[nodiscard]] bool was_active() const { return row_.state == kActive; }
  /// How often an operator has asked for its end: whoever means to start it later sees whether that has changed.
  [[nodiscard]] std::uint64_t stops() const { return stops_; }

 private:
  friend class Upgrade;
  static constexpr const char* kActive = "active";  // in the registry: not at rest

  struct Waiter {
    Waiter(Goal wanted, std::uint64_t current_life, Done action, EventLoop& loop)
        : goal(wanted), life(current_life), done(std::move(action)), timer(loop) {}
    Goal goal;
    std::uint64_t life;
    Done done;
    Timer timer;
  };

  Outcome<> apply(Event event);
  /// One line of the log and one record of the audit.
  void report(LogLevel level, std::string_view event, std::string_view message,
              std::initializer_list<LogField> fields = {});
  void carry_out(Effect effect);
  void set_desired(Desired desired);
  void enter(State state);

  /// A version whose place another one has taken, or could not take, until its process is gone.
  struct Leaving {
    std::unique_ptr<OutputPipes> output;
    std::unique_ptr<Instance> instance;
    std::set<std::uint64_t> transactions;  ///< of its IndexedDB, that it has not ended
  };

  // agent_upgrade.cc
  void report_activated(Instance& instance, const std::string& version);
  void take_version(const RegisteredVersion& version, const Manifest& manifest, const PreparedSandbox& sandbox,
                    std::unique_ptr<Instance> standby, std::unique_ptr<OutputPipes> output);
  void stop_leaving();
  void leave(std::unique_ptr<Instance> instance, std::unique_ptr<OutputPipes> output);
  void drop_leaving(std::unique_ptr<Instance> instance, std::unique_ptr<OutputPipes> output);
  void upgrade_over(UpgradeReport& report, const Upgrade::Done& done, bool serves);
  void report_upgrade(const UpgradeReport& report);
  void activate(const RegisteredVersion& version, const Manifest& manifest);
  void use_version(RegisteredAgent row, Manifest manifest);
  void begin_probation(const UpgradeReport& report);
  void watch_probation();
  void end_probation();
  void settle_upgrade();
  void note_fallen_back(const std::string& failure);
  [[nodiscard]] bool may_fall_back(const End& end) const;
  bool fall_back(const End& end);
  void set_upgrade_record(std::optional<UpgradeRecord> record);
  std::optional<Event> judge_upgrade(const End& end);
  void abandon_upgrade(const std::string& why);
  [[nodiscard]] std::optional<KlpIdentity> other_identity() const;
  void settle_adopted_upgrade();
  void report_interrupted(const std::string& serving);
  void start_from_state();
  [[nodiscard]] Instance* instance_numbered(std::uint64_t number) const;

  // agent_held.cc
  void hold();
  void hold_request(klp::Message message, std::chrono::milliseconds deadline, KlpChannel::Answer answer);
  void drain(std::function<void(Outcome<>)> done);
  void release();
  void feed();
  void deliver_held(QueuedRequest request);
  void fail_held();

  void spawn();
  void launch();
  void launch_with_memory();
  void on_memory_ready(MemoryOutcome<>&& ready);
  /// What a start came to that never launched anything: stopped before, refused, or refused for now.
  enum class Unlaunched { kStopped, kRefused, kForNow };
  void end_unlaunched(const std::string& message, Unlaunched why);
  void on_memory(Instance& from, klp::MemoryRequest&& request);
  void answer_memory(std::uint64_t instance, klp::MemoryAnswer&& said);
  [[nodiscard]] bool may_write(const Instance& from) const;
  void clear_volatile();
  void refuse_spawn(const std::string& why);
  void adopt_ended(const keeper::Adoptable& found, const PreparedSandbox* sandbox);
  void on_resumed(const klp::Resume& resume);
  Instance::Handlers instance_handlers(Instance& instance, OutputPipes& output);
  void on_activated();
  void register_key();
  [[nodiscard]] std::optional<std::string> known_key(std::uint64_t instance) const;
  void on_started();
  void on_message(Instance& from, const klp::Message& message);
  KlpChannel* channel_for(const klp::Message& request);
  void on_ended(const End& end);
  Event judge(const End& end);
  Event condemn(QuarantineType type, Severity severity, const std::string& description);
  void watch_health();
  HealthMonitor::Findings findings();
  void arm_backoff();

  Outcome<> aggravate(QuarantineReason reason);
  void begin_quarantine();
  void report_quarantine();
  void leave_quarantine();
  Event recovery_failed(const End& end);
  void count_retry(const std::string& why);
  void save_rest(State state);
  void isolate();
  void keep_evidence(const std::string& processes, const std::string& missing);
  /// Ends what is frozen, then `event`. false: nothing is.
  bool end_isolated(Event event);
  void report_transition(State from);
  Outcome<> refused(std::string_view code, Event event) const;

  void settle();
  void acknowledge(const Outcome<>& outcome, const Done& done);
  [[nodiscard]] std::optional<Outcome<>> outcome_of(const Waiter& waiter) const;
  [[nodiscard]] Failure start_failure() const;
  void check(const Result<>& written);

  void update_network();
  void too_many_denials(bool mostly_limits);
  std::optional<Failure> refusal();
  [[nodiscard]] std::optional<Failure> not_served(const std::string& capability) const;
  void record_message(std::string_view event, const klp::Message& message, std::string_view outcome);
  void note_answer(const klp::Message& request, const Outcome<klp::Message>& outcome);

  Environment& environment_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  RegisteredAgent row_;
  Manifest manifest_;
  PolicyRef policy_;
  std::optional<PreparedSandbox> prepared_;
  State state_;
  RestartPolicy restart_policy_;
  std::optional<End> last_end_;
  std::optional<QuarantineRecord> quarantine_;
  std::optional<QuarantineReason> pending_quarantine_;  // for the transition that is about to be made
  bool recovering_ = false;                             // the start that runs is a recovery
  bool forced_ = false;                                 // beyond maxRetries
  std::deque<bool> resource_ends_;                      // of the last crashes: memory, processes or disk
  std::optional<std::uint32_t> operator_uid_;           // who asked for what happens now; empty: kaid itself
  std::uint64_t received_ = 0, sent_ = 0;               // messages, since kaid began
  MemoryContext memory_;
  bool clearing_memory_ = false;       // it is terminated, and what was volatile is about to be gone
  bool opening_memory_ = false;        // the start waits for it
  std::uint64_t memory_refusals_ = 0;  // while it waits
  std::deque<std::string> headers_;    // of the last messages, for the evidence
  bool automatic_ = false;             // this start is kaid's own doing
  std::uint32_t restarts_ = 0;
  std::uint64_t ended_instance_ = 0;  // that ended while there was no control
  std::uint64_t stops_ = 0;
  std::uint64_t life_ = 0;  // counts instances
  std::optional<Event> follow_up_;
  std::int64_t start_asked_at_ = 0, up_since_ = 0;  // monotonic ms
  std::unique_ptr<OutputPipes> output_;
  DenialLog denials_;
  ConnectionLog connections_;
  std::vector<std::string> last_degraded_;
  HeldRequests held_;
  bool holding_ = false, feeding_ = false;
  std::function<void(Outcome<>)> draining_;
  Timer drain_timer_;
  std::weak_ptr<void> claim_;
  std::optional<UpgradeRecord> upgrade_record_;
  std::uint32_t soft_swaps_ = 0;
  bool lost_in_upgrade_ = false;               // the process that served ended in the middle of one
  const Instance* speaking_ = nullptr;         // whose request is being judged, where it is not instance_
  std::optional<UpgradeReport> falling_back_;  // the way back that kaid itself takes now
  double fell_back_at_ = 0;
  std::string restoring_;  // the saved state that the start under way goes on from, JSON
  std::vector<UpgradeStep> restore_steps_;
  std::unordered_map<std::string, std::uint64_t> askers_;  // while there are several instances: whose request it was
  std::list<Leaving> leaving_;
  std::unique_ptr<Instance> instance_;
  std::unique_ptr<HookSequence> restore_;
  std::unique_ptr<Upgrade> upgrade_;
  std::unique_ptr<HealthMonitor> health_;
  Timer backoff_timer_, retry_timer_, memory_timer_, probation_timer_;
  Backoff backoff_;
  std::list<Waiter> waiters_;
};

}  // namespace kai
