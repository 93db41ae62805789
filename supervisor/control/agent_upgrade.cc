// Another version takes an agent's place: what upgrade.h leads to, probation and the way back, and what the next
// control makes of one that was interrupted.
#include <algorithm>
#include <utility>

#include "base/text.h"
#include "policies/upgrade_path.h"
#include "supervisor/control/agent.h"
#include "supervisor/control/egress_client.h"

namespace kai {

std::shared_ptr<void> Agent::claim() {
  if (!claim_.expired()) return nullptr;
  auto claimed = std::make_shared<char>();
  claim_ = claimed;
  return claimed;
}

std::string Agent::needs_new_process(const Manifest& to, const Compiled& to_compiled) const {
  const auto from = description();
  if (!from) return "what it may do now is not known: " + from.error().message();
  return kai::needs_new_process(manifest_, *from, to, to_compiled);
}

void Agent::upgrade(UpgradeOrder order, Upgrade::Done done) {
  end_probation();
  environment_.log.write(
      LogLevel::kInfo, row_.id, "kai.upgrading",
      "version " + order.report.to + " takes the place of " + order.report.from,
      {{"type", to_string(order.report.type)},
       {"how", order.report.soft ? "in its process" : "in a new process"},
       {"from", order.report.from},
       {"to", order.report.to},
       {"askedBy", order.report.operator_uid ? "uid " + std::to_string(*order.report.operator_uid) : "kaid"},
       {"forced", order.report.forced}});
  upgrade_ = std::make_unique<Upgrade>(*this, std::move(order), std::move(done));
  static_cast<void>(apply(Event::kUpgrade));
  upgrade_->begin();
}

// ── the steps of upgrade.cc that change the agent ──

void Agent::use_version(RegisteredAgent row, Manifest manifest) {
  row_ = std::move(row);
  manifest_ = std::move(manifest);
  prepared_.reset();
}

void Agent::activate(const RegisteredVersion& version, const Manifest& manifest) {
  auto row = environment_.registry.activate(row_.id, version.version, row_.upgrade);
  check(row ? Result<>{} : tl::unexpected(row.error()));
  if (!row) {  // it serves all the same; what is at rest is the old one still
    RegisteredAgent known = row_;
    known.active = version;
    row = std::move(known);
  }
  use_version(std::move(*row), manifest);
}

/// `standby`: of a hard one, where messages go now; null: the process that runs has changed.
void Agent::take_version(const RegisteredVersion& version, const Manifest& manifest, const PreparedSandbox& sandbox,
                         std::unique_ptr<Instance> standby, std::unique_ptr<OutputPipes> output) {
  const bool soft = standby == nullptr;
  if (!soft) {
    leave(std::exchange(instance_, std::move(standby)), std::exchange(output_, std::move(output)));
    instance_->set_handlers(instance_handlers(*instance_, *output_));
    up_since_ = monotonic_ms();
    start_asked_at_ = up_since_;
  }
  soft_swaps_ = soft ? soft_swaps_ + 1 : 0;
  instance_->committed(sandbox);
  activate(version, manifest);
  if (soft) return;
  register_key();
  update_network();
  report(LogLevel::kInfo, "started", "it is ready", {{"pid", instance_->pid()}, {"version", version.version}});
}

/// What has no place any more ends by its onShutdown.
void Agent::stop_leaving() {
  for (Leaving& leaving : leaving_) leaving.instance->stop(policy().deadlines.stop);
}

/// Until its process is gone: nobody but its memory and its own requests knows it any more.
void Agent::leave(std::unique_ptr<Instance> instance, std::unique_ptr<OutputPipes> output) {
  Leaving& leaving = leaving_.emplace_back();
  leaving.output = std::move(output);
  leaving.instance = std::move(instance);
  Instance& gone = *leaving.instance;
  Instance::Handlers handlers = instance_handlers(gone, *leaving.output);
  handlers.activated = handlers.started = [] {};
  handlers.resumed = [](const klp::Resume&) {};
  handlers.ended = [this, &gone](const End& end) {
    environment_.log.write(LogLevel::kInfo, row_.id, "kai.left",
                           "the process of another version of it has ended: " + end.message, {{"pid", gone.pid()}});
    const auto place = std::find_if(leaving_.begin(), leaving_.end(),
                                    [&gone](const Leaving& each) { return each.instance.get() == &gone; });
    if (place == leaving_.end()) return;
    for (const std::uint64_t transaction : place->transactions) {
      klp::MemoryRequest abort;
      abort.mutable_indexed_db()->set_transaction(transaction);
      abort.mutable_indexed_db()->mutable_abort();
      memory_.perform(std::move(abort), [](klp::MemoryAnswer&&) {});
    }
    auto ended = std::move(*place);
    leaving_.erase(place);
    const bool settled = upgrade_record_ && upgrade_record_->phase == UpgradeRecord::Phase::kLeaving;
    if (settled && leaving_.empty()) set_upgrade_record({});
    drop_leaving(std::move(ended.instance), std::move(ended.output));
  };
  gone.set_handlers(std::move(handlers));
}

/// Its process is gone. It may be what says so, and goes a moment later.
void Agent::drop_leaving(std::unique_ptr<Instance> instance, std::unique_ptr<OutputPipes> output) {
  if (output) output->finish();
  if (!instance) return;
  if (instance->has_network()) environment_.egress->ended(instance->number(), row_.id);
  if (instance->channel() != nullptr) {
    instance->channel()->fail_all(
        refuse("NOT_RUNNING", "a version of agent '" + row_.id + "' ended before it answered").value());
  }
  environment_.loop.defer([gone = std::shared_ptr<Instance>(std::move(instance)),
                           pipes = std::shared_ptr<OutputPipes>(std::move(output))] {});
}

Instance* Agent::instance_numbered(std::uint64_t number) const {
  if (instance_ && instance_->number() == number) return instance_.get();
  if (upgrade_ && upgrade_->standby() != nullptr && upgrade_->standby()->number() == number) return upgrade_->standby();
  for (const Leaving& leaving : leaving_) {
    if (leaving.instance && leaving.instance->number() == number) return leaving.instance.get();
  }
  return nullptr;
}

/// `serves`: false where its process ended, and another one is about to be started.
void Agent::upgrade_over(UpgradeReport& report, const Upgrade::Done& done, bool serves) {
  report.messages_held = held_.take_count();
  report.rollback_available = rollback_available();
  const bool on_probation = !report.failure && report.type != UpgradeType::kRollback;
  report.probation_ms = on_probation ? policy_->upgrade.probation.count() : 0;
  if (!upgrade_->saved_state().empty() && (report.probation_ms > 0 || !serves)) {
    check(environment_.registry.set_saved_state(row_.id, upgrade_->saved_state()));
  }
  report_upgrade(report);
  environment_.audit.flush();
  if (!upgrade_->bad().empty()) check(environment_.registry.mark_bad(row_.id, report.to, upgrade_->bad()));
  if (report.failure) {
    serves ? settle_upgrade() : set_upgrade_record({});
  } else {
    begin_probation(report);
  }
  if (serves && state_ == State::kUpgrading) {
    static_cast<void>(apply(Event::kUpgraded));
    watch_health();
    release();
  }
  environment_.loop.defer([over = std::shared_ptr<Upgrade>(std::move(upgrade_))] {});
  // What an operator is told has happened is on the disk.
  acknowledge({}, [done, report](const Outcome<>& recorded) {
    UpgradeReport told = report;
    if (!recorded && !told.failure) told.failure = recorded.error();
    done(told);
  });
}

void Agent::report_upgrade(const UpgradeReport& report) {
  const bool back = report.type == UpgradeType::kRollback;
  const std::string steps = steps_text(report);
  const std::string way = report.from + " to " + report.to;
  const std::string message =
      report.failure ? "the upgrade from " + way + " failed, " + report.from + " goes on: " + report.failure->message
                     : (back ? "it was taken back from " : "it was upgraded from ") + way +
                           (report.reason.empty() ? "" : ": " + report.reason);
  const LogLevel level = report.failure ? LogLevel::kError : report.automatic ? LogLevel::kWarn : LogLevel::kInfo;
  const std::string asked_by = report.operator_uid ? "uid " + std::to_string(*report.operator_uid) : "kaid";
  environment_.log.write(level, row_.id, "upgraded", message,
                         {{"success", !report.failure},
                          {"askedBy", asked_by},
                          {"from", report.from},
                          {"to", report.to},
                          {"type", to_string(report.type)},
                          {"how", report.soft ? "in its process" : "in a new process"},
                          {"steps", steps},
                          {"messagesHeld", report.messages_held},
                          {"pauseMs", static_cast<std::int64_t>(report.pause_ms)},
                          {"forced", report.forced},
                          {"probationMs", report.probation_ms}});
  environment_.audit.append(row_.id, "upgraded", upgrade_metadata(report));
}

void Agent::set_upgrade_record(std::optional<UpgradeRecord> record) {
  upgrade_record_ = std::move(record);
  row_.upgrade = upgrade_record_ ? to_json(*upgrade_record_) : "";
  check(environment_.registry.set_upgrade(row_.id, row_.upgrade));
  if (!upgrade_record_) probation_timer_.stop();
}

void Agent::abandon_upgrade(const std::string& why) {
  if (upgrade_) upgrade_->abandon(why);
  for (Leaving& leaving : leaving_) leaving.instance->kill();
}

void Agent::note_replaced(const UpgradeReport& report) {
  report_upgrade(report);
}

bool Agent::wants(std::uint64_t instance) const {
  return !upgrade_record_ || upgrade_record_->instance == instance;
}

void Agent::finish_interrupted_upgrade() {
  if (!upgrade_record_ || instance_) return;
  if (upgrade_record_->phase == UpgradeRecord::Phase::kProbation) return watch_probation();
  if (upgrade_record_->phase == UpgradeRecord::Phase::kUnderWay) return report_interrupted(row_.active.version);
  set_upgrade_record({});
}

// ── probation ──

void Agent::begin_probation(const UpgradeReport& report) {
  if (report.probation_ms == 0) return settle_upgrade();
  UpgradeRecord record;
  record.phase = UpgradeRecord::Phase::kProbation;
  record.type = report.type;
  record.from = report.from;
  record.to = report.to;
  record.before = report.before;
  record.instance = instance_->number();
  record.until = unix_ms() + report.probation_ms;
  record.operator_uid = report.operator_uid;
  set_upgrade_record(std::move(record));
  watch_probation();
}

void Agent::watch_probation() {
  if (health_) health_->watch_closely(true);
  const std::chrono::milliseconds left(std::max<std::int64_t>(upgrade_record_->until - unix_ms(), 0));
  probation_timer_.start(left, [this] {
    environment_.log.write(LogLevel::kInfo, row_.id, "kai.probation",
                           "version " + row_.active.version + " is through its probation and stays");
    if (health_) health_->watch_closely(false);
    end_probation();
  });
}

/// Nothing is under way or on probation any more. Where the process of a version before is still there, the next
/// control has to know which one serves.
void Agent::settle_upgrade() {
  probation_timer_.stop();
  if (leaving_.empty() || !instance_) return set_upgrade_record({});
  UpgradeRecord record;
  record.phase = UpgradeRecord::Phase::kLeaving;
  record.from = record.to = row_.active.version;
  record.instance = instance_->number();
  set_upgrade_record(std::move(record));
}

void Agent::end_probation() {
  if (!upgrade_record_ || upgrade_record_->phase != UpgradeRecord::Phase::kProbation) return;
  settle_upgrade();
  check(environment_.registry.set_saved_state(row_.id, {}));
}

/// What ended a version on probation speaks against it; what an operator did, or what quarantines it, does not.
bool Agent::may_fall_back(const End& end) const {
  if (!upgrade_record_ || upgrade_record_->phase != UpgradeRecord::Phase::kProbation) return false;
  if (state_ != State::kRunning && state_ != State::kStarting) return false;
  if (end.clean() || end.for_now || end.over_disk) return false;
  return end.cause != Cause::kStopped && end.cause != Cause::kHelloRefused && end.cause != Cause::kSeccomp;
}

/// false: there is nothing to go back to.
bool Agent::fall_back(const End& end) {
  const auto versions = environment_.registry.versions(row_.id);
  check(versions ? Result<>{} : tl::unexpected(versions.error()));
  if (!versions) return false;
  const UpgradeRecord failed = *upgrade_record_;
  const auto before = std::find_if(versions->begin(), versions->end(), [&failed](const RegisteredVersion& version) {
    return version.version == failed.from;
  });
  if (before == versions->end()) return false;
  ManifestResult parsed = parse_manifest(before->manifest_json);
  if (!parsed.manifest) return false;
  report(LogLevel::kError, "kai.crashed", end.message, {{"cause", to_string(end.cause)}, {"crashes", crashes()}});
  UpgradeRecord record;
  record.type = UpgradeType::kRollback;
  record.from = failed.to;
  record.to = failed.from;
  auto row = environment_.registry.activate(row_.id, failed.from, to_json(record));
  check(row ? Result<>{} : tl::unexpected(row.error()));
  if (!row) return false;
  check(environment_.registry.mark_bad(row_.id, failed.to, end.message));
  check(environment_.registry.set_previous_version(row_.id, failed.before));
  row->previous_version = failed.before;
  use_version(std::move(*row), std::move(*parsed.manifest));
  probation_timer_.stop();
  upgrade_record_ = std::move(record);
  UpgradeReport& back = falling_back_.emplace();
  back.id = row_.id;
  back.type = UpgradeType::kRollback;
  back.automatic = true;
  back.from = failed.to;
  back.to = failed.from;
  back.reason =
      "version " + failed.to + " failed on probation and is not tried again until its bytes change: " + end.message;
  fell_back_at_ = now_ms_exact();
  return true;
}

/// It serves again, or does not come up either (`failure`).
void Agent::note_fallen_back(const std::string& failure) {
  if (!falling_back_) return;
  UpgradeReport back = *std::exchange(falling_back_, std::nullopt);
  back.steps.push_back({"restart", now_ms_exact() - fell_back_at_});
  back.pause_ms = back.steps.back().ms;
  back.messages_held = held_.take_count();
  back.rollback_available = rollback_available();
  if (!failure.empty()) back.failure = refuse("AGENT_CRASHED", failure).value();
  settle_upgrade();
  report_upgrade(back);
}

bool Agent::rollback_available() const {
  if (row_.previous_version.empty()) return false;
  const auto versions = environment_.registry.versions(row_.id);
  return versions && std::any_of(versions->begin(), versions->end(), [this](const RegisteredVersion& version) {
           return version.version == row_.previous_version && version.bad.empty();
         });
}

std::optional<Event> Agent::judge_upgrade(const End& end) {
  // Of a control before, and what it led to ends now.
  const bool stale = !upgrade_ && upgrade_record_ && upgrade_record_->phase == UpgradeRecord::Phase::kUnderWay;
  if (stale && !falling_back_ && !lost_in_upgrade_) report_interrupted(row_.active.version);
  if (falling_back_) note_fallen_back("version " + row_.active.version + " did not come up: " + end.message);
  const bool lost = std::exchange(lost_in_upgrade_, false) && state_ == State::kUpgrading;
  if (!lost && !(may_fall_back(end) && fall_back(end))) return std::nullopt;
  automatic_ = true;
  holding_ = true;  // what comes now waits for the version before
  return Event::kFellBack;
}

/// The start that is under way goes on from a saved state.
void Agent::start_from_state() {
  restore_steps_.clear();
  restore_ = std::make_unique<HookSequence>(
      environment_.loop, *instance_,
      std::vector{hook_call(klp::HookCall::INIT), restore_call(restoring_), hook_call(klp::HookCall::START),
                  hook_call(klp::HookCall::COMMIT)},
      environment_.loop.now_ms() + policy().deadlines.start.count(), restore_steps_, [this](const Outcome<>& outcome) {
        environment_.loop.defer([done = std::shared_ptr<HookSequence>(std::move(restore_))] {});
        // Once, whatever comes of it: a state that it does not take would keep it from ever starting.
        restoring_.clear();
        check(environment_.registry.set_saved_state(row_.id, {}));
        if (!outcome) {
          environment_.log.write(
              LogLevel::kError, row_.id, "error",
              "it could not go on from its saved state, which is dropped: " + outcome.error().message);
          return instance_->fail_start("start", outcome.error().message);
        }
        instance_->committed(*prepared_);
        on_started();
      });
  restore_->run();
}

// ── of the control before ──

/// Of one that was interrupted: where it may have come to.
std::optional<KlpIdentity> Agent::other_identity() const {
  // A second instance is what it is, and what has been settled is.
  const bool open = upgrade_record_ && upgrade_record_->phase == UpgradeRecord::Phase::kUnderWay;
  if (!open || upgrade_record_->standby != 0) return std::nullopt;
  const std::string& other = row_.active.version == upgrade_record_->to ? upgrade_record_->from : upgrade_record_->to;
  const auto versions = environment_.registry.versions(row_.id);
  if (!versions) return std::nullopt;
  for (const RegisteredVersion& version : *versions) {
    if (version.version != other) continue;
    const ManifestResult parsed = parse_manifest(version.manifest_json);
    if (!parsed.manifest) return std::nullopt;
    const auto compiled = compile(*parsed.manifest, *policy_, {version.package, version.entry_override});
    if (!compiled) return std::nullopt;
    return KlpIdentity{version.version, parsed.manifest->capabilities, compiled->permissions};
  }
  return std::nullopt;
}

/// It has said which version it is: that one is the active one.
void Agent::settle_adopted_upgrade() {
  if (!upgrade_record_) return;
  const std::string serving = instance_->channel()->version();
  if (upgrade_record_->phase != UpgradeRecord::Phase::kUnderWay && serving == row_.active.version) {
    const bool watched = upgrade_record_->phase == UpgradeRecord::Phase::kProbation;
    return watched ? watch_probation() : set_upgrade_record({});
  }
  if (serving != row_.active.version) {
    const auto versions = environment_.registry.versions(row_.id);
    auto row = environment_.registry.activate(row_.id, serving, "");
    check(row ? Result<>{} : tl::unexpected(row.error()));
    ManifestResult parsed = row ? parse_manifest(row->active.manifest_json) : ManifestResult{};
    if (parsed.manifest) use_version(std::move(*row), std::move(*parsed.manifest));
  }
  report_interrupted(serving);
}

void Agent::report_interrupted(const std::string& serving) {
  UpgradeReport report;
  report.id = row_.id;
  report.type = upgrade_record_->type;
  report.from = upgrade_record_->from;
  report.to = upgrade_record_->to;
  report.operator_uid = upgrade_record_->operator_uid;
  report.rollback_available = rollback_available();
  report.reason = "kaid was started again in the middle of it";
  if (serving != report.to) report.failure = refuse("UNAVAILABLE", report.reason).value();
  set_upgrade_record({});
  report_upgrade(report);
}

}  // namespace kai
