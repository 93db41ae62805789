// kaictl upgrade and rollback: package taken, or found in the archive → path checked → backup → Agent::upgrade.
#include <algorithm>
#include <memory>
#include <utility>

#include <nlohmann/json.hpp>

#include "policies/upgrade_path.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/package_intake.h"
#include "supervisor/control/requests.h"
#include "supervisor/control/snapshot.h"

namespace kai {
namespace {

using Json = nlohmann::ordered_json;
using Weight = UpgradeFinding::Weight;

/// What an operator asked for, upgrade or rollback.
struct Asked {
  std::string id;
  UpgradeType type = UpgradeType::kSoft;
  std::string version;  ///< of the archive; empty: the package
  bool force = false, backup = true, dry_run = false;
};

Json findings_json(const std::vector<UpgradeFinding>& findings) {
  Json list = Json::array();
  for (const UpgradeFinding& finding : findings) {
    Json json = {{"kind", to_string(finding.kind)}, {"weight", to_string(finding.weight)}};
    if (!finding.pointer.empty()) json["pointer"] = finding.pointer;
    json["message"] = finding.message;
    if (!finding.rule.empty()) json["rule"] = finding.rule;
    list.push_back(std::move(json));
  }
  return list;
}

bool stops(const UpgradeFinding& finding, bool force) {
  return finding.weight == Weight::kRefused || (finding.weight == Weight::kNeedsForce && !force);
}

std::vector<UpgradeDependent> dependents_of(const Agents& agents, const std::string& id) {
  std::vector<UpgradeDependent> found;
  for (const auto& [other, agent] : agents.all()) {
    for (const Dependency& dependency : agent->manifest().dependencies) {
      const bool depends = dependency.type == DependencyType::kAgent && dependency.name == id && other != id;
      if (depends) found.push_back({other, dependency.version});
    }
  }
  return found;
}

/// One upgrade from the request to its answer, held by the callbacks of whatever step it is in.
class UpgradeRequest : public std::enable_shared_from_this<UpgradeRequest> {
 public:
  UpgradeRequest(Operations& operations, Asked asked, const Responder& responder)
      : operations_(operations),
        environment_(operations.environment),
        asked_(std::move(asked)),
        responder_(responder),
        step_began_(now_ms_exact()) {}

  void start(PackageSource source) {
    Agent* const agent = claim();
    if (agent == nullptr) return;
    if (asked_.version.empty() && !source.tar) {
      return refuse_request(
          {"INVALID", "the request came without the package", "Use a kaictl of the same version as kaid", {}, false});
    }
    if (!asked_.version.empty()) return from_archive(*agent);
    source.uid = responder_.uid();
    take_package(
        environment_, std::move(source),
        [responder = responder_](const std::string& what) { responder.progress(what); },
        [self = shared_from_this()](Outcome<Intake> intake) {
          if (!intake) return self->refuse_request(intake.error());
          self->step("package");
          self->taken_ = true;
          self->intake_ = std::move(*intake);
          self->check();
        });
  }

  void roll_back() {
    Agent* const agent = claim();
    if (agent == nullptr) return;
    if (asked_.version.empty()) asked_.version = agent->row().previous_version;
    if (asked_.version.empty()) {
      return refuse_request({"NOT_FOUND",
                             "agent '" + asked_.id + "' has had no version before " + agent->row().active.version,
                             "See 'kaictl versions " + asked_.id + "'",
                             {},
                             false});
    }
    from_archive(*agent);
  }

 private:
  /// nullptr: it is answered.
  Agent* claim() {
    Agent* const agent = operations_.agents.find(asked_.id);
    if (agent == nullptr) {
      responder_.fail(not_registered(asked_.id));
      return nullptr;
    }
    claim_ = agent->claim();
    if (claim_) return agent;
    responder_.fail({"UPGRADING",
                     "agent '" + asked_.id + "' is being upgraded already",
                     "Try again when that is done: see 'kaictl status " + asked_.id + "'",
                     {},
                     true});
    return nullptr;
  }

  /// nullptr: it was unregistered meanwhile, which is answered.
  Agent* agent() {
    Agent* const found = operations_.agents.find(asked_.id);
    if (found == nullptr) refuse_request(not_registered(asked_.id));
    return found;
  }

  void from_archive(const Agent& agent) {
    const auto versions = environment_.registry.versions(asked_.id);
    if (!versions) return refuse_request({"INTERNAL", versions.error().message(), {}, {}, false});
    const auto found = std::find_if(versions->begin(), versions->end(), [this](const RegisteredVersion& version) {
      return version.version == asked_.version;
    });
    if (found == versions->end()) {
      return refuse_request({"NOT_FOUND",
                             "version " + asked_.version + " of agent '" + asked_.id + "' is not in the archive",
                             "See 'kaictl versions " + agent.row().id + "'",
                             {},
                             false});
    }
    ManifestResult parsed = parse_manifest(found->manifest_json);
    if (!parsed.manifest) {
      return refuse_request({"INVALID",
                             "the manifest of version " + asked_.version + " is not valid for this kaid",
                             "Upgrade to its package anew",
                             {},
                             false});
    }
    intake_.manifest = std::move(*parsed.manifest);
    intake_.version = *found;
    check();
  }

  /// The version that serves, and the one that rollback goes back to, keep their bytes. true: it is answered.
  bool stands_for_other_bytes(const Agent& known) {
    const auto versions = environment_.registry.versions(asked_.id);
    if (!versions) {
      refuse_request({"INTERNAL", "the registry could not be read: " + versions.error().message(), {}, {}, false});
      return true;
    }
    const std::string& version = intake_.version.version;
    if (version != from_ && version != known.row().previous_version) return false;
    const bool other = std::any_of(versions->begin(), versions->end(), [&](const RegisteredVersion& each) {
      return each.version == version && each.package != intake_.version.package;
    });
    if (!other) return false;
    refuse_request({"INVALID",
                    "version " + version + (version == from_ ? " is active" : " is what rollback goes back to") +
                        ", with other bytes: a version stands for one package",
                    "Give the new package a version of its own",
                    {},
                    false});
    return true;
  }

  /// What stands against it, and how it would be done.
  void check() {
    Agent* const known = agent();
    if (known == nullptr) return;
    from_ = known->row().active.version;
    if (taken_ && stands_for_other_bytes(*known)) return;
    const auto bad = environment_.registry.bad_package(asked_.id, intake_.version.package);
    if (!bad) {
      return refuse_request({"INTERNAL", "the registry could not be read: " + bad.error().message(), {}, {}, false});
    }
    const auto policy = environment_.policies.for_agent(asked_.id);
    const UpgradeSide from{&known->manifest(), known->row().active.package, known->row().active.signer};
    const UpgradeSide to{&intake_.manifest, intake_.version.package, intake_.version.signer};
    const auto dependents = dependents_of(operations_.agents, asked_.id);
    findings_ = check_upgrade_path({from, to, *policy, dependents, asked_.type == UpgradeType::kRollback, *bad});
    const auto compiled = compile(intake_.manifest, *policy, {intake_.version.package, intake_.version.entry_override});
    if (!compiled) return refuse_request({"DENIED", compiled.error().message(), {}, {}, false});
    choose(*known, *compiled);
    step("check");
    if (asked_.dry_run) return answer_plan();
    const auto stop = std::find_if(findings_.begin(), findings_.end(),
                                   [this](const UpgradeFinding& finding) { return stops(finding, asked_.force); });
    if (stop != findings_.end()) return refuse_path(*stop);
    if (soft_is_impossible()) {
      return refuse_request({"INVALID", "it cannot be upgraded softly: " + why_, "Use --type hard", {}, false});
    }
    if (known->state() == State::kStarting || known->state() == State::kStopping) {
      return refuse_request({"CONFLICT",
                             "agent '" + asked_.id + "' is " + std::string(to_string(known->state())),
                             "Try again in a moment",
                             {},
                             true});
    }
    back_up(*known);
  }

  void choose(const Agent& known, const Compiled& compiled) {
    swaps_ = known.state() == State::kRunning || known.state() == State::kUpgrading;
    if (!swaps_ || asked_.type == UpgradeType::kHard) return;
    why_ = known.needs_new_process(intake_.manifest, compiled);
    const std::uint32_t most = known.policy().upgrade.max_soft_swaps;
    limit_reached_ = why_.empty() && known.soft_swaps() >= most;
    if (limit_reached_) {
      why_ = "its process has been through " + std::to_string(known.soft_swaps()) +
             " soft upgrades (upgrade.maxSoftSwaps, " + known.policy().rule("upgrade.maxSoftSwaps") + ")";
    }
    soft_ = why_.empty();
  }

  /// Asked for softly, and this version needs a process of its own.
  [[nodiscard]] bool soft_is_impossible() const {
    return asked_.type == UpgradeType::kSoft && swaps_ && !soft_ && !limit_reached_;
  }

  /// The steps that a swap of this agent has.
  [[nodiscard]] Json planned_steps() const {
    Json steps = Json::array();
    if (asked_.backup) steps.push_back("backup");
    if (!swaps_) steps.push_back("replace");
    if (!swaps_) return steps;
    if (!soft_) steps.push_back("sandbox");
    const bool hooks = intake_.manifest.runtime.protocol == Protocol::kRunner;
    if (!hooks) steps.push_back("start");
    if (!hooks) return steps;
    for (const char* name :
         {"load", "drain", "saveState", "init", "restoreState", "upgrade", "start", "health", "commit"}) {
      steps.push_back(name);
    }
    return steps;
  }

  void answer_plan() {
    const bool allowed = std::none_of(findings_.begin(), findings_.end(),
                                      [this](const UpgradeFinding& finding) { return stops(finding, asked_.force); });
    const bool possible = allowed && !soft_is_impossible();
    Json findings = findings_json(findings_);
    if (soft_is_impossible()) {
      findings.push_back({{"kind", "soft"}, {"weight", "refused"}, {"message", why_}});
    }
    Json json = {{"id", asked_.id},
                 {"from", from_},
                 {"to", intake_.version.version},
                 {"type", !swaps_ ? "replace"
                          : soft_ ? "soft"
                                  : "hard"},
                 {"why", why_},
                 {"allowed", possible},
                 {"findings", std::move(findings)},
                 {"steps", planned_steps()},
                 {"warnings", intake_.warnings}};
    const std::vector<std::string> warnings = intake_.warnings;
    forget_package();
    responder_.done(json.dump(-1, ' ', false, Json::error_handler_t::replace), warnings);
  }

  void refuse_path(const UpgradeFinding& stop) {
    using Kind = UpgradeFinding::Kind;
    const bool of_policy = stop.kind == Kind::kSigner || stop.kind == Kind::kBad || stop.kind == Kind::kWidened;
    std::string message = stop.message + (stop.rule.empty() ? "" : " [" + stop.rule + "]");
    const auto more = std::count_if(findings_.begin(), findings_.end(),
                                    [this](const UpgradeFinding& finding) { return stops(finding, asked_.force); });
    if (more > 1) message += " (and " + std::to_string(more - 1) + " more)";
    const bool force_helps = std::none_of(findings_.begin(), findings_.end(), [](const UpgradeFinding& finding) {
      return finding.weight == Weight::kRefused;
    });
    refuse_request({of_policy ? "DENIED" : "INVALID",
                    message,
                    asked_.type == UpgradeType::kRollback ? "See 'kaictl versions " + asked_.id + "'"
                    : force_helps                         ? "See all of it with --dry-run; --force does it all the same"
                                                          : "See all of it with --dry-run",
                    {},
                    false});
  }

  void back_up(Agent& known) {
    if (taken_) {
      report_created(environment_, intake_, responder_.uid());
      const auto added = environment_.registry.add_version(asked_.id, intake_.version);
      if (!added)
        return refuse_request(
            {"INTERNAL", "the registry could not be written: " + added.error().message(), {}, {}, false});
      archived_ = true;
    }
    if (!asked_.backup) return go(known);
    responder_.progress("making a backup of version " + from_);
    write_backup(environment_, known, [self = shared_from_this()](Outcome<std::string> backup) {
      if (!backup) {
        Failure failure = backup.error();
        failure.message = "no backup could be made, so nothing was changed: " + failure.message;
        failure.hint = "Mend that, or do without one: --no-backup";
        return self->refuse_request(failure);
      }
      self->step("backup");
      self->backup_ = std::move(*backup);
      if (Agent* const agent = self->agent()) self->go(*agent);
    });
  }

  void go(Agent& known) {
    UpgradeOrder order;
    UpgradeReport& report = order.report;
    report.id = asked_.id;
    report.from = from_;
    report.to = intake_.version.version;
    report.type = asked_.type == UpgradeType::kSoft && !soft_ ? UpgradeType::kHard : asked_.type;
    report.soft = soft_;
    report.reason = asked_.type == UpgradeType::kHard ? "" : why_;
    report.steps = std::move(steps_);
    report.forced = asked_.force;
    report.backup = backup_;
    report.operator_uid = responder_.uid();
    if (known.state() != State::kRunning) return replace(known, report);
    if (!soft_ && known.is_leaving()) {
      return refuse_request({"BUSY",
                             "the process of the version before has not ended yet: it is in its onShutdown",
                             "Try again in a moment",
                             {},
                             true});
    }
    responder_.progress("version " + report.to + " takes the place of " + report.from);
    order.version = intake_.version;
    order.manifest = intake_.manifest;
    known.asked_by(responder_.uid());
    known.upgrade(std::move(order), [self = shared_from_this()](const UpgradeReport& over) { self->answer(over); });
  }

  /// Of one that does not run: its next start is another version's.
  void replace(Agent& known, UpgradeReport report) {
    const bool again = known.state() == State::kBackoff;
    if (!known.idle() && !again) {
      return refuse_request({"CONFLICT",
                             "agent '" + asked_.id + "' is " + std::string(to_string(known.state())),
                             "Try again in a moment",
                             {},
                             true});
    }
    known.asked_by(responder_.uid());
    if (again) static_cast<void>(known.stop());
    const auto put = operations_.agents.put(intake_.manifest, intake_.version);
    if (!put)
      return refuse_request({"INTERNAL", "the registry could not be written: " + put.error().message(), {}, {}, false});
    report.rollback_available = (*put)->rollback_available();
    report.replaced = true;
    (*put)->note_replaced(report);
    if (again) static_cast<void>((*put)->start());
    environment_.audit.when_durable([self = shared_from_this(), report](const Result<>& durable) {
      if (!durable) return self->responder_.fail(not_recorded(durable.error()));
      self->answer(report);
    });
  }

  void answer(const UpgradeReport& report) {
    claim_.reset();
    std::string document = upgrade_document(report, intake_.warnings);
    if (!report.failure) return responder_.done(std::move(document), intake_.warnings);
    Failure failure = *report.failure;
    failure.message = "the upgrade of '" + asked_.id + "' from " + report.from + " to " + report.to +
                      " failed, version " + report.from + " goes on: " + failure.message;
    failure.details_json = std::move(document);
    if (failure.hint.empty()) failure.hint = "See 'kaictl logs " + asked_.id + "'";
    responder_.fail(failure);
  }

  /// Nothing was begun: who asked for what, and why not, is recorded all the same, but for a dry run.
  void refuse_request(Failure failure) {
    claim_.reset();
    UpgradeReport report;
    report.id = asked_.id;
    const Agent* const known = operations_.agents.find(asked_.id);
    report.from = from_.empty() && known != nullptr ? known->row().active.version : from_;
    report.to = intake_.version.version.empty() ? asked_.version : intake_.version.version;
    report.type = asked_.type;
    report.soft = asked_.type == UpgradeType::kSoft;
    report.steps = std::move(steps_);
    report.forced = asked_.force;
    report.operator_uid = responder_.uid();
    report.rollback_available = known != nullptr && known->rollback_available();
    report.failure = failure;
    Json details = Json::parse(upgrade_document(report, intake_.warnings));
    if (!findings_.empty()) details["findings"] = findings_json(findings_);
    if (!failure.details_json.empty()) {
      const Json more = Json::parse(failure.details_json, nullptr, false);
      if (more.is_object()) details.update(more);
    }
    failure.details_json = details.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (known != nullptr && !asked_.dry_run) {
      environment_.log.write(LogLevel::kWarn, asked_.id, "upgraded", "an upgrade was refused: " + failure.message,
                             {{"success", false},
                              {"code", failure.code},
                              {"askedBy", "uid " + std::to_string(responder_.uid())},
                              {"forced", asked_.force}});
      environment_.audit.append(asked_.id, "upgraded", upgrade_metadata(report));
    }
    forget_package();
    responder_.fail(failure);
  }

  /// A package that came and is not taken is not kept.
  void forget_package() {
    if (!taken_ || archived_) return;
    taken_ = false;
    drop_package(environment_, std::exchange(intake_, {}));
  }

  void step(std::string name) {
    const double now = now_ms_exact();
    steps_.push_back({std::move(name), now - std::exchange(step_began_, now)});
  }

  Operations& operations_;
  Environment& environment_;
  Asked asked_;
  Responder responder_;
  std::shared_ptr<void> claim_;
  Intake intake_;
  bool taken_ = false;     // the package came with the request
  bool archived_ = false;  // and the registry knows it
  std::string from_;
  std::vector<UpgradeFinding> findings_;
  bool swaps_ = false;  // the agent runs
  bool soft_ = false;
  bool limit_reached_ = false;
  std::string why_;  // not soft
  std::string backup_;
  std::vector<UpgradeStep> steps_;
  double step_began_;
};

}  // namespace

void handle_upgrade(Operations& operations, const control::Upgrade& request, Fd tar, const Responder& responder) {
  Asked asked;
  asked.id = request.id();
  asked.version = request.version();
  asked.force = request.force();
  asked.backup = !request.no_backup();
  asked.dry_run = request.dry_run();
  if (request.type() == "hard") asked.type = UpgradeType::kHard;
  if (!request.type().empty() && request.type() != "hard" && request.type() != "soft") {
    return responder.fail({"INVALID", "an upgrade is soft or hard, not '" + request.type() + "'", {}, {}, false});
  }
  PackageSource source;
  source.tar = std::move(tar);
  source.local_directory = request.directory();
  std::make_shared<UpgradeRequest>(operations, std::move(asked), responder)->start(std::move(source));
}

void handle_rollback(Operations& operations, const control::Rollback& request, const Responder& responder) {
  Asked asked;
  asked.id = request.id();
  asked.version = request.version();
  asked.type = UpgradeType::kRollback;
  asked.backup = false;
  std::make_shared<UpgradeRequest>(operations, std::move(asked), responder)->roll_back();
}

}  // namespace kai
