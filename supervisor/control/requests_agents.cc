// Requests on registered agents.
#include <array>

#include "supervisor/control/audit_log.h"
#include "supervisor/control/documents.h"
#include "supervisor/control/requests.h"
#include "supervisor/control/snapshot.h"
#include "supervisor/control/start_plan.h"

namespace kai {
namespace {

constexpr std::chrono::milliseconds kDefaultTimeout{30'000};
// What `status` gives the agent to say how it is; after that the last report stands.
constexpr std::chrono::milliseconds kHealthDeadline{500};

std::chrono::milliseconds timeout_of(std::uint32_t asked_ms) {
  return asked_ms == 0 ? kDefaultTimeout : std::chrono::milliseconds(asked_ms);
}

std::string state_document(const Agent& agent) {
  std::string json = R"({"id":")" + agent.row().id + R"(","state":")";
  json.append(to_string(agent.state())).append(R"(","status":")").append(status_of(agent.state())).append("\"}");
  return json;
}

/// What an operator should know of one that is down now.
std::vector<std::string> missed_by(const Operations& operations, const Agent& agent) {
  if (!agent.idle()) return {};
  std::vector<std::string> warnings;
  for (const std::string& other : operations.agents.dependents(agent.row().id)) {
    warnings.push_back("agent '" + other + "' depends on it and goes on without it: kaictl stop " + other);
  }
  return warnings;
}

void answer_with_state(Operations& operations, const std::string& id, const Outcome<>& outcome,
                       const Responder& responder) {
  if (!outcome) return responder.fail(outcome.error());
  const Agent* agent = operations.agents.find(id);
  if (agent == nullptr) return responder.fail(not_registered(id));
  responder.done(state_document(*agent), missed_by(operations, *agent));
}

/// Of what changes something: answered when it is recorded for good.
void acknowledge(Operations& operations, const Responder& responder, std::string document) {
  operations.environment.audit.when_durable(
      [responder, document = std::move(document)](const Result<>& durable) mutable {
        if (durable) return responder.done(std::move(document));
        responder.fail(not_recorded(durable.error()));
      });
}

using Operation = Outcome<> (Agent::*)();

void change_state(Operations& operations, const control::AgentRef& request, Operation operation, Agent::Goal goal,
                  const Responder& responder) {
  Agent* agent = operations.agents.find(request.id());
  if (agent == nullptr) return responder.fail(not_registered(request.id()));
  agent->asked_by(responder.uid());
  if (const auto taken = (agent->*operation)(); !taken) return responder.fail(taken.error());
  if (request.no_wait()) return acknowledge(operations, responder, state_document(*agent));
  agent->wait(goal, timeout_of(request.timeout_ms()),
              [&operations, id = request.id(), responder](const Outcome<>& outcome) {
                answer_with_state(operations, id, outcome, responder);
              });
}

/// Its memory. `then` is called when nothing of it is left; a failure is answered.
void drop_memory(Operations& operations, const std::string& id, const Responder& responder,
                 const std::function<void()>& then) {
  Agent* agent = operations.agents.find(id);
  if (agent == nullptr) return responder.fail(not_registered(id));
  if (!agent->idle()) {
    return responder.fail({"CONFLICT",
                           "agent '" + id + "' was started meanwhile: its memory is not purged",
                           "Try again with: kaictl terminate " + id + " --purge",
                           {},
                           false});
  }
  agent->memory().purge([&operations, id, responder, then](const MemoryOutcome<MemoryUsage>& purged) {
    if (!purged) {
      Failure failure = memory_failure(id, purged.error());
      failure.message = "its private data is gone, its memory could not be purged: " + failure.message;
      failure.hint = "When that is mended: kaictl terminate " + id + " --purge";
      operations.environment.log.write(LogLevel::kError, id, "error", failure.message);
      return responder.fail(failure);
    }
    operations.environment.log.write(LogLevel::kInfo, id, "kai.purged", "its private data and its memory are gone",
                                     {{"memoryEntries", purged->entries}, {"memoryBytes", purged->bytes}});
    const std::array fields = {LogField("operatorUid", responder.uid()), LogField("memoryEntries", purged->entries),
                               LogField("memoryBytes", purged->bytes)};
    operations.environment.audit.append(id, "kai.purged", fields_json({}, fields));
    then();
  });
}

/// Its private data and memory.
void drop_private_data(Operations& operations, const std::string& id, const Responder& responder,
                       std::function<void()> then) {
  keeper::Request request;
  request.mutable_drop_data()->set_agent_id(id);
  operations.environment.keeper.request(
      std::move(request), {},
      [&operations, id, responder, then = std::move(then)](const keeper::Reply& reply, const std::vector<Fd>&) {
        if (!reply.has_failed()) return drop_memory(operations, id, responder, then);
        responder.fail({"INTERNAL",
                        "its private data could not be removed: " + reply.failed().detail(),
                        "Try again with: kaictl terminate " + id + " --purge",
                        {},
                        false});
      });
}

/// All that it kept, backups with its memory among it. `then` is called when nothing of it is left; a failure is
/// answered.
void drop_data(Operations& operations, const std::string& id, const Responder& responder, std::function<void()> then) {
  remove_backups(operations.environment, id,
                 [&operations, id, responder, then = std::move(then)](const Result<>& removed) {
                   if (removed) return drop_private_data(operations, id, responder, then);
                   responder.fail({"INTERNAL",
                                   "its backups could not be removed: " + removed.error().message(),
                                   "Try again with: kaictl terminate " + id + " --purge",
                                   {},
                                   false});
                 });
}

}  // namespace

void handle_start(Operations& operations, const control::AgentRef& request, const Responder& responder) {
  Agent* agent = operations.agents.find(request.id());
  if (agent != nullptr && agent->idle() && StartPlan::needed(*agent)) {
    agent->asked_by(responder.uid());
    const auto answer = [&operations, id = request.id(), responder](const Outcome<>& outcome) {
      answer_with_state(operations, id, outcome, responder);
    };
    std::make_shared<StartPlan>(operations.environment, operations.agents, request.id(), StartPlan::By::kOperator,
                                timeout_of(request.timeout_ms()),
                                request.no_wait() ? Agent::Done([](const Outcome<>&) {}) : Agent::Done(answer))
        ->run();
    if (request.no_wait()) acknowledge(operations, responder, state_document(*agent));
    return;
  }
  change_state(operations, request, &Agent::start, Agent::Goal::kUp, responder);
}

void handle_stop(Operations& operations, const control::AgentRef& request, const Responder& responder) {
  change_state(operations, request, &Agent::stop, Agent::Goal::kDown, responder);
}

void handle_restart(Operations& operations, const control::AgentRef& request, const Responder& responder) {
  change_state(operations, request, &Agent::restart, Agent::Goal::kUp, responder);
}

void handle_terminate(Operations& operations, const control::Terminate& request, const Responder& responder) {
  Agent* agent = operations.agents.find(request.id());
  if (agent == nullptr) return responder.fail(not_registered(request.id()));
  agent->asked_by(responder.uid());
  if (const auto taken = agent->terminate(); !taken) return responder.fail(taken.error());
  agent->wait(Agent::Goal::kTerminated, timeout_of(request.timeout_ms()),
              [&operations, id = request.id(), purge = request.purge(), responder](const Outcome<>& outcome) {
                if (!outcome || !purge) return answer_with_state(operations, id, outcome, responder);
                drop_data(operations, id, responder, [&operations, id, responder] {
                  const Agent* still = operations.agents.find(id);
                  if (still == nullptr) return responder.fail(not_registered(id));
                  acknowledge(operations, responder, state_document(*still));
                });
              });
}

void handle_unregister(Operations& operations, const control::AgentRef& request, const Responder& responder) {
  if (const auto may = operations.agents.may_unregister(request.id()); !may) return responder.fail(may.error());
  // Its id range may be another agent's next: what it kept goes before it does.
  drop_data(operations, request.id(), responder, [&operations, id = request.id(), responder] {
    if (const auto gone = operations.agents.unregister(id, responder.uid()); !gone) return responder.fail(gone.error());
    acknowledge(operations, responder, R"({"id":")" + id + R"(","status":"not_found"})");
  });
}

void handle_list(Operations& operations, const Responder& responder) {
  responder.done(list_document(operations.agents));
}

void handle_status(Operations& operations, const control::AgentRef& request, const Responder& responder) {
  Agent* agent = operations.agents.find(request.id());
  if (agent == nullptr) return responder.fail(not_registered(request.id()), not_found_document(request.id()));
  agent->health(kHealthDeadline, [&operations, id = request.id(), responder](const std::string& health) {
    const Agent* still = operations.agents.find(id);
    if (still == nullptr) return responder.fail(not_registered(id), not_found_document(id));
    responder.done(status_document(*still, health));
  });
}

void handle_send(Operations& operations, const control::Send& request, const Responder& responder) {
  Agent* agent = operations.agents.find(request.id());
  if (agent == nullptr) return responder.fail(not_registered(request.id()));
  klp::Message message;
  message.set_from("operator");
  message.set_capability(request.capability());
  message.set_payload(request.payload());
  agent->deliver(std::move(message), std::chrono::milliseconds(request.timeout_ms()),
                 [responder](const Outcome<klp::Message>& answer) {
                   if (!answer) return responder.fail(answer.error());
                   responder.done(message_document(*answer));
                 });
}

}  // namespace kai
