// `kaictl reload` and SIGHUP, `policy check`, `policy explain`.
#include <algorithm>

#include <nlohmann/json.hpp>

#include "policies/compile.h"
#include "policies/explain.h"
#include "policies/policy_check.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/documents.h"
#include "supervisor/control/requests.h"

namespace kai {
namespace {

/// `uid`: who asked; nullopt: SIGHUP.
Outcome<> take(Operations& operations, const keeper::Reload& reload, const Fd& memfd,
               std::optional<std::uint32_t> uid) {
  Environment& environment = operations.environment;
  std::string error = reload.error();
  if (error.empty()) {
    if (const auto taken = environment.policies.take(memfd); !taken) error = taken.error().message();
  }
  if (!error.empty()) {
    environment.log.write(LogLevel::kError, "", "error", "configuration not taken, the old one stays: " + error);
    return refuse("INVALID", "nothing was changed: " + error, "Mend the file and reload again");
  }
  if (const auto level = parse_log_level(reload.log_level())) environment.log.set_level(*level);
  const PolicySet& set = environment.policies.all();
  environment.log.write(LogLevel::kInfo, "", "kai.policy_loaded", "the operator's policies are in force",
                        {{"policies", set.policies.size()}});
  std::vector<LogField> recorded = {{"policies", set.policies.size()}};
  if (uid) recorded.emplace_back("operatorUid", *uid);
  environment.audit.append("", "kai.policy_loaded", fields_json({}, recorded));
  for (const std::string& warning : set.warnings) {
    environment.log.write(LogLevel::kWarn, "", "kai.policy_loaded", warning);
  }
  operations.runs.policies_changed();
  for (const std::string& id : operations.agents.policies_changed()) {
    environment.log.write(
        LogLevel::kWarn, id, "kai.policy_loaded",
        "its policy has changed: whom it may reach follows at once; it runs in its old sandbox until: kaictl restart " +
            id,
        {{"policy", environment.policies.for_agent(id)->name}});
  }
  return {};
}

std::string reload_document(const PolicySet& set) {
  nlohmann::ordered_json names = nlohmann::ordered_json::array();
  for (const Policy& policy : set.policies) names.push_back(policy.name);
  return nlohmann::ordered_json{{"policies", std::move(names)}, {"warnings", set.warnings}}.dump(
      -1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

/// Whether a connection of the agent that runs could arrive anywhere.
bool listens(const Agent& agent, std::uint16_t port) {
  if (!agent.network()) return true;  // it has the host's network
  const auto& ports = agent.instance()->network_ports();
  return std::find(ports.begin(), ports.end(), port) != ports.end();
}

}  // namespace

void take_policies(Operations& operations, const keeper::Reload& reload, const Fd& policies) {
  static_cast<void>(take(operations, reload, policies, std::nullopt));  // told to the log
}

void handle_reload(Operations& operations, const Responder& responder) {
  keeper::Request request;
  request.mutable_read_policies();
  operations.environment.keeper.request(
      std::move(request), {}, [&operations, responder](const keeper::Reply& reply, std::vector<Fd> descriptors) {
        if (!reply.has_reload()) {
          return responder.fail(
              {"INTERNAL", "the keeper did not read the policies: " + reply.failed().detail(), {}, {}, false});
        }
        const Fd policies = descriptors.empty() ? Fd() : std::move(descriptors.front());
        const auto taken = take(operations, reply.reload(), policies, responder.uid());
        if (!taken) return responder.fail(taken.error());
        const PolicySet& set = operations.environment.policies.all();
        responder.done(reload_document(set), set.warnings);
      });
}

void handle_policy_check(Operations& operations, const control::PolicyCheck& request, const Responder& responder) {
  const PolicyCheck check = check_policy(request.manifest(), operations.environment.policies.all());
  std::string document = policy_check_json(check);
  if (check.result == "ok" || check.result == "trimmed") return responder.done(std::move(document));
  // The document says it all; kaictl prints it and ends with 5.
  responder.fail({"INVALID",
                  check.valid ? "policy " + check.policy + " refuses this manifest" : "the manifest is not valid",
                  {},
                  {},
                  false},
                 std::move(document));
}

void handle_policy_explain(Operations& operations, const control::PolicyExplain& request, const Responder& responder) {
  Environment& environment = operations.environment;
  Manifest manifest;
  PolicyRef policy;
  Package package;
  std::vector<std::string> degraded;
  const Agent* running = nullptr;
  if (!request.id().empty()) {
    const Agent* agent = operations.agents.find(request.id());
    if (agent == nullptr) return responder.fail(not_registered(request.id()));
    if (agent->instance() != nullptr) running = agent;
    manifest = agent->manifest();
    package = agent->package();
    policy = agent->governing();
    degraded = agent->degraded();
  } else {
    ManifestResult parsed = parse_manifest(request.manifest());
    if (!parsed.manifest) return responder.fail(manifest_failure(parsed.errors));
    manifest = std::move(*parsed.manifest);
    package.directory = "unnamed";
    policy = environment.policies.for_agent(manifest.id);
  }
  if (!request.connect_name().empty()) {
    const auto port = static_cast<std::uint16_t>(request.connect_port());
    // What an agent may reach follows the policies of now, whatever it was started under.
    const PolicyRef now = environment.policies.for_agent(manifest.id);
    Verdict verdict = connect_verdict(manifest, *now, request.connect_name(), port);
    if (running != nullptr && !listens(*running, port) && verdict.kind == Verdict::Kind::kGranted) {
      verdict.kind = Verdict::Kind::kRefused;
      verdict.reason = "the policy allows it, but only since the agent was started: kaictl restart " + manifest.id;
    }
    return responder.done(connect_json(verdict));
  }
  const auto compiled = compile(manifest, *policy, package);
  if (!compiled) return responder.fail({"DENIED", compiled.error().message(), {}, {}, false});
  const PolicyRef latest = environment.policies.for_agent(manifest.id);
  const auto recompiled = compile(manifest, *latest, package);
  const NetworkNow now{*latest, recompiled ? &*recompiled : nullptr};
  const NetworkNow* const changed = running != nullptr && latest != policy ? &now : nullptr;
  responder.done(explain_json(*compiled, *policy, degraded, changed), {},
                 explain_text(*compiled, *policy, degraded, changed));
}

}  // namespace kai
