#include "supervisor/control/agent.h"

#include "base/fault_point.h"
#include "base/text.h"
#include "policies/network_rules.h"

namespace kai {
namespace {

constexpr std::chrono::milliseconds kSaveAgain{2'000};

/// "active" is none of them: it was up, or about to be, when the control before ended.
State state_at_rest(const std::string& name) {
  if (name == "active") return State::kStopped;
  for (const State state : {State::kStopped, State::kQuarantined, State::kTerminated}) {
    if (name == to_string(state)) return state;
  }
  return State::kRegistered;
}

/// Two that are the same differ in nothing that holds only from a start on: of the network that is its ports alone.
std::string what_a_start_needs(spec::SandboxSpec spec) {
  egress::Rules ports;
  for (const std::uint16_t port : network_ports(spec.network())) ports.add_ports(port);
  if (spec.has_network()) *spec.mutable_network() = std::move(ports);
  return spec.SerializeAsString();
}

bool at_rest(State state) {
  return state == State::kStopped || state == State::kQuarantined || state == State::kTerminated;
}

}  // namespace

Agent::Agent(Environment& environment, RegisteredAgent row, Manifest manifest)
    : environment_(environment),
      row_(std::move(row)),
      manifest_(std::move(manifest)),
      policy_(environment.policies.for_agent(row_.id)),
      state_(state_at_rest(row_.state)),
      restart_policy_(*policy_),
      memory_(environment.memory, row_.id, manifest_.memory, policy_),
      denials_(environment.loop, environment.log, environment.audit, row_.id,
               [this](bool mostly_limits) { too_many_denials(mostly_limits); }),
      connections_(environment.loop, environment.log, row_.id),
      held_(environment.loop, row_.id),
      drain_timer_(environment.loop),
      backoff_timer_(environment.loop),
      retry_timer_(environment.loop),
      memory_timer_(environment.loop),
      probation_timer_(environment.loop) {
  if (!row_.upgrade.empty()) {
    auto record = parse_upgrade_record(row_.upgrade);
    check(record ? Result<>{} : tl::unexpected(record.error()));
    if (record) upgrade_record_ = std::move(*record);
  }
  // The control before may not have come to it.
  if (state_ == State::kTerminated) memory_.clear_at_opening();
  if (state_ != State::kQuarantined) return;
  auto record = parse_quarantine(row_.quarantine);
  check(record ? Result<>{} : tl::unexpected(record.error()));
  // What cannot be read keeps it out of service all the same.
  quarantine_ = record ? std::move(*record)
                       : QuarantineRecord{{QuarantineType::kManual, Severity::kCritical,
                                           "its record of quarantine cannot be read", iso_now()},
                                          iso_now(),
                                          0,
                                          0,
                                          {}};
}

Outcome<> Agent::start() {
  // Of one that runs already, start changes nothing: its crashes count on.
  if (idle() || state_ == State::kBackoff) {
    if (const auto refused = refusal()) return tl::unexpected(*refused);
    automatic_ = false;
    restart_policy_.reset();
  }
  // Whoever starts what waits already is told what for.
  if (opening_memory_ && memory_refusals_ > 0) {
    set_desired(Desired::kRunning);
    return refuse("UNAVAILABLE", "agent '" + row_.id + "' waits: its memory is not there: " + memory_.fault(),
                  "It starts when it is back; see 'kaictl logs " + row_.id + "'");
  }
  const auto taken = apply(Event::kStart);
  if (taken) set_desired(Desired::kRunning);
  return taken;
}

Outcome<> Agent::stop() {
  ++stops_;
  abandon_upgrade("it was stopped");
  if (state_ == State::kQuarantined && follow_up_ == Event::kRecover) follow_up_.reset();
  const auto taken = apply(Event::kStop);
  if (taken) set_desired(Desired::kStopped);
  return taken;
}

// What the policies refuse by now is no crash of the agent's.
std::optional<Failure> Agent::refusal() {
  if (const auto made = prepared(); !made) {
    return Failure{"DENIED",
                   "agent '" + row_.id + "' is not started: " + made.error().message(),
                   "See: kaictl policy explain " + row_.id,
                   {},
                   false};
  }
  return std::nullopt;
}

Outcome<> Agent::restart() {
  if (const auto refused = refusal()) return tl::unexpected(*refused);
  abandon_upgrade("it was started anew");
  if (auto taken = apply(Event::kStop); !taken) return taken;
  automatic_ = false;
  return start();
}

Outcome<> Agent::terminate() {
  ++stops_;
  abandon_upgrade("it was terminated");
  if (state_ == State::kQuarantined && end_isolated(Event::kTerminate)) {
    set_desired(Desired::kStopped);
    return {};
  }
  const auto taken = apply(Event::kTerminate);
  if (taken) set_desired(Desired::kStopped);
  if (taken && instance_) instance_->set_network(nullptr);
  return taken;
}

void Agent::start_at_boot() {
  automatic_ = true;
  operator_uid_.reset();
  static_cast<void>(apply(Event::kStart));
}

void Agent::shut_down() {
  operator_uid_.reset();
  abandon_upgrade("kaid ended");
  if (state_ == State::kQuarantined && instance_) return instance_->kill();
  static_cast<void>(apply(Event::kStop));
}

void Agent::set_desired(Desired desired) {
  if (row_.desired == desired) return;
  row_.desired = desired;
  check(environment_.registry.set_desired(row_.id, desired));
  // The disk is waited for while the keeper already works on what was asked of it.
  environment_.loop.defer([&environment = environment_] { static_cast<void>(environment.registry.sync()); });
}

Outcome<> Agent::apply(Event event) {
  const Transition decided = transition(state_, event);
  if (!decided.refused.empty()) return refused(decided.refused, event);
  if (decided.impossible) return {};
  if (event == Event::kRecover) {
    recovering_ = true;
    restart_policy_.reset();
    resource_ends_.clear();
  }
  enter(decided.next);
  if (event == Event::kReady && recovering_ && decided.next == State::kRunning) leave_quarantine();
  for (const Effect effect : decided.effects) {
    fault_point("before effect");
    carry_out(effect);
    fault_point("after effect");
  }
  settle();
  // What was asked for is done; what comes next is nobody's doing.
  if (state_ == State::kRunning || state_ == State::kBackoff || at_rest(state_)) operator_uid_.reset();
  return {};
}

Outcome<> Agent::refused(std::string_view code, Event event) const {
  std::string why = "agent '" + row_.id + "' is " + std::string(to_string(state_));
  std::string hint;
  if (event == Event::kUnregister) hint = "Stop it first: kaictl stop " + row_.id;
  if (event == Event::kRecover) hint = "See 'kaictl status " + row_.id + "'";
  if (event == Event::kRecover) why += ", not quarantined";
  if (code == "QUARANTINED") {
    why += ": " + quarantine_->reason.description;
    hint = "See 'kaictl quarantine show " + row_.id + "'; when its fault is mended: kaictl recover " + row_.id;
  }
  return refuse(std::string(code), why, hint);
}

void Agent::enter(State state) {
  if (state == state_) return;
  const State from = std::exchange(state_, state);
  if (from == State::kBackoff) backoff_timer_.stop();
  if (state == State::kQuarantined) {
    opening_memory_ = false;
    memory_timer_.stop();
    begin_quarantine();
  }
  if (state == State::kTerminated) {
    quarantine_.reset();
    recovering_ = false;
  }
  report_transition(from);
  // Recorded before it takes effect, and what is at rest is an effect too.
  fault_point("before audit");
  environment_.audit.flush();
  fault_point("after audit");
  if (state != State::kRunning && state != State::kUpgrading) {
    fail_held();
    note_fallen_back("agent '" + row_.id + "' is " + std::string(to_string(state)));
  }
  if (state == State::kStarting && !recovering_ && row_.state != kActive) {
    row_.state = kActive;
    check(environment_.registry.set_state(row_.id, row_.state));
  }
  // One that is recovering rests in its quarantine until it serves.
  if (at_rest(state) && state != State::kQuarantined) save_rest(state);
  if (state == State::kTerminated) clear_volatile();
}

void Agent::save_rest(State state) {
  row_.state = to_string(state);
  row_.quarantine = quarantine_ ? to_json(*quarantine_, row_.id) : "";
  const auto saved = environment_.registry.set_quarantine(row_.id, row_.state, row_.quarantine);
  check(saved);
  // What is at rest has to be found so by the next control: tried again until the disk takes it.
  if (saved) return retry_timer_.stop();
  retry_timer_.start(kSaveAgain, [this] {
    if (at_rest(state_)) save_rest(state_);
  });
}

void Agent::carry_out(Effect effect) {
  switch (effect) {
    case Effect::kNone:
      return;
    case Effect::kSpawn:
      return spawn();
    case Effect::kStopInstance:
      if (instance_) return instance_->stop(policy().deadlines.stop);
      // A start that is refused has none, and its end is on its way.
      if (std::exchange(opening_memory_, false)) end_unlaunched("it was stopped before it began", Unlaunched::kStopped);
      return;
    case Effect::kIsolate:
      return isolate();
    case Effect::kArmBackoff:
      return arm_backoff();
    case Effect::kThenStart:
      follow_up_ = Event::kStart;
      return;
    case Effect::kThenStop:
      follow_up_.reset();
      return;
    case Effect::kThenTerminate:
      follow_up_ = Event::kTerminate;
      return;
    case Effect::kFollowUp:
      if (follow_up_) static_cast<void>(apply(*std::exchange(follow_up_, std::nullopt)));
      return;
    case Effect::kRemove:
      return;  // Agents::unregister: this object goes with it
  }
}

Result<const PreparedSandbox*> Agent::prepared() {
  if (!prepared_) {
    const auto compiled = compile(manifest_, *policy_, package());
    if (!compiled) return tl::unexpected(compiled.error());
    auto made = prepare_sandbox(*compiled, policy_);
    if (!made) return tl::unexpected(made.error());
    prepared_ = std::move(*made);
  }
  return &*prepared_;
}

Package Agent::package() const {
  return {row_.active.package, row_.active.entry_override};
}

Result<Compiled> Agent::description() const {
  return compile(manifest_, policy(), package());
}

/// What it may reach follows the policy at once; everything else waits for its next start.
void Agent::update_network() {
  if (!instance_) return;
  // One that ends for good or stands still is not connected again; nor one whose end an earlier control had begun.
  if (state_ == State::kQuarantined || state_ == State::kStopping) return instance_->set_network(nullptr);
  const auto rules = network();
  instance_->set_network(rules ? &*rules : nullptr);
  if (Instance* const standby = upgrade_ ? upgrade_->standby() : nullptr)
    standby->set_network(rules ? &*rules : nullptr);
  for (Leaving& leaving : leaving_) leaving.instance->set_network(rules ? &*rules : nullptr);
}

std::optional<egress::Rules> Agent::network() const {
  const auto compiled = compile(manifest_, *policy_, package());
  if (!compiled || !compiled->spec.has_network()) return std::nullopt;
  return compiled->spec.network();
}

bool Agent::policies_changed() {
  policy_ = environment_.policies.for_agent(row_.id);
  prepared_.reset();
  restart_policy_.use(*policy_);
  if (!instance_) return false;
  update_network();
  const auto was = compile(manifest_, *instance_->policy(), package());
  const auto is = compile(manifest_, *policy_, package());
  return !is || !was || what_a_start_needs(was->spec) != what_a_start_needs(is->spec);
}

void Agent::report(LogLevel level, std::string_view event, std::string_view message,
                   std::initializer_list<LogField> fields) {
  environment_.log.write(level, row_.id, event, message, fields);
  std::vector<LogField> recorded = {{"state", to_string(state_)}};
  recorded.insert(recorded.end(), fields.begin(), fields.end());
  if (operator_uid_) recorded.emplace_back("operatorUid", *operator_uid_);
  environment_.audit.append(row_.id, event, fields_json(message, recorded));
}

void Agent::report_transition(State from) {
  switch (state_) {
    case State::kStarting:
      return environment_.log.write(LogLevel::kInfo, row_.id, "kai.starting", "its sandbox is being made",
                                    {{"version", row_.active.version}});
    case State::kRunning:
      if (upgrade_) return;  // it has said more
      return report(LogLevel::kInfo, "started", "it is ready",
                    {{"pid", instance_->pid()}, {"readyMs", up_since_ - start_asked_at_}});
    case State::kStopping:
      return report(LogLevel::kInfo, "kai.stopping", "it is asked to stop",
                    {{"graceMs", policy().deadlines.stop.count()}});
    case State::kStopped:
      return report(LogLevel::kInfo, "kai.stopped", from == State::kBackoff || !last_end_ ? "" : last_end_->message);
    case State::kTerminated:
      return report(LogLevel::kInfo, "terminated", "stopped for good; registration and packages are kept",
                    {{"messagesReceived", received_},
                     {"messagesSent", sent_},
                     {"restarts", restarts_},
                     {"denials", denials_.total()},
                     {"lastLog", iso_now()}});
    default:
      return;  // quarantine and backoff say more, elsewhere
  }
}

std::int64_t Agent::uptime_ms() const {
  const bool up = state_ == State::kRunning || (state_ == State::kUpgrading && up_since_ != 0) ||
                  (state_ == State::kStopping && up_since_ != 0);
  return up ? monotonic_ms() - up_since_ : 0;
}

std::uint32_t Agent::crashes() const {
  return restart_policy_.crashes(monotonic_ms());
}

bool Agent::idle() const {
  return state_ == State::kRegistered || at_rest(state_);
}

void Agent::replace(RegisteredAgent row, Manifest manifest) {
  // Another version was put in its place: nothing is on probation, and what one before had saved is not this one's.
  check(environment_.registry.set_saved_state(row_.id, {}));
  set_upgrade_record({});
  use_version(std::move(row), std::move(manifest));
  memory_.configure(manifest_.memory, policy_);
}

void Agent::health(std::chrono::milliseconds deadline, std::function<void(std::string)> answer) {
  if (!health_) return answer({});
  health_->ask(deadline, std::move(answer));
}

void Agent::wait(Goal goal, std::chrono::milliseconds timeout, Done done) {
  Waiter& waiter = waiters_.emplace_back(goal, life_, std::move(done), environment_.loop);
  const auto place = std::prev(waiters_.end());
  waiter.timer.start(timeout, [this, place] {
    const Done late = std::move(place->done);
    waiters_.erase(place);
    late(refuse("TIMEOUT", "agent '" + row_.id + "' is still " + std::string(to_string(state_)),
                "It goes on; see 'kaictl status " + row_.id + "', or wait longer with --timeout"));
  });
  settle();
}

void Agent::settle() {
  for (auto waiter = waiters_.begin(); waiter != waiters_.end();) {
    const auto outcome = outcome_of(*waiter);
    if (!outcome) {
      ++waiter;
      continue;
    }
    const Done done = std::move(waiter->done);
    waiter = waiters_.erase(waiter);
    acknowledge(*outcome, done);
  }
}

/// What is acknowledged is on the disk: the registry's rows and the audit's records.
void Agent::acknowledge(const Outcome<>& outcome, const Done& done) {
  check(environment_.registry.sync());
  environment_.audit.when_durable([outcome, done](const Result<>& durable) {
    if (outcome && !durable) return done(tl::unexpected(not_recorded(durable.error())));
    done(outcome);
  });
}

std::optional<Outcome<>> Agent::outcome_of(const Waiter& waiter) const {
  const bool resting = state_ == State::kRegistered || at_rest(state_);
  // The table is between the end of one life and the follow-up that was asked for.
  if (resting && follow_up_) return std::nullopt;
  switch (waiter.goal) {
    case Goal::kUp:
      if (state_ == State::kRunning) return Outcome<>{};
      if (resting || state_ == State::kBackoff) return tl::unexpected(start_failure());
      return std::nullopt;
    case Goal::kDown:
      // A start that was asked for later may have begun another life already: what was to stop is gone.
      if (resting || life_ != waiter.life) return Outcome<>{};
      return std::nullopt;
    case Goal::kTerminated:
      if (state_ == State::kTerminated && !clearing_memory_) return Outcome<>{};
      return std::nullopt;
  }
  return std::nullopt;
}

Failure Agent::start_failure() const {
  Failure failure{
      "AGENT_CRASHED", "agent '" + row_.id + "' did not start", "See 'kaictl logs " + row_.id + "'", {}, false};
  if (!last_end_) return failure;
  failure.message += ": " + last_end_->message;
  failure.details_json = R"({"lastEnd":)" + to_json(*last_end_) + "}";
  switch (last_end_->cause) {
    case Cause::kSetup:
      failure.code = last_end_->for_now ? "UNAVAILABLE" : "INTERNAL";
      break;
    case Cause::kHelloRefused:
      failure.code = "DENIED";
      break;
    case Cause::kHelloTimeout:
    case Cause::kHung:
      failure.code = "TIMEOUT";
      break;
    case Cause::kStopped:
      failure.code = "NOT_RUNNING";
      break;
    case Cause::kExit:
      failure.code = "AGENT_ERROR";
      break;
    default:
      break;
  }
  failure.retryable = is_retryable(failure.code);
  return failure;
}

// A registry that cannot be written is no reason to stop agents; the operator has to know.
void Agent::check(const Result<>& written) {
  if (!written) environment_.log.write(LogLevel::kError, row_.id, "error", "registry: " + written.error().message());
}

}  // namespace kai
