// `kaictl quarantine`, `quarantine show`, `recover`.
#include <fcntl.h>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/unix.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/requests.h"

namespace kai {
namespace {

constexpr std::chrono::milliseconds kDefaultTimeout{30'000};
constexpr std::size_t kMaxReasonBytes = 1024;
constexpr std::size_t kMaxEvidenceBytes = 16 << 20;

std::string record_document(const Agent& agent) {
  return R"({"id":")" + agent.row().id + R"(","status":"quarantined","quarantine":)" + agent.row().quarantine + '}';
}

Outcome<QuarantineReason> reason_of(const control::Quarantine& request) {
  QuarantineReason reason;
  if (request.reason().empty()) return refuse("INVALID", "a quarantine needs a reason", "Give it with --reason TEXT");
  if (request.reason().size() > kMaxReasonBytes) return refuse("INVALID", "the reason has more than 1,024 bytes");
  reason.description = request.reason();
  reason.timestamp = iso_now();
  if (!request.type().empty()) {
    const auto type = quarantine_type(request.type());
    if (!type) {
      return refuse("INVALID", "there is no type of quarantine '" + request.type() + "'",
                    "Types: crash, resource_abuse, security_violation, manual");
    }
    reason.type = *type;
  }
  if (!request.severity().empty()) {
    const auto level = severity(request.severity());
    if (!level) {
      return refuse("INVALID", "there is no severity '" + request.severity() + "'",
                    "Severities: low, medium, high, critical");
    }
    reason.severity = *level;
  }
  return reason;
}

}  // namespace

void handle_quarantine(Operations& operations, const control::Quarantine& request, const Responder& responder) {
  Agent* agent = operations.agents.find(request.id());
  if (agent == nullptr) return responder.fail(not_registered(request.id()));
  auto reason = reason_of(request);
  if (!reason) return responder.fail(reason.error());
  agent->asked_by(responder.uid());
  if (const auto taken = agent->quarantine(std::move(*reason)); !taken) return responder.fail(taken.error());
  operations.environment.audit.when_durable(
      [responder, document = record_document(*agent)](const Result<>& durable) mutable {
        if (!durable) return responder.fail(not_recorded(durable.error()));
        responder.done(std::move(document));
      });
}

void handle_quarantine_show(Operations& operations, const control::QuarantineShow& request,
                            const Responder& responder) {
  const Agent* agent = operations.agents.find(request.id());
  if (agent == nullptr) return responder.fail(not_registered(request.id()));
  if (!agent->quarantined()) {
    return responder.fail(
        {"CONFLICT",
         "agent '" + request.id() + "' is not quarantined, it is " + std::string(to_string(agent->state())),
         "See 'kaictl status " + request.id() + "'",
         {},
         false});
  }
  const auto evidence = std::make_shared<std::string>();
  const std::string& name = agent->quarantined()->evidence;
  const std::string path = operations.environment.hello.state_dir() + "/quarantine/" + name;
  operations.environment.loop.work(
      [evidence, path, none = name.empty()] {
        if (none) return;
        const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
        if (!file) return;
        auto text = read_all(file.get(), kMaxEvidenceBytes);
        // Ours; but a person may have edited it.
        if (text && nlohmann::json::accept(*text)) *evidence = std::move(*text);
      },
      [evidence, responder, document = record_document(*agent)]() mutable {
        while (!evidence->empty() && evidence->back() == '\n') evidence->pop_back();
        if (!evidence->empty()) {
          document.pop_back();
          document += R"(,"evidence":)" + *evidence + '}';
        }
        responder.done(std::move(document));
      });
}

void handle_recover(Operations& operations, const control::Recover& request, const Responder& responder) {
  Agent* agent = operations.agents.find(request.id());
  if (agent == nullptr) return responder.fail(not_registered(request.id()));
  agent->asked_by(responder.uid());
  if (const auto taken = agent->recover(request.force()); !taken) return responder.fail(taken.error());
  const auto timeout = request.timeout_ms() == 0 ? kDefaultTimeout : std::chrono::milliseconds(request.timeout_ms());
  agent->wait(Agent::Goal::kUp, timeout, [&operations, id = request.id(), responder](const Outcome<>& outcome) {
    if (!outcome) return responder.fail(outcome.error());
    const Agent* still = operations.agents.find(id);
    if (still == nullptr) return responder.fail(not_registered(id));
    responder.done(R"({"id":")" + id + R"(","state":")" + std::string(to_string(still->state())) + R"(","status":")" +
                   std::string(status_of(still->state())) + R"(","success":true})");
  });
}

}  // namespace kai
