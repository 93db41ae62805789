#include "supervisor/control/quarantine.h"

#include <array>

#include <nlohmann/json.hpp>

namespace kai {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 4> kTypes = {"crash", "resource_abuse", "security_violation", "manual"};
constexpr std::array<std::string_view, 4> kSeverities = {"low", "medium", "high", "critical"};

template <typename Enum>
std::optional<Enum> named(const std::array<std::string_view, 4>& names, std::string_view name) {
  for (std::size_t at = 0; at < names.size(); ++at) {
    if (names[at] == name) return static_cast<Enum>(at);
  }
  return std::nullopt;
}

}  // namespace

std::string_view to_string(QuarantineType type) {
  return kTypes[static_cast<std::size_t>(type)];
}
std::string_view to_string(Severity severity) {
  return kSeverities[static_cast<std::size_t>(severity)];
}
std::optional<QuarantineType> quarantine_type(std::string_view name) {
  return named<QuarantineType>(kTypes, name);
}
std::optional<Severity> severity(std::string_view name) {
  return named<Severity>(kSeverities, name);
}

std::uint32_t max_retries(const QuarantineRules& rules, Severity severity) {
  switch (severity) {
    case Severity::kLow:
      return rules.retries_low;
    case Severity::kMedium:
      return rules.retries_medium;
    case Severity::kHigh:
      return rules.retries_high;
    case Severity::kCritical:
      return rules.retries_critical;
  }
  return 0;
}

std::string to_json(const QuarantineRecord& record, std::string_view agent) {
  Json json = {{"agentId", agent},
               {"quarantinedAt", record.quarantined_at},
               {"reason",
                {{"type", to_string(record.reason.type)},
                 {"description", record.reason.description},
                 {"timestamp", record.reason.timestamp},
                 {"severity", to_string(record.reason.severity)}}},
               {"retryCount", record.retry_count},
               {"maxRetries", record.max_retries}};
  if (!record.evidence.empty()) json["evidence"] = record.evidence;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<QuarantineRecord> parse_quarantine(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) return failure("a quarantine record that is no JSON");
  QuarantineRecord record;
  try {
    const Json& reason = json.at("reason");
    const auto type = quarantine_type(reason.at("type").get<std::string>());
    const auto level = severity(reason.at("severity").get<std::string>());
    if (!type || !level) return failure("a quarantine record with an unknown type or severity");
    record.reason = {*type, *level, reason.at("description").get<std::string>(),
                     reason.at("timestamp").get<std::string>()};
    record.quarantined_at = json.at("quarantinedAt").get<std::string>();
    record.retry_count = json.at("retryCount").get<std::uint32_t>();
    record.max_retries = json.at("maxRetries").get<std::uint32_t>();
    record.evidence = json.value("evidence", "");
  } catch (const Json::exception& error) {
    return failure("a quarantine record that lacks something", error.what());
  }
  return record;
}

}  // namespace kai
