// `kaictl net`: what an agent's network is now. docs/schema/net.schema.json.
#include <nlohmann/json.hpp>

#include "policies/network_rules.h"
#include "supervisor/control/connection_log.h"
#include "supervisor/control/egress_client.h"
#include "supervisor/control/requests.h"

namespace kai {
namespace {

using Json = nlohmann::ordered_json;

Json limits_json(const egress::Rules& rules) {
  Json protocols = Json::array();
  for (const int protocol : rules.protocols())
    protocols.push_back(protocol_name(static_cast<egress::Protocol>(protocol)));
  return {{"maxConnections", rules.limits().connections()},
          {"bandwidthLimit", rules.limits().bytes_per_second() >> 10U},
          {"protocols", std::move(protocols)},
          {"ports", network_ports(rules)}};
}

Json connection_json(const egress::ConnectionInfo& connection) {
  Json json = Json::object();
  if (!connection.name().empty()) json["name"] = connection.name();
  if (!connection.address().empty()) json["address"] = connection.address();
  json["port"] = connection.port();
  if (!connection.connecting()) json["protocol"] = protocol_name(connection.protocol());
  json["age"] = connection.age_ms();
  json["sent"] = connection.sent();
  json["received"] = connection.received();
  json["sentPerSecond"] = connection.sent_per_second();
  json["receivedPerSecond"] = connection.received_per_second();
  json["state"] = connection.connecting() ? "connecting" : "open";
  return json;
}

Json refusals_json(const egress::Refusals& refusals) {
  Json json = Json::object();
  if (!refusals.name().empty()) json["name"] = refusals.name();
  if (refusals.port() != 0) json["port"] = refusals.port();
  json["reason"] = refusals.reason();
  if (!refusals.rule().empty()) json["rule"] = refusals.rule();
  json["count"] = refusals.count();
  return json;
}

void add_counters(Json& json, const egress::Snapshot& snapshot) {
  json["open"] = snapshot.open();
  json["total"] = snapshot.total();
  json["sent"] = snapshot.sent();
  json["received"] = snapshot.received();
  json["lookups"] = snapshot.lookups();
  json["refused"] = snapshot.refused();
  json["failed"] = snapshot.failed();
}

void add_lists(Json& json, const egress::Snapshot& snapshot) {
  Json& connections = json["connections"] = Json::array();
  Json& names = json["names"] = Json::array();
  Json& denials = json["denials"] = Json::array();
  for (const auto& connection : snapshot.connections()) connections.push_back(connection_json(connection));
  for (const auto& name : snapshot.names()) {
    names.push_back({{"name", name.name()},
                     {"address4", name.address4()},
                     {"address6", name.address6()},
                     {"connections", name.connections()}});
  }
  for (const auto& refusals : snapshot.refusals()) denials.push_back(refusals_json(refusals));
}

std::string why_no_network(const Agent& agent, const egress::Rules* rules) {
  const NetworkPolicy& asked = agent.manifest().security.network;
  const Instance* instance = agent.instance();
  if (!asked.allow_outbound) return "its manifest does not ask for it (allowOutbound)";
  if (rules == nullptr) return "it has the host's own network, by its policy's grants: nobody sees its connections";
  if (asked.allowed_domains.empty()) return "its manifest lists nobody (allowedDomains): no list, no network";
  if (rules->limits().connections() == 0) return "maxConnections is 0 (" + rules->limits().connections_rule() + ")";
  if (instance != nullptr && !instance->has_network()) {
    return "it was started without one, and its policy allows one since: kaictl restart " + agent.row().id;
  }
  return "its policy allows nothing of what its manifest asks: kaictl policy explain " + agent.row().id;
}

Json base_json(const Agent& agent) {
  const auto rules = agent.network();
  const Instance* instance = agent.instance();
  const bool started_with = instance == nullptr || instance->has_network();
  const bool network = rules && started_with && !network_ports(*rules).empty();
  Json json = {{"id", agent.row().id}, {"state", to_string(agent.state())}, {"network", network}};
  if (!network) json["reason"] = why_no_network(agent, rules ? &*rules : nullptr);
  json["policy"] = agent.policy().name;
  if (network) json["limits"] = limits_json(*rules);
  return json;
}

/// `snapshot`: null where nothing is known.
void answer(const Responder& responder, Json json, const egress::Snapshot* snapshot) {
  const bool known = snapshot != nullptr && snapshot->known();
  if (known) add_counters(json, *snapshot);
  add_lists(json, known ? *snapshot : egress::Snapshot{});
  responder.done(json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace

void handle_net(Operations& operations, const control::Net& request, const Responder& responder) {
  const Agent* agent = operations.agents.find(request.id());
  if (agent == nullptr) return responder.fail(not_registered(request.id()));
  const Instance* instance = agent->instance();
  if (instance == nullptr || !instance->has_network()) return answer(responder, base_json(*agent), nullptr);
  operations.environment.egress->snapshot(
      instance->number(), [json = base_json(*agent), responder](const egress::Snapshot* snapshot) mutable {
        if (snapshot == nullptr)
          json["fault"] = "kai-egress does not answer; ask again, and see kaid's log if that stays so";
        answer(responder, std::move(json), snapshot);
      });
}

}  // namespace kai
