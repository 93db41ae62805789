#include "supervisor/control/upgrade_record.h"

#include <array>
#include <cmath>

#include <nlohmann/json.hpp>

namespace kai {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 3> kTypes = {"soft", "hard", "rollback"};
constexpr std::array<std::string_view, 3> kPhases = {"underWay", "probation", "leaving"};

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

template <typename Enum, std::size_t kSize>
std::optional<Enum> named(const std::array<std::string_view, kSize>& names, const std::string& name) {
  for (std::size_t at = 0; at < kSize; ++at) {
    if (names[at] == name) return static_cast<Enum>(at);
  }
  return std::nullopt;
}

double rounded(double ms) {
  return std::round(ms * 1000) / 1000;
}

Json story(const UpgradeReport& report) {
  Json json = {{"success", !report.failure}, {"type", to_string(report.type)}};
  if (report.failure) json["error"] = report.failure->message;
  json["rollbackAvailable"] = report.rollback_available;
  if (!report.from.empty()) json["from"] = report.from;
  if (!report.to.empty()) json["to"] = report.to;
  if (!report.to.empty()) json["targetVersion"] = report.to;
  json["how"] = report.replaced ? "replaced" : report.soft ? "soft" : "hard";
  if (report.automatic) json["automatic"] = true;
  if (!report.reason.empty()) json["reason"] = report.reason;
  json["steps"] = Json::array();
  for (const UpgradeStep& step : report.steps) {
    json["steps"].push_back({{"step", step.name}, {"ms", rounded(step.ms)}});
  }
  json["messagesHeld"] = report.messages_held;
  json["pauseMs"] = rounded(report.pause_ms);
  json["forced"] = report.forced;
  if (!report.backup.empty()) json["backup"] = report.backup;
  if (!report.failure) json["probationMs"] = report.probation_ms;
  return json;
}

}  // namespace

std::string_view to_string(UpgradeType type) {
  return kTypes[static_cast<std::size_t>(type)];
}

std::string_view to_string(UpgradeRecord::Phase phase) {
  return kPhases[static_cast<std::size_t>(phase)];
}

std::string to_json(const UpgradeRecord& record) {
  Json json = {{"phase", to_string(record.phase)},
               {"type", to_string(record.type)},
               {"from", record.from},
               {"to", record.to},
               {"before", record.before},
               {"instance", record.instance},
               {"standby", record.standby},
               {"until", record.until}};
  if (record.operator_uid) json["operatorUid"] = *record.operator_uid;
  return dump(json);
}

Result<UpgradeRecord> parse_upgrade_record(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) return failure("a record of an upgrade that is no JSON");
  UpgradeRecord record;
  try {
    const auto phase = named<UpgradeRecord::Phase>(kPhases, json.at("phase").get<std::string>());
    const auto type = named<UpgradeType>(kTypes, json.at("type").get<std::string>());
    if (!phase || !type) return failure("a record of an upgrade with an unknown phase or type");
    record.phase = *phase;
    record.type = *type;
    record.from = json.at("from").get<std::string>();
    record.to = json.at("to").get<std::string>();
    record.before = json.at("before").get<std::string>();
    record.instance = json.at("instance").get<std::uint64_t>();
    record.standby = json.at("standby").get<std::uint64_t>();
    record.until = json.at("until").get<std::int64_t>();
    if (json.contains("operatorUid")) record.operator_uid = json["operatorUid"].get<std::uint32_t>();
  } catch (const Json::exception& error) {
    return failure("a record of an upgrade that lacks something", error.what());
  }
  return record;
}

std::string upgrade_document(const UpgradeReport& report, const std::vector<std::string>& warnings) {
  Json json = story(report);
  json["id"] = report.id;
  json["warnings"] = warnings;
  return dump(json);
}

std::string upgrade_metadata(const UpgradeReport& report) {
  Json json = story(report);
  if (report.failure) json["code"] = report.failure->code;
  if (report.operator_uid) json["operatorUid"] = *report.operator_uid;
  return dump(json);
}

std::string steps_text(const UpgradeReport& report) {
  std::string text;
  for (const UpgradeStep& step : report.steps) {
    if (!text.empty()) text += ", ";
    text += step.name + ' ' + std::to_string(std::lround(step.ms)) + " ms";
  }
  return text;
}

}  // namespace kai
