#include "supervisor/control/upgrade.h"

#include <algorithm>
#include <utility>

#include "policies/layout.h"
#include "supervisor/control/agent.h"
#include "supervisor/control/egress_client.h"

namespace kai {
namespace {

/// While requests wait, they come nearer to their own deadlines: half of what they have is theirs, to be answered in.
std::chrono::milliseconds pause_deadline(const Policy& policy) {
  return std::min(policy.deadlines.start, policy.deadlines.message / 2);
}

klp::HookCall load_call(const RegisteredVersion& version, const Manifest& manifest, const KlpIdentity& identity) {
  klp::HookCall call = hook_call(klp::HookCall::LOAD);
  klp::Load& load = *call.mutable_load();
  load.set_root(std::string(kVersionsDir) + "/" + version.package);
  load.set_entry(version.entry_override.empty() ? manifest.entry : version.entry_override);
  load.set_version(identity.version);
  for (const std::string& capability : identity.capabilities) load.add_capabilities(capability);
  load.set_manifest_json(manifest.json);
  for (const Permission& granted : identity.permissions) *load.add_permissions() = to_klp(granted);
  return call;
}

}  // namespace

Upgrade::Upgrade(Agent& agent, UpgradeOrder order, Done done)
    : agent_(agent),
      loop_(agent.environment_.loop),
      order_(std::move(order)),
      report_(order_.report),
      done_(std::move(done)),
      step_began_(now_ms_exact()) {}

Upgrade::~Upgrade() {
  *alive_ = false;
}

void Upgrade::step(std::string name) {
  const double now = now_ms_exact();
  report_.steps.push_back({std::move(name), now - std::exchange(step_began_, now)});
}

Instance& Upgrade::next() const {
  return standby_ ? *standby_ : *agent_.instance_;
}

/// So that the next control knows what it finds.
void Upgrade::keep_record(std::uint64_t standby) {
  UpgradeRecord record;
  record.type = report_.type;
  record.from = report_.from;
  record.to = report_.to;
  record.instance = agent_.instance_->number();
  record.standby = standby;
  record.operator_uid = report_.operator_uid;
  agent_.set_upgrade_record(std::move(record));
}

void Upgrade::begin() {
  const auto compiled =
      compile(order_.manifest, *agent_.policy_, {order_.version.package, order_.version.entry_override});
  if (!compiled) return fail(refuse("DENIED", compiled.error().message()).value());
  auto prepared = prepare_sandbox(*compiled, agent_.policy_);
  if (!prepared) return fail(refuse("INTERNAL", prepared.error().message()).value());
  // The policy may have been changed since it was decided how.
  const std::string why_not = report_.soft ? agent_.needs_new_process(order_.manifest, *compiled) : "";
  if (!why_not.empty()) return fail(refuse("CONFLICT", why_not, "Try again").value());
  sandbox_ = std::move(*prepared);
  keep_record(0);
  report_.soft ? load() : spawn_standby();
}

void Upgrade::load() {
  discards_ = true;  // whatever comes of it
  // Its thread may be busy with a request for as long as that may take.
  const auto deadline = std::max(agent_.policy_->deadlines.start, agent_.policy_->deadlines.message);
  agent_.instance_->call_hook(load_call(order_.version, order_.manifest, sandbox_->terms.identity), deadline,
                              [this, alive = alive_](const Outcome<klp::HookDone>& outcome) {
                                if (!*alive || over_) return;
                                step("load");
                                if (outcome) return drain();
                                Failure failure = outcome.error();
                                failure.message = "its code could not be loaded: " + failure.message;
                                report_.type == UpgradeType::kRollback ? go_hard(failure) : fail(failure);
                              });
}

/// The way back does not end at what the process of now cannot do.
void Upgrade::go_hard(const Failure& failure) {
  report_.reason = "not in its process: " + failure.message;
  agent_.instance_->call_hook(hook_call(klp::HookCall::DISCARD), kDiscardDeadline,
                              [this, alive = alive_](const Outcome<klp::HookDone>& outcome) {
                                if (!*alive || over_ || report_.failure) return;
                                step("discard");
                                if (!outcome) return discarded(outcome);
                                discards_ = report_.soft = false;
                                spawn_standby();
                              });
}

void Upgrade::spawn_standby() {
  Environment& environment = agent_.environment_;
  standby_output_ =
      std::make_unique<OutputPipes>(loop_, environment.log, agent_.row_.id, agent_.policy_->limits.log_lines);
  auto descriptors = standby_output_->open();
  if (!descriptors) return fail(refuse("INTERNAL", descriptors.error().message()).value());
  const bool runner = sandbox_->terms.runner_protocol;
  standby_ =
      std::make_unique<Instance>(loop_, environment.keeper, *sandbox_, agent_.row_.uid_slot, std::move(*descriptors),
                                 agent_.denials_, Instance::Handlers{}, Instance::Lasts::kOutlivesControl,
                                 runner ? Instance::Begin::kHeld : Instance::Begin::kBySelf);
  Instance::Handlers handlers = agent_.instance_handlers(*standby_, *standby_output_);
  handlers.activated = [this] { on_standby_activated(); };
  handlers.started = [this] {  // of one without hooks: it was exec'd
    if (over_ || report_.failure) return;
    step("start");
    commit();
  };
  handlers.resumed = [](const klp::Resume&) {};
  handlers.ended = [this](const End& end) { on_standby_ended(end); };
  standby_->set_handlers(std::move(handlers));
  keep_record(standby_->number());
}

void Upgrade::on_standby_activated() {
  agent_.report_activated(*standby_, report_.to);
  step("sandbox");
  if (!sandbox_->terms.runner_protocol) return;
  hooks_ = std::make_unique<HookSequence>(loop_, *standby_, std::vector{hook_call(klp::HookCall::LOAD)},
                                          loop_.now_ms() + agent_.policy_->deadlines.start.count(), report_.steps,
                                          [this](const Outcome<>& outcome) {
                                            if (over_ || report_.failure) return;
                                            step_began_ = now_ms_exact();
                                            outcome ? drain() : fail(outcome.error(), Fault::kNewVersion);
                                          });
  hooks_->run();
}

void Upgrade::on_standby_ended(const End& end) {
  auto gone = std::move(standby_);
  auto output = std::move(standby_output_);
  const bool of_machine = end.cause == Cause::kSetup || end.cause == Cause::kStopped;
  fail(refuse("AGENT_ERROR", "the new version ended: " + end.message).value(),
       of_machine ? Fault::kElsewhere : Fault::kNewVersion);
  agent_.drop_leaving(std::move(gone), std::move(output));
}

/// Nothing new is sent from here on, and what was sent is answered.
void Upgrade::drain() {
  const auto health = std::move(agent_.health_);
  held_ = true;
  pause_began_ = now_ms_exact();
  agent_.drain([this, alive = alive_](const Outcome<>& drained) {
    if (!*alive || over_) return;
    step("drain");
    const bool goes_on = drained || report_.type == UpgradeType::kRollback;
    goes_on ? save() : fail(drained.error());
  });
}

void Upgrade::save() {
  if (agent_.manifest_.runtime.protocol != Protocol::kRunner) return hand_over({});
  discards_ = true;  // a saveState that does not return would keep every other hook waiting
  agent_.instance_->call_hook(hook_call(klp::HookCall::SAVE_STATE), pause_deadline(*agent_.policy_),
                              [this, alive = alive_](const Outcome<klp::HookDone>& outcome) {
                                if (!*alive || over_) return;
                                step("saveState");
                                if (outcome) return hand_over(outcome->state());
                                Failure failure = outcome.error();
                                failure.message = "saveState of the version that serves failed: " + failure.message;
                                const bool goes_on = report_.type == UpgradeType::kRollback || report_.forced;
                                if (!goes_on) return fail(failure);
                                report_.reason = "without the state of " + report_.from + ": " + failure.message;
                                hand_over({});
                              });
}

void Upgrade::hand_over(std::string state) {
  if (state != "null") saved_state_ = std::move(state);
  handed_over_ = true;
  agent_.memory_.new_session();
  agent_.memory_.configure(order_.manifest.memory, agent_.policy_);
  run_hooks();
}

void Upgrade::run_hooks() {
  std::vector<klp::HookCall> calls = {hook_call(klp::HookCall::INIT)};
  if (!saved_state_.empty()) calls.push_back(restore_call(saved_state_));
  calls.push_back(upgrade_call(report_.from));
  for (const auto hook : {klp::HookCall::START, klp::HookCall::HEALTH, klp::HookCall::COMMIT}) {
    calls.push_back(hook_call(hook));
  }
  hooks_ = std::make_unique<HookSequence>(loop_, next(), std::move(calls),
                                          loop_.now_ms() + pause_deadline(*agent_.policy_).count(), report_.steps,
                                          [this](const Outcome<>& outcome) {
                                            if (over_ || report_.failure) return;
                                            outcome ? commit() : fail(outcome.error(), fault_of_hooks());
                                          });
  hooks_->run();
}

/// What fails in a process of its own speaks against it. In one that it shares with the version before, or where it was
/// given what that one had saved, that one may be what is at fault.
Upgrade::Fault Upgrade::fault_of_hooks() const {
  const bool restored = !report_.steps.empty() && report_.steps.back().name == to_string(klp::HookCall::RESTORE_STATE);
  return standby_ && !restored ? Fault::kNewVersion : Fault::kElsewhere;
}

/// The new version has the place: what is left is that everybody knows.
void Upgrade::commit() {
  over_ = true;
  report_.before = agent_.row_.previous_version;
  agent_.take_version(order_.version, order_.manifest, *sandbox_, std::move(standby_), std::move(standby_output_));
  finish();
  agent_.stop_leaving();
}

// ── back ──

void Upgrade::abandon(const std::string& why) {
  if (over_) return;
  over_ = true;
  report_.failure = refuse("CONFLICT", why + " in the middle; its next start is of version " + report_.from).value();
  take_back();
  if (discards_ && agent_.instance_) {
    agent_.instance_->call_hook(hook_call(klp::HookCall::DISCARD), kDiscardDeadline,
                                [](const Outcome<klp::HookDone>&) {});
  }
  finish();
}

void Upgrade::serving_ended(const End& end) {
  if (over_) return;
  over_ = true;
  if (report_.type == UpgradeType::kRollback) {
    take_back();
    report_.failure.reset();
    report_.soft = false;
    report_.reason = "the process of version " + report_.from + " ended in the middle: " + end.message;
    agent_.activate(order_.version, order_.manifest);
    return finish(false);
  }
  if (!report_.failure) {
    report_.failure =
        refuse("AGENT_CRASHED", "the process of version " + report_.from + " ended in the middle: " + end.message)
            .value();
  }
  take_back();
  report_.failure->message += "; version " + report_.from + " is started anew";
  finish(false);
}

void Upgrade::fail(const Failure& failure, Fault fault) {
  if (over_ || report_.failure) return;
  report_.failure = failure;
  // The way back is never closed.
  if (fault == Fault::kNewVersion && report_.type != UpgradeType::kRollback) bad_ = failure.message;
  report_.failure->code = failure.code == "NOT_RUNNING" ? "AGENT_CRASHED" : failure.code;
  take_back();
  if (!discards_) return reverted();
  step_began_ = now_ms_exact();
  agent_.instance_->call_hook(hook_call(klp::HookCall::DISCARD), kDiscardDeadline,
                              [this, alive = alive_](const Outcome<klp::HookDone>& outcome) {
                                if (*alive && !over_) discarded(outcome);
                              });
}

/// What the new version was given is the old one's again.
void Upgrade::take_back() {
  // It may be what says so.
  if (hooks_) loop_.defer([hooks = std::shared_ptr<HookSequence>(std::move(hooks_))] {});
  if (std::exchange(handed_over_, false)) {
    agent_.memory_.new_session();
    agent_.memory_.configure(agent_.manifest_.memory, agent_.policy_);
  }
  drop_standby();
}

void Upgrade::drop_standby() {
  if (!standby_) return;
  Instance& gone = *standby_;
  agent_.leave(std::move(standby_), std::move(standby_output_));
  gone.kill();
}

/// A runner that does not answer to this hangs in the new version's code: its process ends, and the agent starts the
/// old version in another one (serving_ended).
void Upgrade::discarded(const Outcome<klp::HookDone>& outcome) {
  step("discard");
  if (outcome) return reverted();
  if (report_.failure) report_.failure->message += "; its process did not answer any more and was ended";
  agent_.instance_->fail(Cause::kHung, "it did not answer in an upgrade: " + outcome.error().message);
}

void Upgrade::reverted() {
  over_ = true;
  finish();
}

void Upgrade::finish(bool serves) {
  if (held_) report_.pause_ms = now_ms_exact() - pause_began_;
  const Done done = std::move(done_);
  agent_.upgrade_over(report_, done, serves);
}

}  // namespace kai
