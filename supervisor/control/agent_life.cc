#include <algorithm>
#include <random>

#include "base/base64.h"
#include "base/text.h"
#include "supervisor/control/agent.h"
#include "supervisor/control/egress_client.h"

namespace kai {
namespace {

std::string base64_of(std::string_view bytes) {
  std::string text;
  append_base64(text, bytes);
  return text;
}

bool of_resources(const End& end) {
  return end.cause == Cause::kOom || end.cause == Cause::kPids || end.over_disk;
}

}  // namespace

void Agent::spawn() {
  ++life_;
  start_asked_at_ = monotonic_ms();
  const auto sandbox = prepared();
  if (!sandbox) return refuse_spawn(sandbox.error().message());
  memory_.configure(manifest_.memory, policy_);
  soft_swaps_ = 0;
  restoring_.clear();
  if (manifest_.runtime.protocol != Protocol::kRunner) return launch();
  // Of a version that is on probation it is what the one before would go back to.
  if (!upgrade_record_ || falling_back_) restoring_ = environment_.registry.saved_state(row_.id).value_or("");
  launch_with_memory();
}

void Agent::launch() {
  const auto sandbox = prepared();
  if (!sandbox) return refuse_spawn(sandbox.error().message());
  output_ = std::make_unique<OutputPipes>(environment_.loop, environment_.log, row_.id, policy_->limits.log_lines);
  auto descriptors = output_->open();
  if (!descriptors) return refuse_spawn(descriptors.error().message());
  instance_ = std::make_unique<Instance>(environment_.loop, environment_.keeper, **sandbox, row_.uid_slot,
                                         std::move(*descriptors), denials_, Instance::Handlers{},
                                         Instance::Lasts::kOutlivesControl,
                                         restoring_.empty() ? Instance::Begin::kBySelf : Instance::Begin::kHeld);
  instance_->set_handlers(instance_handlers(*instance_, *output_));
  if (!upgrade_record_) return leaving_.empty() ? void() : settle_upgrade();
  UpgradeRecord record = *upgrade_record_;
  record.instance = instance_->number();
  set_upgrade_record(std::move(record));
}

// The table is in the middle of kStart: the end comes when it is through.
void Agent::refuse_spawn(const std::string& why) {
  end_unlaunched("its sandbox could not be described: " + why, Unlaunched::kRefused);
}

void Agent::end_unlaunched(const std::string& message, Unlaunched why) {
  End end;
  end.cause = why == Unlaunched::kStopped ? Cause::kStopped : Cause::kSetup;
  end.message = message;
  end.hopeless = why != Unlaunched::kStopped;
  end.for_now = why == Unlaunched::kForNow;
  environment_.loop.defer([this, alive = std::weak_ptr(alive_), end] {
    if (!alive.expired()) on_ended(end);
  });
}

Instance::Handlers Agent::instance_handlers(Instance& instance, OutputPipes& output) {
  Instance::Handlers handlers;
  handlers.activated = [this] { on_activated(); };
  handlers.started = [this] { on_started(); };
  handlers.resumed = [this](const klp::Resume& resume) { on_resumed(resume); };
  handlers.message = [this, &instance](klp::Message&& message) { on_message(instance, message); };
  handlers.memory = [this, &instance](klp::MemoryRequest&& request) { on_memory(instance, std::move(request)); };
  handlers.network_refused = [this](const std::string& why) {
    environment_.log.write(LogLevel::kError, row_.id, "error",
                           "it is cut off from the network: its rules were not taken: " + why);
  };
  handlers.network = [this](const egress::Event& event) { connections_.write(event); };
  handlers.log = [&output](const klp::AgentLog& log) {
    output.log(parse_log_level(log.level()).value_or(LogLevel::kInfo), log.message(), log.fields_json());
  };
  handlers.health = [this, &instance](klp::HealthReport&& report) {
    if (health_ && &instance == instance_.get()) health_->report(std::move(report));
  };
  handlers.ended = [this](const End& end) { on_ended(end); };
  return handlers;
}

// ── an instance of the control before ──

void Agent::adopt(KeeperClient::Adoption adoption) {
  ++life_;
  // Nobody waits for its start any more: an end before it says that it resumes is a crash like any other.
  automatic_ = true;
  const keeper::Adoptable& found = adoption.instance;
  up_since_ = static_cast<std::int64_t>(found.spawned_ms());
  start_asked_at_ = up_since_;
  output_ = std::make_unique<OutputPipes>(environment_.loop, environment_.log, row_.id, policy_->limits.log_lines);
  const bool ended = found.has_exited();
  const std::size_t outputs = ended ? 0 : 1;
  if (adoption.descriptors.size() >= outputs + 2) {
    check(output_->adopt(std::move(adoption.descriptors[outputs]), std::move(adoption.descriptors[outputs + 1])));
    adoption.descriptors.erase(adoption.descriptors.begin() + static_cast<std::ptrdiff_t>(outputs),
                               adoption.descriptors.begin() + static_cast<std::ptrdiff_t>(outputs) + 2);
  }
  const auto sandbox = prepared();
  if (ended) return adopt_ended(found, sandbox ? *sandbox : nullptr);
  const bool isolated = state_ == State::kQuarantined;
  if (!isolated) state_ = row_.desired == Desired::kRunning ? State::kStarting : State::kStopping;
  if (!sandbox) {
    // Its policy has come to refuse it: it may not go on.
    environment_.keeper.kill(found.instance());
    return refuse_spawn(sandbox.error().message());
  }
  instance_ = std::make_unique<Instance>(environment_.loop, environment_.keeper, **sandbox, std::move(adoption),
                                         known_key(found.instance()), other_identity(), denials_, Instance::Handlers{});
  instance_->set_handlers(instance_handlers(*instance_, *output_));
  update_network();
  if (!isolated && found.frozen()) {
    // Nobody knows why any more; it does not run on.
    static_cast<void>(quarantine(
        {QuarantineType::kManual, Severity::kHigh, "it was found frozen, and why could not be recorded", iso_now()}));
  }
  if (isolated && !quarantine_->evidence.empty() && (!found.frozen() || policy().quarantine.kill)) isolate();
}

/// nullopt: the control before did not come to write it down.
std::optional<std::string> Agent::known_key(std::uint64_t instance) const {
  const std::string mark = std::to_string(instance) + ":";
  if (!row_.public_key.starts_with(mark)) return std::nullopt;
  return decode_base64(std::string_view(row_.public_key).substr(mark.size()));
}

/// It ended while there was no control: nobody but the keeper saw how.
void Agent::adopt_ended(const keeper::Adoptable& found, const PreparedSandbox* sandbox) {
  EndFacts facts;
  facts.tree = found.exited();
  if (sandbox != nullptr) {
    facts.memory_limit_mb = sandbox->memory_limit_mb;
    facts.process_limit = sandbox->process_limit;
  }
  if (state_ != State::kQuarantined) {
    state_ = row_.desired == Desired::kRunning ? State::kRunning : State::kStopping;
    facts.stop_requested = state_ == State::kStopping;
  }
  ended_instance_ = found.instance();
  on_ended(classify(facts));
}

void Agent::on_resumed(const klp::Resume& resume) {
  const klp::Resume::Phase phase = resume.phase();
  soft_swaps_ = resume.soft_swaps();
  // The control before died between its quarantine and the frost: this word was on its way.
  if (state_ == State::kQuarantined) return;
  environment_.log.write(
      LogLevel::kInfo, row_.id, "kai.adopted",
      "it ran on while kaid's control was started again; requests under way were failed as retryable",
      {{"pid", instance_->pid()}, {"uptimeMs", monotonic_ms() - up_since_}});
  if (phase == klp::Resume::STOPPING) {
    state_ = State::kStopping;
    // A restart, or one that ends by itself.
    if (row_.desired == Desired::kRunning) follow_up_ = Event::kStart;
  } else if (phase == klp::Resume::SERVING) {
    state_ = State::kRunning;
    watch_health();
  } else {
    state_ = State::kStarting;
  }
  // Who held it is gone: what it was to go on from is still there, and its start is made anew.
  if (resume.held())
    return instance_->fail_start("start", "kaid's control was started again in the middle of its start");
  settle_adopted_upgrade();
  // It was told to stop, and the word did not reach it.
  if (row_.desired == Desired::kStopped && phase != klp::Resume::STOPPING) static_cast<void>(apply(Event::kStop));
  settle();
}

// ── what it does ──

/// The key is the host's own, made anew at each launch, and never leaves it: the record of each start says which it is.
void Agent::register_key() {
  const std::string key = base64_of(instance_->channel()->public_key());
  row_.public_key = key.empty() ? "" : std::to_string(instance_->number()) + ":" + key;
  check(environment_.registry.set_public_key(row_.id, row_.public_key));
}

void Agent::on_activated() {
  report_activated(*instance_, row_.active.version);
  register_key();
  if (!restoring_.empty()) start_from_state();
}

void Agent::report_activated(Instance& instance, const std::string& version) {
  const std::string key = base64_of(instance.channel()->public_key());
  report(LogLevel::kInfo, "activated", "its sandbox is verified and its hello accepted",
         {{"version", version},
          {"pid", instance.pid()},
          {"setupUs", instance.setup_us()},
          {key.empty() ? "crypto" : "publicKey", key.empty() ? "none" : key}});
  log_layers(environment_.log, row_.id, instance);
  for (const std::string& layer : instance.degraded()) {
    const std::array fields = {LogField("layer", layer)};
    environment_.audit.append(row_.id, "kai.degraded", fields_json({}, fields));
  }
}

void Agent::on_started() {
  // Adopted in the middle of its start, and not wanted by now.
  if (state_ == State::kStopping) return instance_->stop(policy().deadlines.stop);
  if (state_ == State::kQuarantined) return;
  up_since_ = monotonic_ms();
  watch_health();
  static_cast<void>(apply(Event::kReady));
  note_fallen_back({});
  if (state_ == State::kRunning) release();  // what waited for the version before
}

void Agent::watch_health() {
  health_ = std::make_unique<HealthMonitor>(environment_.loop, *instance_, policy().health, findings());
  health_->watch_closely(upgrade_record_ && upgrade_record_->phase == UpgradeRecord::Phase::kProbation);
}

HealthMonitor::Findings Agent::findings() {
  HealthMonitor::Findings findings;
  findings.warning = [this](const std::string& why) {
    environment_.log.write(LogLevel::kWarn, row_.id, "kai.health", "it reports that it is not well: " + why);
  };
  findings.healthy = [this] {
    environment_.log.write(LogLevel::kInfo, row_.id, "kai.health", "it reports that it is healthy again");
  };
  findings.hung = [this](const std::string& why) { instance_->fail(Cause::kHung, why); };
  findings.critical = [this](const std::string& why) { instance_->fail(Cause::kSignal, why); };
  return findings;
}

void Agent::too_many_denials(bool mostly_limits) {
  const QuarantineRules& rules = policy().quarantine;
  const std::string description = "it was refused " + std::to_string(rules.denials) + " times within " +
                                  std::to_string(rules.denial_window.count() / 1000) + " s (quarantine.denials, " +
                                  policy().rule("quarantine.denials") + ")" +
                                  (mostly_limits ? ", mostly by its limits" : "");
  // Denials come out of the instance's own handlers, which may not lose it.
  environment_.loop.defer([this, alive = std::weak_ptr(alive_), description, mostly_limits] {
    if (alive.expired()) return;  // whether it has ended meanwhile changes nothing
    static_cast<void>(quarantine({mostly_limits ? QuarantineType::kResourceAbuse : QuarantineType::kSecurityViolation,
                                  Severity::kHigh, description, iso_now()}));
  });
}

// ── its end ──

void Agent::on_ended(const End& end) {
  opening_memory_ = false;
  memory_timer_.stop();
  if (state_ != State::kQuarantined) {
    last_end_ = end;
    row_.last_end = to_json(end);
    check(environment_.registry.set_last_end(row_.id, row_.last_end));
  }
  if (upgrade_) {
    lost_in_upgrade_ = true;
    upgrade_->serving_ended(end);
  }
  const std::uint64_t ended = instance_ ? instance_->number() : ended_instance_;
  if (output_) output_->finish();
  denials_.finish();
  connections_.finish();
  if (instance_ && instance_->has_network()) environment_.egress->ended(ended, row_.id);
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
  restore_.reset();
  instance_.reset();
  memory_.end_session();
  static_cast<void>(apply(event));
  up_since_ = 0;
  // Last: until then the next control is told of this end once more.
  check(environment_.registry.set_ended_instance(row_.id, ended));
}

Event Agent::condemn(QuarantineType type, Severity severity, const std::string& description) {
  pending_quarantine_ = QuarantineReason{type, severity, description, iso_now()};
  return Event::kCondemned;
}

Event Agent::judge(const End& end) {
  if (state_ == State::kQuarantined) return Event::kEnded;
  if (std::exchange(recovering_, false)) return recovery_failed(end);
  if (const auto event = judge_upgrade(end)) return *event;
  if (state_ == State::kStopping || end.clean()) return Event::kEnded;
  if (end.for_now) return Event::kGaveUp;
  const std::int64_t now = monotonic_ms();
  const bool came_up = state_ == State::kRunning;
  restart_policy_.crashed(now, std::chrono::milliseconds(came_up ? now - up_since_ : 0));
  resource_ends_.push_back(of_resources(end));
  while (resource_ends_.size() > policy_->max_crashes + 1) resource_ends_.pop_front();
  report(LogLevel::kError, "kai.crashed", end.message,
         {{"cause", to_string(end.cause)}, {"crashes", restart_policy_.crashes(now)}});
  if (end.cause == Cause::kHelloRefused) {
    return condemn(QuarantineType::kSecurityViolation, Severity::kCritical, end.message);
  }
  if (end.cause == Cause::kSeccomp) {
    return condemn(QuarantineType::kSecurityViolation, Severity::kHigh, end.message);
  }
  if (end.over_disk) return condemn(QuarantineType::kResourceAbuse, Severity::kHigh, end.message);
  // A start that an operator waits for fails at once, with its reason.
  if (!came_up && !automatic_) return Event::kGaveUp;
  if (end.hopeless || !policy_->auto_restart) return Event::kGaveUp;
  if (!restart_policy_.exhausted(now)) return Event::kCrashed;
  const auto of_limits = std::count(resource_ends_.begin(), resource_ends_.end(), true);
  const bool abuse = 2 * static_cast<std::size_t>(of_limits) > resource_ends_.size();
  return condemn(abuse ? QuarantineType::kResourceAbuse : QuarantineType::kCrash,
                 abuse ? Severity::kHigh : Severity::kMedium,
                 "it crashed " + std::to_string(restart_policy_.crashes(now)) + " times within " +
                     std::to_string(policy_->crash_window.count() / 1000) + " s, more than maxCrashes (" +
                     policy_->rule("maxCrashes") + "); the last time: " + end.message);
}

void Agent::arm_backoff() {
  thread_local std::minstd_rand random{std::random_device{}()};
  const auto delay = restart_policy_.delay(std::uniform_real_distribution<double>(0, 1)(random));
  report(LogLevel::kInfo, "kai.backoff", "it is started again after a pause",
         {{"delayMs", delay.count()}, {"crashes", crashes()}});
  backoff_ = {delay.count(), unix_ms() + delay.count()};
  backoff_timer_.start(delay, [this] {
    automatic_ = true;
    operator_uid_.reset();
    ++restarts_;
    static_cast<void>(apply(Event::kBackoffOver));
  });
}

}  // namespace kai
