#include "base/fault_point.h"
#include "base/text.h"
#include "base/unix.h"
#include "supervisor/control/agent.h"
#include "supervisor/control/evidence.h"

namespace kai {

Outcome<> Agent::quarantine(QuarantineReason reason) {
  if (state_ == State::kQuarantined) return aggravate(std::move(reason));
  abandon_upgrade("it was quarantined");
  pending_quarantine_ = std::move(reason);
  auto taken = apply(Event::kQuarantine);
  pending_quarantine_.reset();
  return taken;
}

/// A second reason counts where it weighs more than the first.
Outcome<> Agent::aggravate(QuarantineReason reason) {
  if (reason.severity <= quarantine_->reason.severity) {
    return refuse("CONFLICT", "agent '" + row_.id + "' is quarantined already: " + quarantine_->reason.description,
                  "See 'kaictl quarantine show " + row_.id + "'; a higher --severity would replace its reason");
  }
  quarantine_->max_retries = max_retries(policy().quarantine, reason.severity);
  quarantine_->reason = std::move(reason);
  report_quarantine();
  environment_.audit.flush();
  save_rest(State::kQuarantined);
  return {};
}

Outcome<> Agent::recover(bool force) {
  if (state_ != State::kQuarantined) return apply(Event::kRecover);
  if (!force && !quarantine_->retries_left()) {
    Failure failure{
        "QUARANTINED",
        "agent '" + row_.id + "' is not recovered: max_retries_exceeded (" + std::to_string(quarantine_->retry_count) +
            " of " + std::to_string(quarantine_->max_retries) + " retries are used up)",
        "When its fault is mended: kaictl recover --force " + row_.id, R"({"reason":"max_retries_exceeded"})", false};
    report(LogLevel::kWarn, "error", failure.message);
    return tl::unexpected(failure);
  }
  if (const auto refused = refusal()) return tl::unexpected(*refused);
  forced_ = force;
  automatic_ = false;
  set_desired(Desired::kRunning);
  return end_isolated(Event::kRecover) ? Outcome<>{} : apply(Event::kRecover);
}

bool Agent::end_isolated(Event event) {
  if (!instance_) return false;
  follow_up_ = event;
  instance_->kill();
  return true;
}

void Agent::begin_quarantine() {
  if (quarantine_) {  // a recovery that failed: the record goes on
    if (std::exchange(recovering_, false)) count_retry(pending_quarantine_ ? pending_quarantine_->description : "");
    return save_rest(State::kQuarantined);
  }
  QuarantineRecord record;
  record.reason = pending_quarantine_.value_or(QuarantineReason{});
  record.quarantined_at = iso_now();
  record.max_retries = max_retries(policy().quarantine, record.reason.severity);
  quarantine_ = std::move(record);
  // The one transition that is an effect before it is recorded: interrupted in between, it has to hold. Until evidence
  // is kept the quarantine is unfinished, and the next control records it again.
  fault_point("before registry");
  save_rest(State::kQuarantined);
  report_quarantine();
}

/// Of the control before, which did not come to its end.
void Agent::finish_quarantine() {
  if (state_ != State::kQuarantined || !quarantine_->evidence.empty()) return;
  report_quarantine();
  isolate();
}

void Agent::report_quarantine() {
  report(LogLevel::kError, "quarantined",
         quarantine_->reason.description + "; see 'kaictl quarantine show " + row_.id + "'",
         {{"type", to_string(quarantine_->reason.type)},
          {"severity", to_string(quarantine_->reason.severity)},
          {"maxRetries", quarantine_->max_retries}});
}

/// It was started anew and serves: only now is it out of quarantine.
void Agent::leave_quarantine() {
  recovering_ = false;
  const std::uint32_t retries = quarantine_ ? quarantine_->retry_count : 0;
  quarantine_.reset();
  report(LogLevel::kInfo, "recovered", "it was started anew and is out of quarantine",
         {{"retryCount", retries}, {"forced", forced_}});
  environment_.audit.flush();
  row_.state = kActive;
  row_.quarantine.clear();
  check(environment_.registry.set_quarantine(row_.id, row_.state, row_.quarantine));
}

Event Agent::recovery_failed(const End& end) {
  // That an operator stopped it says nothing about it.
  if (state_ != State::kStopping) count_retry(end.message);
  return Event::kCondemned;
}

void Agent::count_retry(const std::string& why) {
  ++quarantine_->retry_count;
  report(LogLevel::kError, "error", "its recovery failed, it stays quarantined: " + why,
         {{"retryCount", quarantine_->retry_count}, {"maxRetries", quarantine_->max_retries}, {"forced", forced_}});
}

// Stopped where it stands, looked at, and then kept so or ended, as policy says. Its network is cut, and
// its channel is read no more.
void Agent::isolate() {
  const auto health = std::move(health_);
  if (!instance_) return keep_evidence({}, {});
  if (follow_up_ == Event::kTerminate) return instance_->kill();
  if (instance_->channel() != nullptr) {
    instance_->channel()->fail_all(
        {"QUARANTINED", "agent '" + row_.id + "' was quarantined before it answered", {}, {}, false});
  }
  instance_->isolate(
      [this, alive = std::weak_ptr(alive_)](bool frozen, const std::string& processes, const std::string& missing) {
        if (alive.expired()) return;
        keep_evidence(processes, missing);
        if (!instance_ || (frozen && !policy().quarantine.kill)) return;
        environment_.log.write(LogLevel::kInfo, row_.id, "kai.quarantine",
                               frozen ? "its processes are ended (quarantine.mode: kill)"
                                      : "its processes cannot be frozen on this machine and are ended: " + missing);
        instance_->kill();
      });
}

void Agent::keep_evidence(const std::string& processes, const std::string& missing) {
  if (!quarantine_) return;
  const auto evidence = std::make_shared<Evidence>();
  evidence->agent = row_.id;
  evidence->taken_at = iso_now();
  evidence->reason_json = row_.quarantine;
  evidence->last_end_json = row_.last_end;
  evidence->denials.assign(denials_.recent().begin(), denials_.recent().end());
  evidence->messages.assign(headers_.begin(), headers_.end());
  evidence->processes = processes;
  evidence->processes_missing = missing;
  const std::string name = row_.id + ".json";
  const std::string state = environment_.hello.state_dir();
  const auto written = std::make_shared<Result<>>();
  environment_.loop.work([evidence, written, log = state + "/log",
                          path = state + "/quarantine/" + name] { *written = write_evidence(*evidence, log, path); },
                         [this, alive = std::weak_ptr(alive_), written, name] {
                           if (alive.expired() || !quarantine_) return;
                           check(*written);
                           if (!*written) return;
                           quarantine_->evidence = name;
                           save_rest(State::kQuarantined);
                         });
}

}  // namespace kai
