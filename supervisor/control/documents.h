// The JSON documents of contracts.md that control answers with.
#pragma once

#include <string>
#include <string_view>

#include "proto/klp.pb.h"
#include "supervisor/control/agents.h"

namespace kai {

std::string list_document(const Agents& agents);
/// `health`: HealthStatus as JSON, or empty.
std::string status_document(const Agent& agent, std::string_view health);
std::string not_found_document(std::string_view id);
/// A KLPMessage. The payload goes in as the agent wrote it; what is not JSON goes in as payloadBase64.
std::string message_document(const klp::Message& message);
std::string registered_document(const Agent& agent, const std::vector<std::string>& warnings);
/// {"errors":[{"pointer":…,"message":…}]}
std::string manifest_errors_document(const std::vector<ManifestError>& errors);
/// INVALID, with every fault in its details.
Failure manifest_failure(const std::vector<ManifestError>& errors);

}  // namespace kai
