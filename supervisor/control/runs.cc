#include "supervisor/control/runs.h"

#include <algorithm>
#include <csignal>

#include "base/text.h"
#include "policies/compile.h"
#include "supervisor/control/documents.h"
#include "supervisor/control/egress_client.h"

namespace kai {
namespace {

constexpr std::size_t kStandardStreams = 3;
constexpr int kNotExecutable = 126;  // as env(1) and docker have it
constexpr int kNotFound = 127;

std::string base_name(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

// The description without its program's file and mounts, from the manifest or from the policy alone.
Outcome<Compiled> describe(const std::string& id, const control::Run& request, std::optional<Manifest> manifest,
                           const Policy& policy) {
  const std::vector<std::string> argv(request.argv().begin(), request.argv().end());
  const std::vector<std::string> env(request.env().begin(), request.env().end());
  if (!manifest) {
    Compiled compiled;
    compiled.spec = compile_run(id, policy, argv, env);
    compiled.grants = used_grants(compiled.spec, policy);
    return compiled;
  }
  // A run is an agent of its own: it gets nothing of a registered one that has the manifest's id.
  manifest->id = id;
  manifest->entry.clear();
  manifest->runtime.args.clear();
  manifest->runtime.protocol = Protocol::kNone;
  Package none;
  none.ephemeral = true;
  auto compiled = compile(*manifest, policy, none);
  if (!compiled) return refuse("DENIED", compiled.error().message());
  spec::SandboxSpec& spec = compiled->spec;
  spec.clear_argv();
  for (const std::string& argument : argv) spec.add_argv(argument);
  for (const std::string& variable : env) set_variable(spec, variable);
  spec.set_ephemeral(true);
  return std::move(*compiled);
}

void add_descriptor_mount(spec::SandboxSpec& spec, const std::string& target, bool read_only) {
  std::uint32_t used = 0;
  for (const spec::Mount& mount : spec.mounts()) used += mount.kind() == spec::Mount::DESCRIPTOR ? 1U : 0U;
  spec::Mount& mount = *spec.add_mounts();
  mount.set_kind(spec::Mount::DESCRIPTOR);
  mount.set_target(target);
  mount.set_read_only(read_only);
  mount.set_descriptor(used);
}

void add_grant(Compiled& compiled, const std::string& grant) {
  const auto& grants = compiled.grants;
  if (std::find(grants.begin(), grants.end(), grant) == grants.end()) compiled.grants.push_back(grant);
}

std::string names_of(const PolicySet& set) {
  std::string names;
  for (const Policy& policy : set.policies) names += (names.empty() ? "" : ", ") + policy.name;
  return names;
}

Outcome<> check_mounts(const control::Run& request, const Policy& policy) {
  for (const control::RunMount& mount : request.mounts()) {
    if (!policy.grants_power("hostMounts")) {
      return refuse("DENIED",
                    "--mount " + mount.source_label() + " needs the grant hostMounts, which policy " + policy.name +
                        " does not give",
                    "Copy what the program needs into a package, or run it without --mount");
    }
    if (mount.read_write() && !policy.grants_power("hostWrite")) {
      return refuse("DENIED",
                    "--mount " + mount.source_label() + ":rw needs the grant hostWrite, which policy " + policy.name +
                        " does not give",
                    "Leave :rw out, or let the operator's policy grant it");
    }
  }
  return {};
}

}  // namespace

Outcome<PreparedSandbox> Runs::prepare(const std::string& id, const control::Run& request, std::size_t descriptors) {
  std::optional<Manifest> manifest;
  if (!request.manifest().empty()) {
    ManifestResult parsed = parse_manifest(request.manifest(), false);
    if (!parsed.manifest) return tl::unexpected(manifest_failure(parsed.errors));
    manifest = std::move(*parsed.manifest);
  }
  const Policies& policies = environment_.policies;
  const PolicyRef chosen =
      request.policy().empty() ? policies.for_agent(manifest ? manifest->id : id) : policies.named(request.policy());
  if (!chosen) {
    return refuse("NOT_FOUND", "there is no policy '" + request.policy() + "'",
                  "There are: " + names_of(policies.all()));
  }
  const Policy& policy = *chosen;
  if (request.argv().empty()) return refuse("INVALID", "there is no program to run");
  const std::size_t needed =
      kStandardStreams + (request.program_is_descriptor() ? 1 : 0) + static_cast<std::size_t>(request.mounts_size());
  if (descriptors != needed) {
    return refuse(
        "INVALID",
        "the request came with " + std::to_string(descriptors) + " descriptors, not with " + std::to_string(needed),
        "Use a kaictl of the same version as kaid");
  }
  if (auto checked = check_mounts(request, policy); !checked) return tl::unexpected(checked.error());
  auto compiled = describe(id, request, std::move(manifest), policy);
  if (!compiled) return tl::unexpected(compiled.error());
  for (const Verdict& verdict : compiled->trimmed) {
    environment_.log.write(LogLevel::kWarn, id, "kai.trimmed",
                           verdict.pointer + " (" + verdict.asked + "): " + verdict.reason, {{"rule", verdict.rule}});
  }
  spec::SandboxSpec& spec = compiled->spec;
  if (request.program_is_descriptor()) {
    const std::string program = "/agent/" + base_name(request.argv(0));
    add_descriptor_mount(spec, program, true);
    spec.set_argv(0, program);
  }
  for (const control::RunMount& mount : request.mounts()) {
    add_descriptor_mount(spec, mount.target(), !mount.read_write());
    add_grant(*compiled, "hostMounts");
    if (mount.read_write()) add_grant(*compiled, "hostWrite");
  }
  auto prepared = prepare_sandbox(*compiled, chosen);
  if (!prepared) return refuse("INTERNAL", "the sandbox cannot be described: " + prepared.error().message());
  return std::move(*prepared);
}

void Runs::start(const control::Run& request, std::vector<Fd> descriptors, const Responder& responder) {
  const std::string uuid = new_uuid();
  const std::string id = "run-" + uuid.substr(uuid.size() - 8);
  auto sandbox = prepare(id, request, descriptors.size());
  if (!sandbox) return responder.fail(sandbox.error());
  const auto slot = environment_.registry.lease_slot();
  if (!slot) return responder.fail({"BUSY", "no user ids are left for a run: " + slot.error().message(), {}, {}, true});

  Run& run = *runs_.emplace(id, std::make_unique<Run>(environment_, id, responder, *slot)).first->second;
  run.manifest = request.manifest();
  run.policy = request.policy();
  environment_.log.write(LogLevel::kInfo, id, "kai.run", "a run starts",
                         {{"program", request.argv(0)}, {"policy", sandbox->policy->name}});
  run.instance =
      std::make_unique<Instance>(environment_.loop, environment_.keeper, *sandbox, *slot, std::move(descriptors),
                                 run.denials, handlers(run), Instance::Lasts::kEndsWithControl);
  responder.on_gone([this, id] {
    const auto found = runs_.find(id);
    if (found != runs_.end()) found->second->instance->kill();
  });
}

Instance::Handlers Runs::handlers(Run& run) {
  Instance::Handlers handlers;
  handlers.activated = [this, &run] {
    const std::array fields = {LogField("pid", run.instance->pid()), LogField("operatorUid", run.responder.uid())};
    environment_.audit.append(run.id, "activated", fields_json("a run", fields));
    log_layers(environment_.log, run.id, *run.instance);
  };
  handlers.started = [&run] {
    run.started = true;
    run.responder.run_started(run.instance->pid());
  };
  handlers.network = [&run](const egress::Event& event) { run.connections.write(event); };
  handlers.ended = [this, &run](const End& end) { on_ended(run, end); };
  return handlers;
}

void Runs::on_ended(Run& run, const End& end) {
  run.denials.finish();
  run.connections.finish();
  if (run.instance->has_network()) environment_.egress->ended(run.instance->number(), run.id);
  const bool as_meant = end.cause == Cause::kExit || end.cause == Cause::kSignal || end.cause == Cause::kStopped;
  environment_.log.write(as_meant ? LogLevel::kInfo : LogLevel::kError, run.id, "kai.run",
                         "the run is over: " + end.message, {{"cause", to_string(end.cause)}});
  const std::array ended = {LogField("cause", to_string(end.cause))};
  environment_.audit.append(run.id, "kai.stopped", fields_json(end.message, ended));
  const auto& failed = run.instance->facts().start_failed;
  if (failed && failed->step() == "exec") {
    const int code = failed->errno_value() == ENOENT ? kNotFound : kNotExecutable;
    run.responder.fail({code == kNotFound ? "NOT_FOUND" : "DENIED", end.message,
                        "A PROGRAM with a slash is a file of this host; without one it is looked up inside the sandbox",
                        R"({"exitCode":)" + std::to_string(code) + "}", false});
  } else if (!end.signal && !end.exit_code) {
    run.responder.fail({"INTERNAL", end.message, "See 'kaictl doctor' and kaid's log", {}, false});
  } else if (!run.started && end.cause != Cause::kStopped && !run.instance->facts().runner) {
    run.responder.fail({"INTERNAL", "the run did not start: " + end.message, "See kaid's log", {}, false});
  } else {
    const bool own_doing = end.cause == Cause::kExit || end.cause == Cause::kSignal || end.cause == Cause::kStopped;
    run.responder.run_exited(end.signal.has_value(), end.signal ? *end.signal : *end.exit_code,
                             own_doing ? "" : end.message);
  }
  environment_.registry.return_slot(run.uid_slot);
  runs_.erase(std::string(run.id));
  if (runs_.empty() && all_ended_) std::exchange(all_ended_, nullptr)();
}

void Runs::policies_changed() {
  for (const auto& [id, run] : runs_) {
    const ManifestResult parsed = parse_manifest(run->manifest, false);
    if (!parsed.manifest) continue;  // without one there is no network
    const Policies& policies = environment_.policies;
    const PolicyRef policy =
        run->policy.empty() ? policies.for_agent(parsed.manifest->id) : policies.named(run->policy);
    // A policy that is gone allows nothing.
    const auto compiled = policy ? compile(*parsed.manifest, *policy, {.ephemeral = true}) : Result<Compiled>();
    std::optional<egress::Rules> rules;
    if (policy && compiled && compiled->spec.has_network()) rules = compiled->spec.network();
    if (rules) rules->set_agent_id(id);
    run->instance->set_network(rules ? &*rules : nullptr);
  }
}

void Runs::signal(int number, const Responder& responder) {
  if (number < 1 || number > SIGRTMAX) {
    return responder.fail({"INVALID", "there is no signal " + std::to_string(number), {}, {}, false});
  }
  for (const auto& [id, run] : runs_) {
    if (run->responder.connection_key() != responder.connection_key()) continue;
    run->instance->signal(number);
    return responder.done();
  }
  responder.fail({"NOT_RUNNING", "this connection has no run", {}, {}, false});
}

void Runs::shut_down(std::function<void()> done) {
  if (runs_.empty()) return done();
  all_ended_ = std::move(done);
  for (const auto& [id, run] : runs_) run->instance->stop(run->instance->policy()->deadlines.stop);
}

}  // namespace kai
