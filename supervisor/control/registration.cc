// `kaictl register`: package taken → checked against what is registered → registry.
#include <memory>

#include "supervisor/control/audit_log.h"
#include "supervisor/control/documents.h"
#include "supervisor/control/package_intake.h"
#include "supervisor/control/packages_signature.h"
#include "supervisor/control/requests.h"

namespace kai {
namespace {

/// Whether this package may be the agent's active version now. `known`: as it is registered.
Outcome<> may_replace(const Registry& registry, const Agent& known, const Intake& intake, const Policy& policy) {
  const std::string& id = intake.manifest.id;
  const RegisteredVersion& active = known.row().active;
  if (!known.idle()) {
    return refuse("CONFLICT",
                  "agent '" + id + "' is " + std::string(to_string(known.state())) + " with version " + active.version +
                      ": another version cannot take its place now",
                  "Stop it first: kaictl stop " + id + "; or, without a stop: kaictl upgrade " + id + " PATH");
  }
  const auto bad = registry.bad_package(id, intake.version.package);
  if (!bad) return refuse("INTERNAL", "the registry could not be read: " + bad.error().message());
  if (!bad->empty()) {
    return refuse("DENIED",
                  "version " + intake.version.version + " was taken back before (" + *bad +
                      ") and is not tried again with the same bytes",
                  "Mend it, and register the new package");
  }
  return may_change_signer(id, active.signer, intake.version.signer, policy);
}

Outcome<> being_upgraded(const std::string& id) {
  return refuse("CONFLICT", "agent '" + id + "' is being upgraded: another version cannot take its place now",
                "Try again when that is done; see 'kaictl status " + id + "'");
}

/// One registration, held by the callbacks of whatever step it is in.
class Registration : public std::enable_shared_from_this<Registration> {
 public:
  Registration(Operations& operations, const Responder& responder)
      : operations_(operations), environment_(operations.environment), responder_(responder) {}

  void start(PackageSource source) {
    take_package(
        environment_, std::move(source),
        [responder = responder_](const std::string& what) { responder.progress(what); },
        [self = shared_from_this()](Outcome<Intake> intake) { self->on_taken(std::move(intake)); });
  }

 private:
  void on_taken(Outcome<Intake> intake) {
    if (!intake) return responder_.fail(intake.error());
    const std::string id = intake->manifest.id;
    std::shared_ptr<void> claim;
    if (Agent* known = operations_.agents.find(id)) {
      if (known->row().active.package == intake->version.package) {
        return responder_.done(registered_document(*known, intake->warnings), intake->warnings);
      }
      claim = known->claim();
      const auto policy = environment_.policies.for_agent(id);
      const auto may = claim ? may_replace(environment_.registry, *known, *intake, *policy) : being_upgraded(id);
      if (!may) {
        drop_package(environment_, std::move(*intake));
        return fail(id, may.error());
      }
    }
    put(std::move(*intake));
  }

  void put(Intake intake) {
    report_created(environment_, intake, responder_.uid());
    const auto agent = operations_.agents.put(intake.manifest, intake.version);
    if (!agent) {
      const std::string id = intake.manifest.id;
      drop_package(environment_, std::move(intake));
      return fail(id, {"INTERNAL", "the registry could not be written: " + agent.error().message(), {}, {}, false});
    }
    report(intake);
    // The first start finds its description ready.
    static_cast<void>((*agent)->prepared());
    environment_.audit.when_durable([responder = responder_, document = registered_document(**agent, intake.warnings),
                                     warnings = intake.warnings](const Result<>& durable) mutable {
      if (!durable) return responder.fail(not_recorded(durable.error()));
      responder.done(std::move(document), warnings);
    });
  }

  /// One line of the log and one record of the audit, and a line for each warning.
  void report(const Intake& intake) {
    const std::string& id = intake.manifest.id;
    const RegisteredVersion& version = intake.version;
    const std::string package = version.package.substr(0, 12);
    std::vector<LogField> fields = {{"version", version.version}, {"package", package}};
    if (!version.signer.empty()) fields.emplace_back("signer", version.signer);
    environment_.log.write(LogLevel::kInfo, id, "registered", intake.manifest.name, fields);
    fields.emplace_back("state", "registered");
    fields.emplace_back("operatorUid", responder_.uid());
    environment_.audit.append(id, "registered", fields_json(intake.manifest.name, fields));
    for (const std::string& warning : intake.warnings) {
      if (warning == kUnsignedWarning) continue;  // it was said when the package was stored
      environment_.log.write(LogLevel::kWarn, id, "kai.trimmed", warning);
    }
  }

  void fail(const std::string& id, const Failure& failure) {
    environment_.log.write(LogLevel::kWarn, id, "error", "a registration was refused: " + failure.message,
                           {{"code", failure.code}});
    responder_.fail(failure);
  }

  Operations& operations_;
  Environment& environment_;
  Responder responder_;
};

}  // namespace

void handle_register(Operations& operations, const control::Register& request, std::vector<Fd> descriptors,
                     const Responder& responder) {
  if (descriptors.size() != 1) {
    return responder.fail(
        {"INVALID", "the request came without the package", "Use a kaictl of the same version as kaid", {}, false});
  }
  PackageSource source;
  source.tar = std::move(descriptors.front());
  source.local_directory = request.directory();
  source.uid = responder.uid();
  std::make_shared<Registration>(operations, responder)->start(std::move(source));
}

}  // namespace kai
