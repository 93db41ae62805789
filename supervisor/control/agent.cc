#include "supervisor/control/agent.h"

#include <algorithm>
#include <random>

#include "base/text.h"
#include "supervisor/control/router.h"

namespace kai {
namespace {

State state_at_rest(const std::string& name) {
  for (const State state : {State::kStopped, State::kQuarantined, State::kTerminated}) {
    if (name == to_string(state)) return state;
  }
  return State::kRegistered;
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
      denials_(environment.loop, environment.log, row_.id, [this] { too_many_denials(); }),
      backoff_timer_(environment.loop) {}

Outcome<> Agent::start() {
  // Of one that runs already, start changes nothing: its crashes count on.
  if (idle() || state_ == State::kBackoff) {
    if (const auto refused = refusal()) return tl::unexpected(*refused);
    automatic_ = false;
    restart_policy_.reset();
  }
  const auto taken = apply(Event::kStart);
  if (taken) set_desired(Desired::kRunning);
  return taken;
}

Outcome<> Agent::stop() {
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
  if (auto taken = apply(Event::kStop); !taken) return taken;
  return start();
}

Outcome<> Agent::terminate() {
  const auto taken = apply(Event::kTerminate);
  if (taken) set_desired(Desired::kStopped);
  return taken;
}

void Agent::start_at_boot() {
  automatic_ = true;
  static_cast<void>(apply(Event::kStart));
}

void Agent::shut_down() {
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
  if (!decided.refused.empty()) {
    return refuse(std::string(decided.refused), "agent '" + row_.id + "' is " + std::string(to_string(state_)),
                  event == Event::kUnregister ? "Stop it first: kaictl stop " + row_.id : "");
  }
  if (decided.impossible) return {};
  enter(decided.next);
  for (const Effect effect : decided.effects) carry_out(effect);
  settle();
  return {};
}

void Agent::enter(State state) {
  if (state == state_) return;
  const State from = std::exchange(state_, state);
  if (from == State::kBackoff) backoff_timer_.stop();
  if (at_rest(state)) {
    row_.state = to_string(state);
    check(environment_.registry.set_state(row_.id, row_.state));
  }
  log_transition(from);
}

void Agent::carry_out(Effect effect) {
  switch (effect) {
    case Effect::kNone:
      return;
    case Effect::kSpawn:
      return spawn();
    case Effect::kStopInstance:
      return instance_->stop(policy().deadlines.stop);
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

bool Agent::policies_changed() {
  policy_ = environment_.policies.for_agent(row_.id);
  prepared_.reset();
  restart_policy_.use(*policy_);
  if (!instance_) return false;
  const auto was = compile(manifest_, *instance_->policy(), package());
  const auto is = compile(manifest_, *policy_, package());
  return !is || !was || was->spec.SerializeAsString() != is->spec.SerializeAsString();
}

void Agent::spawn() {
  ++life_;
  start_asked_at_ = monotonic_ms();
  const auto sandbox = prepared();
  if (!sandbox) return refuse_spawn(sandbox.error().message());
  output_ = std::make_unique<OutputPipes>(environment_.loop, environment_.log, row_.id, policy_->limits.log_lines);
  auto descriptors = output_->open();
  if (!descriptors) return refuse_spawn(descriptors.error().message());
  instance_ = std::make_unique<Instance>(environment_.loop, environment_.keeper, **sandbox, row_.uid_slot,
                                         std::move(*descriptors), denials_, instance_handlers());
}

// The table is in the middle of kStart: the end comes when it is through.
void Agent::refuse_spawn(const std::string& why) {
  End end;
  end.cause = Cause::kSetup;
  end.message = "its sandbox could not be described: " + why;
  end.hopeless = true;
  environment_.loop.defer([this, alive = std::weak_ptr(alive_), end] {
    if (!alive.expired()) on_ended(end);
  });
}

Instance::Handlers Agent::instance_handlers() {
  Instance::Handlers handlers;
  handlers.activated = [this] { on_activated(); };
  handlers.started = [this] { on_started(); };
  handlers.message = [this](klp::Message&& message) { on_message(message); };
  handlers.log = [this](const klp::AgentLog& log) {
    output_->log(parse_log_level(log.level()).value_or(LogLevel::kInfo), log.message(), log.fields_json());
  };
  handlers.health = [this](klp::HealthReport&& report) {
    if (health_) health_->report(std::move(report));
  };
  handlers.ended = [this](const End& end) { on_ended(end); };
  return handlers;
}

void Agent::on_activated() {
  environment_.log.write(LogLevel::kInfo, row_.id, "activated", "its sandbox is verified and its hello accepted",
                         {{"pid", instance_->pid()}, {"setupUs", instance_->setup_us()}});
  log_layers(environment_.log, row_.id, *instance_);
}

void Agent::too_many_denials() {
  const QuarantineRules& rules = policy().quarantine;
  environment_.log.write(LogLevel::kError, row_.id, "security_violation",
                         "it met its threshold of denials; it runs on, as quarantine is not in this version: see "
                         "'kaictl logs " +
                             row_.id + "', and stop it if this is not meant",
                         {{"denials", rules.denials},
                          {"windowMs", rules.denial_window.count()},
                          {"rule", policy().rule("quarantine.denials")}});
}

void Agent::on_started() {
  up_since_ = monotonic_ms();
  health_ = std::make_unique<HealthMonitor>(environment_.loop, *instance_, policy().health);
  static_cast<void>(apply(Event::kReady));
}

void Agent::on_message(const klp::Message& message) {
  environment_.log.write(LogLevel::kDebug, row_.id, "message_sent", "",
                         {{"to", message.to()}, {"id", message.id()}, {"bytes", message.payload().size()}});
  environment_.router->route(*this, message);
}

void Agent::on_ended(const End& end) {
  last_end_ = end;
  row_.last_end = to_json(end);
  check(environment_.registry.set_last_end(row_.id, row_.last_end));
  if (output_) output_->finish();
  denials_.finish();
  if (instance_ && instance_->channel() != nullptr) {
    const bool asked = state_ == State::kStopping || end.clean();
    instance_->channel()->fail_all({asked ? "NOT_RUNNING" : "AGENT_CRASHED",
                                    "agent '" + row_.id + "' ended before it answered: " + end.message,
                                    {},
                                    {},
                                    !asked});
  }
  const Event event = judge(end);
  // Whoever waits for its health is answered when the new state stands.
  const auto health = std::move(health_);
  if (instance_) last_degraded_ = instance_->degraded();
  instance_.reset();
  static_cast<void>(apply(event));
  up_since_ = 0;
}

Event Agent::judge(const End& end) {
  if (state_ == State::kStopping || end.clean()) return Event::kEnded;
  const std::int64_t now = monotonic_ms();
  const bool came_up = state_ == State::kRunning;
  restart_policy_.crashed(now, std::chrono::milliseconds(came_up ? now - up_since_ : 0));
  if (end.cause == Cause::kHelloRefused) {
    environment_.log.write(LogLevel::kError, row_.id, "security_violation", end.message);
    return Event::kGaveUp;
  }
  environment_.log.write(LogLevel::kError, row_.id, "kai.crashed", end.message,
                         {{"cause", to_string(end.cause)}, {"crashes", restart_policy_.crashes(now)}});
  // A start that an operator waits for fails at once, with its reason.
  if (!came_up && !automatic_) return Event::kGaveUp;
  if (end.hopeless) return Event::kGaveUp;
  if (!policy_->auto_restart) return Event::kGaveUp;
  if (!restart_policy_.exhausted(now)) return Event::kCrashed;
  environment_.log.write(LogLevel::kError, row_.id, "error",
                         "it crashed more than maxCrashes times within crashWindow and is not started again; "
                         "when its fault is mended: kaictl start " +
                             row_.id,
                         {{"maxCrashes", policy_->max_crashes}, {"crashWindowMs", policy_->crash_window.count()}});
  return Event::kGaveUp;
}

void Agent::arm_backoff() {
  thread_local std::minstd_rand random{std::random_device{}()};
  const auto delay = restart_policy_.delay(std::uniform_real_distribution<double>(0, 1)(random));
  environment_.log.write(LogLevel::kInfo, row_.id, "kai.backoff", "it is started again after a pause",
                         {{"delayMs", delay.count()}, {"crashes", crashes()}});
  backoff_timer_.start(delay, [this] {
    automatic_ = true;
    ++restarts_;
    static_cast<void>(apply(Event::kBackoffOver));
  });
}

void Agent::log_transition(State from) {
  Log& log = environment_.log;
  switch (state_) {
    case State::kStarting:
      return log.write(LogLevel::kInfo, row_.id, "kai.starting", "its sandbox is being made",
                       {{"version", row_.active.version}});
    case State::kRunning:
      return log.write(LogLevel::kInfo, row_.id, "started", "it is ready",
                       {{"pid", instance_->pid()}, {"readyMs", up_since_ - start_asked_at_}});
    case State::kStopping:
      return log.write(LogLevel::kInfo, row_.id, "kai.stopping", "it is asked to stop",
                       {{"graceMs", policy().deadlines.stop.count()}});
    case State::kStopped:
      return log.write(LogLevel::kInfo, row_.id, "kai.stopped",
                       from == State::kBackoff || !last_end_ ? "" : last_end_->message);
    case State::kTerminated:
      return log.write(LogLevel::kInfo, row_.id, "terminated", "stopped for good; registration and packages are kept");
    default:
      return;
  }
}

std::int64_t Agent::uptime_ms() const {
  const bool up = state_ == State::kRunning || (state_ == State::kStopping && up_since_ != 0);
  return up ? monotonic_ms() - up_since_ : 0;
}

std::uint32_t Agent::crashes() const {
  return restart_policy_.crashes(monotonic_ms());
}

void Agent::deliver(klp::Message message, std::chrono::milliseconds deadline, KlpChannel::Answer answer) {
  const std::string capability = message.capability();
  if (state_ != State::kRunning) {
    return answer(refuse("NOT_RUNNING", "agent '" + row_.id + "' is " + std::string(to_string(state_)),
                         "Start it: kaictl start " + row_.id));
  }
  const auto& known = manifest_.capabilities;
  if (manifest_.runtime.protocol == Protocol::kNone) {
    return answer(
        refuse("UNKNOWN_CAPABILITY", "agent '" + row_.id + "' takes no messages: its runtime.protocol is none"));
  }
  if (std::find(known.begin(), known.end(), capability) == known.end()) {
    return answer(refuse("UNKNOWN_CAPABILITY", "agent '" + row_.id + "' has no capability '" + capability + "'",
                         "See its manifest's capabilities"));
  }
  if (deadline.count() == 0) deadline = policy().deadlines.message;
  if (environment_.log.enabled(LogLevel::kDebug)) {
    environment_.log.write(LogLevel::kDebug, row_.id, "message_received", "",
                           {{"from", message.from()}, {"capability", capability}, {"bytes", message.payload().size()}});
  }
  instance_->channel()->request(std::move(message), deadline, std::move(answer));
}

void Agent::answer(const klp::Message& request, klp::Message response) {
  if (instance_ && instance_->channel() != nullptr) instance_->channel()->reply(request, std::move(response));
}

void Agent::answer_error(const klp::Message& request, const Failure& failure) {
  if (instance_ && instance_->channel() != nullptr) instance_->channel()->reply_error(request, failure);
}

void Agent::deliver_event(const klp::Message& event) {
  if (state_ == State::kRunning) instance_->channel()->deliver(event);
}

const std::vector<Permission>& Agent::permissions() const {
  static const std::vector<Permission> none;
  return instance_ ? instance_->permissions() : none;
}

void Agent::deny(const klp::Message& message, const std::string& reason) {
  Denial denial;
  denial.kind = Denial::Kind::kMessage;
  denial.what = message.to();
  denial.detail =
      "a message to " + message.to() + (message.capability().empty() ? "" : " (" + message.capability() + ")");
  denial.reason = reason;
  denial.rule = policy().rule("permissions");
  denial.error = "DENIED";
  denials_.write(denial);
}

bool Agent::idle() const {
  return state_ == State::kRegistered || at_rest(state_);
}

void Agent::replace(RegisteredAgent row, Manifest manifest) {
  row_ = std::move(row);
  manifest_ = std::move(manifest);
  prepared_.reset();
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
    check(environment_.registry.sync());
    done(*outcome);
  }
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
      if (state_ == State::kTerminated) return Outcome<>{};
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
      failure.code = "INTERNAL";
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
