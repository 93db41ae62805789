#include "supervisor/control/package_intake.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "base/text.h"
#include "policies/compile.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/documents.h"
#include "supervisor/control/packages_signature.h"
#include "supervisor/control/typescript.h"

namespace kai {
namespace {

/// What reading a package brings: it is there with its manifest, or why not.
struct Reading {
  Outcome<> outcome;
  std::optional<StagedPackage> package;
  Manifest manifest;
  std::vector<std::string> warnings;
  std::string signer;
  std::optional<Failure> only_if_known;  // not signed, and the policy does not let it in for that alone
};

Outcome<> check_trust(Reading& reading, const Policy& policy, const UnsignedSource& source, bool known) {
  auto signer = find_signer(*reading.package, policy);
  if (!signer) return tl::unexpected(signer.error());
  reading.signer = std::move(*signer);
  if (!reading.signer.empty()) return {};
  if (auto may = may_be_unsigned(policy, source); !may) {
    if (!known) return may;
    reading.only_if_known = may.error();
  }
  return {};
}

/// On a worker thread. `policies`: a copy of what held when it began.
Reading read_package(const PackageStore& store, const Policies& policies, int tar, const UnsignedSource& source,
                     bool known) {
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
  reading.outcome = check_trust(reading, *policies.for_agent(reading.manifest.id), source, known);
  if (!reading.outcome) reading.package.reset();
  return reading;
}

/// One package on its way in, held by the callbacks of whatever step it is in.
class PackageIntake : public std::enable_shared_from_this<PackageIntake> {
 public:
  PackageIntake(Environment& environment, PackageSource source, std::function<void(std::string)> progress,
                std::function<void(Outcome<Intake>)> done)
      : environment_(environment),
        policies_(environment.policies),
        source_(std::move(source)),
        progress_(std::move(progress)),
        done_(std::move(done)) {}

  void start() {
    environment_.loop.work(
        [self = shared_from_this()] {
          const PackageSource& source = self->source_;
          self->reading_ =
              read_package(self->environment_.packages, self->policies_, source.tar.get(),
                           {source.local_directory, source.uid, self->environment_.hello.operator_uid()}, source.known);
        },
        [self = shared_from_this()] { self->on_read(); });
  }

 private:
  void on_read() {
    source_.tar.reset();
    if (!reading_.outcome) return fail(reading_.outcome.error());
    const auto compiled = compile(reading_.manifest, *policies_.for_agent(reading_.manifest.id), {"unnamed", {}});
    if (!compiled) return fail({"DENIED", compiled.error().message(), {}, {}, false});
    for (const Verdict& verdict : compiled->trimmed) {
      reading_.warnings.push_back(verdict.pointer + " (" + verdict.asked + "): " + verdict.reason + " [" +
                                  verdict.rule + "]");
    }
    if (!is_typescript(reading_.manifest.entry)) return seal();
    progress_("compiling the TypeScript of " + reading_.manifest.id);
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
    package_ = reading_.package->content_name();
    const auto archived = is_archived();
    if (!archived) return fail(unreadable(archived.error()));
    if (reading_.only_if_known && !*archived) return fail(*reading_.only_if_known);
    hold_ = environment_.packages.hold(reading_.manifest.id, package_);
    environment_.loop.work(
        [self = shared_from_this()] {
          self->sealed_ =
              self->environment_.packages.seal(std::move(*self->reading_.package), self->reading_.manifest.id);
        },
        [self = shared_from_this()] { self->on_sealed(); });
  }

  void on_sealed() {
    const std::string& id = reading_.manifest.id;
    if (!sealed_) {
      return fail({"INTERNAL", "the package cannot be stored: " + sealed_.error().message(), {}, {}, false});
    }
    const auto archived = is_archived();
    if (!archived) return fail(unreadable(archived.error()));
    // Who removed the same bytes began before this one held them.
    if (!environment_.packages.has(id, package_)) {
      return fail({"BUSY", "the same package was being removed meanwhile", "Try again", {}, true});
    }
    if (reading_.signer.empty()) reading_.warnings.emplace_back(kUnsignedWarning);
    is_new_ = !*archived;
    finish();
  }

  void finish() {
    Intake intake;
    intake.version.version = reading_.manifest.version;
    intake.version.package = package_;
    intake.version.manifest_json = reading_.manifest.json;
    intake.version.entry_override = entry_override_;
    intake.version.registered_at = unix_ms();
    intake.version.signer = reading_.signer;
    intake.manifest = std::move(reading_.manifest);
    intake.warnings = std::move(reading_.warnings);
    intake.hold = std::move(hold_);
    intake.is_new = is_new_;
    std::exchange(done_, nullptr)(std::move(intake));
  }

  /// Whether a version of the agent that is in the archive has these bytes.
  [[nodiscard]] Result<bool> is_archived() const {
    const auto versions = environment_.registry.versions(reading_.manifest.id);
    if (!versions) return tl::unexpected(versions.error());
    return std::any_of(versions->begin(), versions->end(),
                       [&](const RegisteredVersion& each) { return each.package == package_; });
  }

  static Failure unreadable(const Error& error) {
    return {"INTERNAL", "the registry could not be read: " + error.message(), {}, {}, false};
  }

  void fail(const Failure& failure) {
    environment_.log.write(LogLevel::kWarn, reading_.manifest.id, "error", "a package was refused: " + failure.message,
                           {{"code", failure.code}, {"operatorUid", source_.uid}});
    if (reading_.package) {
      // Removing many files blocks.
      const auto unpacked = std::make_shared<std::optional<StagedPackage>>(std::move(reading_.package));
      environment_.loop.work([unpacked] { unpacked->reset(); }, [] {});
    }
    std::exchange(done_, nullptr)(tl::unexpected(failure));
  }

  Environment& environment_;
  const Policies policies_;
  PackageSource source_;
  bool is_new_ = false;
  std::function<void(std::string)> progress_;
  std::function<void(Outcome<Intake>)> done_;
  Reading reading_;
  std::string entry_override_;
  std::string package_;
  PackageStore::Hold hold_;
  Result<std::string> sealed_;
};

}  // namespace

void report_created(Environment& environment, const Intake& intake, std::uint32_t uid) {
  if (!intake.is_new) return;
  const std::string& id = intake.manifest.id;
  const bool is_signed = !intake.version.signer.empty();
  std::vector<LogField> fields = {
      {"version", intake.version.version}, {"package", intake.version.package}, {"signed", is_signed}};
  if (is_signed) fields.emplace_back("signer", intake.version.signer);
  fields.emplace_back("operatorUid", uid);
  const std::string_view message = is_signed ? "its package is stored" : kUnsignedWarning;
  environment.log.write(is_signed ? LogLevel::kDebug : LogLevel::kWarn, id, "created", message, fields);
  environment.audit.append(id, "created", fields_json(message, fields));
}

void take_package(Environment& environment, PackageSource source, std::function<void(std::string)> progress,
                  std::function<void(Outcome<Intake>)> done) {
  std::make_shared<PackageIntake>(environment, std::move(source), std::move(progress), std::move(done))->start();
}

void drop_package(Environment& environment, Intake intake) {
  const std::string id = intake.manifest.id;
  const std::string package = intake.version.package;
  intake.hold.reset();
  if (environment.packages.held(id, package)) return;
  const auto used = environment.registry.packages_in_use();
  if (!used || used->contains(id + "/" + package)) return;
  const auto aside = environment.packages.set_aside(id, package);
  // What stays behind, the next start of control removes.
  if (!aside || aside->empty()) return;
  environment.loop.work([&environment, aside = *aside] { static_cast<void>(environment.packages.remove_aside(aside)); },
                        [] {});
}

}  // namespace kai
