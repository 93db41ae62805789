// What travels between agents and the supervisor, as a C++ agent sees it.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace kai {

/// A JSON value; bytes are Json::binary({…}).
using Json = nlohmann::json;

/// A KLP message (klp/1.0). Fields that a message does not have are empty.
struct Message {
  std::string id;    ///< UUIDv7
  std::string from;  ///< stamped by the supervisor
  std::string to;    ///< agent id, `kaid`, or `topic:NAME`
  std::string type;  ///< request, response, event, error
  std::string correlation_id;
  std::string capability;
  std::string timestamp;     ///< ISO 8601, UTC, milliseconds
  Json payload;              ///< parsed JSON, or Json::binary where content_type is not JSON
  std::string content_type;  ///< empty: application/json
  Json metadata;             ///< object: priority, ttl (seconds), traceparent
};

/// A call to the runtime that failed (code is one of KLP's error codes, such as UNAVAILABLE or CONFLICT), and what an
/// agent may throw to say more than a message: details is an object.
class AgentError : public std::runtime_error {
 public:
  explicit AgentError(const std::string& message, std::string error_code = "AGENT_ERROR", Json error_details = nullptr,
                      bool can_retry = false)
      : std::runtime_error(message),
        code(std::move(error_code)),
        details(std::move(error_details)),
        retryable(can_retry) {}

  std::string code;
  Json details;
  bool retryable;
};

/// What rides beside a message. Fields that are empty are left out.
struct Metadata {
  std::string priority;              ///< low, normal, high, urgent
  std::optional<std::uint32_t> ttl;  ///< seconds
  std::string traceparent;           ///< W3C Trace Context
};

struct SendOptions {
  std::int64_t timeout_ms = 0;  ///< how long to wait for the answer; 0: the default deadline
  Metadata metadata;
};

struct ErrorSummary {
  std::string type;
  std::int64_t count = 0;
  std::string last_occurrence;  ///< ISO 8601
  std::string message;
};

struct HealthStatus {
  std::string status = "healthy";  ///< healthy, warning, critical
  std::int64_t uptime = 0;         ///< milliseconds
  double memory_usage = 0;         ///< MB
  double cpu_usage = 0;            ///< percent of one core
  std::string last_activity;       ///< ISO 8601
  std::vector<ErrorSummary> errors;
};

}  // namespace kai
