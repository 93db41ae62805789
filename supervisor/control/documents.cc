#include "supervisor/control/documents.h"

#include <array>

#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/json_check.h"
#include "base/text.h"
#include "policies/exposure.h"

namespace kai {
namespace {

using Json = nlohmann::ordered_json;

// Strings that came from outside may not be UTF-8; a document never fails for it.
std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

const char* desired_name(const Agent& agent) {
  return agent.row().desired == Desired::kRunning ? "running" : "stopped";
}

void append_member(std::string& json, std::string_view name, std::string_view text) {
  if (json.size() > 1) json += ',';
  append_json_string(json, name);
  json += ':';
  append_json_string(json, text);
}

std::string_view type_name(klp::Type type) {
  switch (type) {
    case klp::REQUEST:
      return "request";
    case klp::EVENT:
      return "event";
    case klp::ERROR:
      return "error";
    default:
      return "response";
  }
}

std::string metadata_json(const klp::Metadata& metadata) {
  static constexpr std::array<const char*, 4> kPriorities = {"normal", "low", "high", "urgent"};
  Json json = Json::object();
  const auto priority = static_cast<std::size_t>(metadata.priority());
  json["priority"] = kPriorities[priority < kPriorities.size() ? priority : 0];
  if (metadata.ttl_seconds() != 0) json["ttl"] = metadata.ttl_seconds();
  if (!metadata.traceparent().empty()) json["traceparent"] = metadata.traceparent();
  return dump(json);
}

Json exposure_json(const Agent& agent) {
  const auto description = agent.description();
  if (!description) return {{"score", nullptr}, {"items", Json::array()}};
  const Exposure exposure = exposure_of(description->spec, agent.policy(), agent.degraded());
  Json items = Json::array();
  for (const Exposure::Item& item : exposure.items) {
    items.push_back({{"name", item.name}, {"points", item.points}, {"reason", item.reason}});
  }
  return {{"score", exposure.score}, {"items", std::move(items)}};
}

Json upgrade_json(const UpgradeRecord& record) {
  Json json = {
      {"phase", to_string(record.phase)}, {"type", to_string(record.type)}, {"from", record.from}, {"to", record.to}};
  if (record.until != 0) json["until"] = iso_time(record.until);
  return json;
}

// In the one-line message; all of them are in details.
constexpr std::size_t kMaxNamedErrors = 32;

}  // namespace

std::string list_document(const Agents& agents) {
  Json list = Json::array();
  for (const auto& [id, agent] : agents.all()) {
    list.push_back({{"id", id},
                    {"name", agent->manifest().name},
                    {"version", agent->row().active.version},
                    {"state", to_string(agent->state())},
                    {"status", status_of(agent->state())},
                    {"desired", desired_name(*agent)},
                    {"uptime", agent->uptime_ms()},
                    {"restarts", agent->restarts()},
                    {"policy", agent->policy().name}});
  }
  return dump({{"agents", std::move(list)}});
}

std::string status_document(const Agent& agent, std::string_view health) {
  const Policy& policy = agent.policy();
  Json json = {
      {"id", agent.row().id},           {"status", status_of(agent.state())},    {"state", to_string(agent.state())},
      {"desired", desired_name(agent)}, {"version", agent.row().active.version}, {"uptime", agent.uptime_ms()}};
  const Instance* instance = agent.instance();
  if (instance != nullptr && instance->pid() != 0) json["pid"] = instance->pid();
  if (agent.state() == State::kBackoff) {
    json["backoff"] = {{"until", iso_time(agent.backoff().until_unix_ms)}, {"delay", agent.backoff().delay_ms}};
  }
  std::string text = dump(json);
  text.pop_back();
  // Checked text of others goes in as it is.
  if (!health.empty()) text.append(R"(,"health":)").append(health);
  if (!agent.row().last_end.empty()) text.append(R"(,"lastEnd":)").append(agent.row().last_end);
  if (agent.quarantined()) text.append(R"(,"quarantine":)").append(agent.row().quarantine);
  if (const auto& upgrade = agent.upgrade_record()) text.append(R"(,"upgrade":)").append(dump(upgrade_json(*upgrade)));
  if (agent.soft_swaps() > 0) text.append(R"(,"softSwaps":)").append(std::to_string(agent.soft_swaps()));
  const Json rest = {{"restarts", agent.restarts()},
                     {"crashes", {{"count", agent.crashes()}, {"window", policy.crash_window.count()}}},
                     {"policy", policy.name},
                     {"degraded", agent.degraded()},
                     {"grants", instance != nullptr ? Json(instance->grants()) : Json::array()},
                     {"denials", agent.denials()},
                     {"exposure", exposure_json(agent)}};
  return text + ',' + dump(rest).substr(1);
}

std::string not_found_document(std::string_view id) {
  std::string json = "{";
  append_member(json, "id", id);
  append_member(json, "status", "not_found");
  return json + '}';
}

std::string message_document(const klp::Message& message) {
  std::string json = "{";
  json.reserve(message.payload().size() + 512);
  append_member(json, "protocol", "klp/1.0");
  append_member(json, "id", message.id());
  append_member(json, "from", message.from());
  append_member(json, "to", message.to());
  append_member(json, "type", type_name(message.type()));
  append_member(json, "correlationId", message.correlation_id());
  if (!message.capability().empty()) append_member(json, "capability", message.capability());
  append_member(json, "timestamp", message.timestamp());
  const bool says_json = message.content_type().empty() || message.content_type() == "application/json";
  if (says_json && is_json(message.payload())) {
    json.append(R"(,"payload":)").append(message.payload());
  } else {
    json.append(R"(,"payloadBase64":")");
    append_base64(json, message.payload());
    json += '"';
    append_member(json, "contentType", says_json ? "application/octet-stream" : message.content_type());
  }
  if (message.has_metadata()) json.append(R"(,"metadata":)").append(metadata_json(message.metadata()));
  return json + '}';
}

std::string registered_document(const Agent& agent, const std::vector<std::string>& warnings) {
  return dump({{"id", agent.row().id},
               {"version", agent.row().active.version},
               {"name", agent.manifest().name},
               {"package", agent.row().active.package},
               {"policy", agent.policy().name},
               {"warnings", warnings}});
}

std::string manifest_errors_document(const std::vector<ManifestError>& errors) {
  Json list = Json::array();
  for (const ManifestError& error : errors) list.push_back({{"pointer", error.pointer}, {"message", error.message}});
  return dump({{"errors", std::move(list)}});
}

Failure manifest_failure(const std::vector<ManifestError>& errors) {
  std::string message = "the manifest is not valid: ";
  for (std::size_t at = 0; at < errors.size() && at < kMaxNamedErrors; ++at) {
    if (at > 0) message += "; ";
    message += (errors[at].pointer.empty() ? "document" : errors[at].pointer) + ": " + errors[at].message;
  }
  if (errors.size() > kMaxNamedErrors) message += "; and " + std::to_string(errors.size() - kMaxNamedErrors) + " more";
  return {"INVALID", message, "Mend the manifest and try again; -o json lists every fault",
          manifest_errors_document(errors), false};
}

}  // namespace kai
