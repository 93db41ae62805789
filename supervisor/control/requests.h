// What operators can ask for (proto/control.proto): one function a request, and the table that finds it. Each answers
// through its Responder, now or later.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "supervisor/control/agents.h"
#include "supervisor/control/connection.h"
#include "supervisor/control/runs.h"

namespace kai {

class AuditReader;

struct Operations {
  Environment& environment;
  Agents& agents;
  Runs& runs;
  const std::string& log_directory;
  bool stopping = false;                 ///< kaid is ending: nothing new is started
  std::set<std::string> restoring = {};  ///< ids of the agents that a snapshot is being restored to
};

void handle_request(Operations& operations, const control::Request& request, std::vector<Fd> descriptors,
                    const Responder& responder);

// requests_agents.cc
void handle_start(Operations& operations, const control::AgentRef& request, const Responder& responder);
void handle_stop(Operations& operations, const control::AgentRef& request, const Responder& responder);
void handle_restart(Operations& operations, const control::AgentRef& request, const Responder& responder);
void handle_terminate(Operations& operations, const control::Terminate& request, const Responder& responder);
void handle_unregister(Operations& operations, const control::AgentRef& request, const Responder& responder);
void handle_list(Operations& operations, const Responder& responder);
void handle_status(Operations& operations, const control::AgentRef& request, const Responder& responder);
void handle_send(Operations& operations, const control::Send& request, const Responder& responder);

// requests_quarantine.cc
void handle_quarantine(Operations& operations, const control::Quarantine& request, const Responder& responder);
void handle_quarantine_show(Operations& operations, const control::QuarantineShow& request, const Responder& responder);
void handle_recover(Operations& operations, const control::Recover& request, const Responder& responder);

// requests_memory.cc; `file`: a regular file that the client opened
void handle_memory_stats(Operations& operations, const control::MemoryStats& request, const Responder& responder);
void handle_memory_read(Operations& operations, const control::MemoryRead& request, const Responder& responder);
void handle_memory_keys(Operations& operations, const control::MemoryKeys& request, const Responder& responder);
void handle_memory_export(Operations& operations, const control::MemoryExport& request, Fd file,
                          const Responder& responder);
void handle_memory_import(Operations& operations, const control::MemoryImport& request, Fd file,
                          const Responder& responder);
/// The failure that a memory's refusal is for an operator.
Failure memory_failure(const std::string& agent, const klp::MemoryError& error);

// requests_network.cc
void handle_net(Operations& operations, const control::Net& request, const Responder& responder);

// requests_upgrade.cc; `tar`: none where a version of the archive is asked for
void handle_upgrade(Operations& operations, const control::Upgrade& request, Fd tar, const Responder& responder);
void handle_rollback(Operations& operations, const control::Rollback& request, const Responder& responder);

// requests_versions.cc
void handle_versions(Operations& operations, const control::Versions& request, const Responder& responder);
void handle_prune(Operations& operations, const control::Prune& request, const Responder& responder);

// requests_snapshot.cc; `file`: a regular file that the client opened
void handle_snapshot(Operations& operations, const control::Snapshot& request, Fd file, const Responder& responder);
/// Why it is no file to be written (O_WRONLY) or read (O_RDONLY): one that cannot block whoever does.
std::optional<Failure> unfit_snapshot(const Fd& file, int access);
/// CONFLICT: another has the claim.
Failure occupied(const std::string& id);
// requests_restore.cc
void handle_restore(Operations& operations, const control::Restore& request, Fd file, const Responder& responder);

// requests_events.cc
void handle_events(Operations& operations, const control::Events& request, const Responder& responder);

// requests_policies.cc
void handle_reload(Operations& operations, const Responder& responder);
/// SIGHUP: the same, told to the log alone.
void take_policies(Operations& operations, const keeper::Reload& reload, const Fd& policies);
void handle_policy_check(Operations& operations, const control::PolicyCheck& request, const Responder& responder);
void handle_policy_explain(Operations& operations, const control::PolicyExplain& request, const Responder& responder);

// requests_logs.cc
void handle_logs(Operations& operations, const control::Logs& request, const Responder& responder);

// requests_audit.cc: records, in pieces
void handle_audit_list(Operations& operations, const control::AuditList& request, const Responder& responder);
/// Whether anybody ever had that id, registered or in a record; true for "", which is all of them.
Result<bool> audit_knows(Operations& operations, AuditReader& reader, const std::string& id);
Failure audit_unreadable(const Error& error);
void handle_audit_export(Operations& operations, const control::AuditExport& request, const Responder& responder);
// requests_audit_check.cc; `remembered`: of the checkpoint that the operator kept, or none
void handle_audit_verify(Operations& operations, Fd remembered, const Responder& responder);
void handle_audit_prove(Operations& operations, const control::AuditProve& request, Fd remembered,
                        const Responder& responder);
void handle_audit_rotate_key(Operations& operations, const Responder& responder);

// registration.cc
void handle_register(Operations& operations, const control::Register& request, std::vector<Fd> descriptors,
                     const Responder& responder);

}  // namespace kai
