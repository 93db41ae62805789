// `kaictl register`: tar → staged package → manifest checked → TypeScript compiled → package sealed → registry. What
// touches many files runs on a worker thread.
#include "base/text.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/documents.h"
#include "supervisor/control/requests.h"
#include "supervisor/control/typescript.h"

namespace kai {
namespace {

/// What reading a package brings: it is there with its manifest, or why not.
struct Reading {
  Outcome<> outcome;
  std::optional<StagedPackage> package;
  Manifest manifest;
  std::vector<std::string> warnings;
};

Reading read_package(const PackageStore& store, int tar) {
  Reading reading;
  auto staged = store.stage(tar);
  if (!staged) {
    reading.outcome = refuse("INVALID", "the package cannot be taken: " + staged.error().message());
    return reading;
  }
  ManifestResult parsed = parse_manifest(staged->manifest());
  if (parsed.manifest) {
    PackageFindings findings = check_package(*staged, *parsed.manifest);
    parsed.errors = std::move(findings.errors);
    for (const ManifestError& warning : findings.warnings) {
      reading.warnings.push_back(warning.pointer + ": " + warning.message + " (required: false)");
    }
  }
  if (!parsed.errors.empty()) {
    reading.outcome = tl::unexpected(manifest_failure(parsed.errors));
    return reading;
  }
  reading.manifest = std::move(*parsed.manifest);
  reading.package = std::move(*staged);
  return reading;
}

/// One registration, held by the callbacks of whatever step it is in.
class Registration : public std::enable_shared_from_this<Registration> {
 public:
  Registration(Operations& operations, Responder responder)
      : operations_(operations), environment_(operations.environment), responder_(std::move(responder)) {}

  void start(Fd tar) {
    const auto shared_tar = std::make_shared<Fd>(std::move(tar));
    environment_.loop.work(
        [self = shared_from_this(), shared_tar] {
          self->reading_ = read_package(self->environment_.packages, shared_tar->get());
        },
        [self = shared_from_this()] { self->on_read(); });
  }

 private:
  void on_read() {
    if (!reading_.outcome) return fail(reading_.outcome.error());
    warnings_ = std::move(reading_.warnings);
    const auto compiled = compile(reading_.manifest, *environment_.policies.for_agent(reading_.manifest.id),
                                  {"unnamed", entry_override_});
    if (!compiled) return fail({"DENIED", compiled.error().message(), {}, {}, false});
    for (const Verdict& verdict : compiled->trimmed) {
      warnings_.push_back(verdict.pointer + " (" + verdict.asked + "): " + verdict.reason + " [" + verdict.rule + "]");
    }
    if (!is_typescript(reading_.manifest.entry)) return seal();
    responder_.progress("compiling the TypeScript of " + reading_.manifest.id);
    compile_typescript(environment_, reading_.package->directory(), reading_.manifest.entry,
                       [self = shared_from_this()](const Outcome<std::string>& bundle) { self->on_compiled(bundle); });
  }

  void on_compiled(const Outcome<std::string>& bundle) {
    if (!bundle) return fail(bundle.error());
    entry_override_ = kCompiledEntry;
    if (const auto added = reading_.package->add_file(entry_override_, *bundle); !added) {
      return fail({"INTERNAL", "the package cannot be stored: " + added.error().message(), {}, {}, false});
    }
    seal();
  }

  void seal() {
    environment_.loop.work(
        [self = shared_from_this()] {
          self->sealed_ = self->environment_.packages.seal(std::move(*self->reading_.package));
        },
        [self = shared_from_this()] { self->on_sealed(); });
  }

  void on_sealed() {
    if (!sealed_)
      return fail({"INTERNAL", "the package cannot be stored: " + sealed_.error().message(), {}, {}, false});
    const Manifest& manifest = reading_.manifest;
    Agent* known = operations_.agents.find(manifest.id);
    if (known != nullptr && known->row().active.package == *sealed_ &&
        known->row().active.version == manifest.version) {
      return responder_.done(registered_document(*known, warnings_), warnings_);
    }
    if (known != nullptr && !known->idle()) {
      return fail({"CONFLICT",
                   "agent '" + manifest.id + "' is " + std::string(to_string(known->state())) + " with version " +
                       known->row().active.version + ": another version cannot take its place now",
                   "Stop it first: kaictl stop " + manifest.id,
                   {},
                   false});
    }
    put();
  }

  void put() {
    const Manifest& manifest = reading_.manifest;
    report(LogLevel::kDebug, "created", "its package is stored", {{"package", *sealed_}});
    RegisteredVersion version;
    version.version = manifest.version;
    version.package = *sealed_;
    version.manifest_json = manifest.json;
    version.entry_override = entry_override_;
    version.registered_at = unix_ms();
    const auto agent = operations_.agents.put(manifest, version);
    if (!agent)
      return fail({"INTERNAL", "the registry could not be written: " + agent.error().message(), {}, {}, false});
    report(LogLevel::kInfo, "registered", manifest.name,
           {{"version", manifest.version}, {"package", sealed_->substr(0, 12)}});
    for (const std::string& warning : warnings_)
      environment_.log.write(LogLevel::kWarn, manifest.id, "kai.trimmed", warning);
    // The first start finds its description ready.
    static_cast<void>((*agent)->prepared());
    environment_.audit.when_durable([responder = responder_, document = registered_document(**agent, warnings_),
                                     warnings = warnings_](const Result<>& durable) mutable {
      if (!durable) return responder.fail(not_recorded(durable.error()));
      responder.done(std::move(document), warnings);
    });
  }

  /// One line of the log and one record of the audit.
  void report(LogLevel level, std::string_view event, std::string_view message, std::vector<LogField> fields) {
    environment_.log.write(level, reading_.manifest.id, event, message, fields);
    fields.emplace_back("state", "registered");
    fields.emplace_back("operatorUid", responder_.uid());
    environment_.audit.append(reading_.manifest.id, event, fields_json(message, fields));
  }

  void fail(const Failure& failure) {
    const std::string& id = reading_.manifest.id;
    environment_.log.write(LogLevel::kWarn, id, "error", "a registration was refused: " + failure.message,
                           {{"code", failure.code}});
    responder_.fail(failure);
  }

  Operations& operations_;
  Environment& environment_;
  Responder responder_;
  Reading reading_;
  std::string entry_override_;
  std::vector<std::string> warnings_;
  Result<std::string> sealed_;
};

}  // namespace

void handle_register(Operations& operations, std::vector<Fd> descriptors, const Responder& responder) {
  if (descriptors.size() != 1) {
    return responder.fail(
        {"INVALID", "the request came without the package", "Use a kaictl of the same version as kaid", {}, false});
  }
  std::make_shared<Registration>(operations, responder)->start(std::move(descriptors.front()));
}

}  // namespace kai
