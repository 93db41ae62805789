// What is kept of an agent when it is taken out of service, for whoever has to find out why: one JSON file below
// STATE/quarantine.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace kai {

struct Evidence {
  std::string agent;
  std::string taken_at;               ///< ISO 8601, UTC
  std::string reason_json;            ///< the quarantine record
  std::string last_end_json;          ///< empty: it has not ended
  std::vector<std::string> denials;   ///< JSON objects, oldest first
  std::vector<std::string> messages;  ///< headers, JSON objects, oldest first: no payload
  std::string processes;              ///< the keeper's text; empty: nothing ran
  std::string processes_missing;      ///< why it is empty, where something ran
};

/// Adds the agent's last 200 records of the log, and writes the file whole or not at all (0600, fsync, rename).
/// Blocking: for a worker thread.
Result<> write_evidence(const Evidence& evidence, const std::string& log_directory, const std::string& path);

}  // namespace kai
