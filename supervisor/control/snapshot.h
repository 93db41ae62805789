// One file with all that an agent is: its package, what it kept in memory (kaictl memory export), the state that
// saveState gave, and the policy that held. `kaictl snapshot` makes it, an upgrade makes one before it begins
// (backupCurrent), `kaictl restore` takes it. docs/snapshot.md has the format.
#pragma once

#include <functional>
#include <string>

#include "base/fd.h"
#include "policies/policy.h"
#include "supervisor/control/failure.h"

namespace kai {

class Agent;
struct Environment;

/// Of an agent that runs: it is asked for its state while requests wait (Agent::save_state), and memory and state are
/// of the same moment. `file`: a regular file, open for reading and writing, empty. `done` once, with the document
/// {"id","version","bytes","memoryEntries","state":BOOL}; on an error the file's content is to be thrown away.
void write_snapshot(Environment& environment, Agent& agent, Fd file, std::function<void(Outcome<std::string>)> done);

/// A file of the agent's own below STATE/backups/ID, made for an upgrade from `version`; `done` has its path. The last
/// kKeptBackups are kept.
inline constexpr std::size_t kKeptBackups = 3;
void write_backup(Environment& environment, Agent& agent, std::function<void(Outcome<std::string>)> done);

/// With what the agent kept, for good: all of its backups. None is success.
void remove_backups(Environment& environment, const std::string& id, std::function<void(const Result<>&)> done);

/// What snapshots have as policy.yaml: the effective policy, as `policy explain` has it (JSON, which YAML readers
/// take).
std::string snapshot_policy(const Manifest& manifest, const Policy& policy);

}  // namespace kai
