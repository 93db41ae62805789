#include "supervisor/control/requests.h"

#include <nlohmann/json.hpp>

#include "supervisor/control/audit_log.h"

namespace kai {
namespace {

void handle_version(const Responder& responder) {
  responder.done(nlohmann::ordered_json{{"version", KAI_VERSION}, {"protocol", "klp/1.0"}}.dump());
}

Fd first_of(std::vector<Fd>& descriptors) {
  return descriptors.empty() ? Fd() : std::move(descriptors.front());
}

}  // namespace

void handle_request(Operations& operations, const control::Request& request, std::vector<Fd> descriptors,
                    const Responder& responder) {
  using R = control::Request;
  const bool starts = request.op_case() == R::kStart || request.op_case() == R::kRestart ||
                      request.op_case() == R::kRun || request.op_case() == R::kRegister ||
                      request.op_case() == R::kRecover || request.op_case() == R::kUpgrade ||
                      request.op_case() == R::kRollback || request.op_case() == R::kRestore;
  if (operations.stopping && starts) {
    return responder.fail({"UNAVAILABLE", "kaid is stopping", "Start kaid again", {}, true});
  }
  // Nothing is begun that cannot be recorded; what ends something is done all the same.
  if (starts) {
    if (const auto refused = operations.environment.audit.refusal()) return responder.fail(*refused);
  }
  switch (request.op_case()) {
    case R::kRegister:
      return handle_register(operations, request.register_(), std::move(descriptors), responder);
    case R::kUnregister:
      return handle_unregister(operations, request.unregister(), responder);
    case R::kList:
      return handle_list(operations, responder);
    case R::kStatus:
      return handle_status(operations, request.status(), responder);
    case R::kStart:
      return handle_start(operations, request.start(), responder);
    case R::kStop:
      return handle_stop(operations, request.stop(), responder);
    case R::kRestart:
      return handle_restart(operations, request.restart(), responder);
    case R::kTerminate:
      return handle_terminate(operations, request.terminate(), responder);
    case R::kSend:
      return handle_send(operations, request.send(), responder);
    case R::kLogs:
      return handle_logs(operations, request.logs(), responder);
    case R::kRun:
      return operations.runs.start(request.run(), std::move(descriptors), responder);
    case R::kSignal:
      return operations.runs.signal(request.signal().number(), responder);
    case R::kVersion:
      return handle_version(responder);
    case R::kReload:
      return handle_reload(operations, responder);
    case R::kPolicyCheck:
      return handle_policy_check(operations, request.policy_check(), responder);
    case R::kPolicyExplain:
      return handle_policy_explain(operations, request.policy_explain(), responder);
    case R::kQuarantine:
      return handle_quarantine(operations, request.quarantine(), responder);
    case R::kQuarantineShow:
      return handle_quarantine_show(operations, request.quarantine_show(), responder);
    case R::kRecover:
      return handle_recover(operations, request.recover(), responder);
    case R::kEvents:
      return handle_events(operations, request.events(), responder);
    case R::kAuditList:
      return handle_audit_list(operations, request.audit_list(), responder);
    case R::kAuditExport:
      return handle_audit_export(operations, request.audit_export(), responder);
    case R::kAuditVerify:
      return handle_audit_verify(operations, first_of(descriptors), responder);
    case R::kAuditProve:
      return handle_audit_prove(operations, request.audit_prove(), first_of(descriptors), responder);
    case R::kAuditRotateKey:
      return handle_audit_rotate_key(operations, responder);
    case R::kMemoryStats:
      return handle_memory_stats(operations, request.memory_stats(), responder);
    case R::kMemoryRead:
      return handle_memory_read(operations, request.memory_read(), responder);
    case R::kMemoryKeys:
      return handle_memory_keys(operations, request.memory_keys(), responder);
    case R::kMemoryExport:
      return handle_memory_export(operations, request.memory_export(), first_of(descriptors), responder);
    case R::kMemoryImport:
      return handle_memory_import(operations, request.memory_import(), first_of(descriptors), responder);
    case R::kNet:
      return handle_net(operations, request.net(), responder);
    case R::kUpgrade:
      return handle_upgrade(operations, request.upgrade(), first_of(descriptors), responder);
    case R::kRollback:
      return handle_rollback(operations, request.rollback(), responder);
    case R::kVersions:
      return handle_versions(operations, request.versions(), responder);
    case R::kPrune:
      return handle_prune(operations, request.prune(), responder);
    case R::kSnapshot:
      return handle_snapshot(operations, request.snapshot(), first_of(descriptors), responder);
    case R::kRestore:
      return handle_restore(operations, request.restore(), first_of(descriptors), responder);
    case R::OP_NOT_SET:
      break;
  }
  responder.fail(
      {"INVALID", "this kaid does not know the request", "Use a kaictl of the same version as kaid", {}, false});
}

}  // namespace kai
