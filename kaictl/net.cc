#include "kaictl/net.h"

#include <cstdint>
#include <vector>

#include "kaictl/ask.h"
#include "kaictl/json_text.h"

namespace kai {
namespace {

std::string or_dash(std::string text) {
  return text.empty() ? "-" : text;
}

std::uint64_t number_of(const Json& object, std::string_view key) {
  const Json value = member(object, key);
  return value.is_number_unsigned() ? value.get<std::uint64_t>() : 0;
}

std::string size_text(const Json& object, std::string_view key) {
  return readable_size(static_cast<double>(number_of(object, key)));
}

Json list_of(const Json& document, std::string_view key) {
  Json list = member(document, key);
  return list.is_array() ? list : Json::array();
}

/// "1.2 KB", and while bytes flow "1.2 KB (300 B/s)".
std::string traffic_text(const Json& connection, std::string_view bytes, std::string_view rate) {
  const std::string rest = number_of(connection, rate) == 0 ? "" : " (" + size_text(connection, rate) + "/s)";
  return size_text(connection, bytes) + rest;
}

/// "64 connections, and as many new ones a second; 10 MB/s each way; ports 80, 443; tls, http".
std::string limits_text(const Json& limits) {
  return text_of(limits, "maxConnections") + " connections, and as many new ones a second; " +
         readable_size(1024 * static_cast<double>(number_of(limits, "bandwidthLimit"))) + "/s each way; ports " +
         or_dash(joined(member(limits, "ports"))) + "; " + or_dash(joined(member(limits, "protocols")));
}

std::string head_text(const Json& document) {
  std::string text =
      text_of(document, "id") + ": " + or_dash(text_of(document, "state")) + ", policy " + text_of(document, "policy");
  const std::string reason = text_of(document, "reason");
  if (text_of(document, "network") != "true") return text + "\n  no egress: " + reason + "\n";
  text += "\n";
  if (!reason.empty()) text += "  " + reason + "\n";
  const Json limits = member(document, "limits");
  if (limits.is_object()) text += "  limits       " + limits_text(limits) + "\n";
  return text;
}

std::string counters_text(const Json& document) {
  if (!document.contains("open")) return {};
  return "  connections  " + text_of(document, "open") + " open, " + text_of(document, "total") +
         " in all\n"
         "  bytes        " +
         size_text(document, "sent") + " sent, " + size_text(document, "received") +
         " received\n"
         "  lookups      " +
         text_of(document, "lookups") +
         "\n"
         "  refused      " +
         text_of(document, "refused") + "; allowed, but failed: " + text_of(document, "failed") + "\n";
}

std::string connections_text(const Json& document) {
  const Json connections = list_of(document, "connections");
  if (connections.empty()) return "no connection is open\n";
  std::vector<TableRow> rows = {{"NAME", "ADDRESS", "PORT", "PROTOCOL", "STATE", "AGE", "SENT", "RECEIVED"}};
  for (const Json& each : connections) {
    rows.push_back({or_dash(text_of(each, "name")), or_dash(text_of(each, "address")), text_of(each, "port"),
                    or_dash(text_of(each, "protocol")), text_of(each, "state"), duration_of(each, "age"),
                    traffic_text(each, "sent", "sentPerSecond"), traffic_text(each, "received", "receivedPerSecond")});
  }
  std::string text = table(rows);
  if (const std::uint64_t open = number_of(document, "open"); open > connections.size()) {
    text += "and " + std::to_string(open - connections.size()) + " more\n";
  }
  return text;
}

std::string names_text(const Json& document) {
  const Json names = list_of(document, "names");
  if (names.empty()) return "no allowed name has been looked up\n";
  std::vector<TableRow> rows = {{"LOOKED UP", "IPV4 INSIDE", "IPV6 INSIDE", "OPEN"}};
  for (const Json& each : names) {
    rows.push_back({text_of(each, "name"), text_of(each, "address4"), text_of(each, "address6"),
                    or_dash(text_of(each, "connections"))});
  }
  return table(rows);
}

std::string denials_text(const Json& document) {
  const Json denials = list_of(document, "denials");
  if (denials.empty()) return "nothing was refused\n";
  std::vector<TableRow> rows = {{"REFUSED", "PORT", "COUNT", "RULE", "REASON"}};
  for (const Json& each : denials) {
    rows.push_back({or_dash(text_of(each, "name")), or_dash(text_of(each, "port")), text_of(each, "count"),
                    or_dash(text_of(each, "rule")), text_of(each, "reason")});
  }
  return table(rows);
}

}  // namespace

std::string net_text(std::string_view json) {
  const Json document = parse_document(json);
  if (!document.is_object()) return {};
  std::string text = head_text(document) + counters_text(document);
  if (const std::string fault = text_of(document, "fault"); !fault.empty()) {
    return text + "what is open is not known now: " + fault + "\n";
  }
  if (!document.contains("open") && list_of(document, "denials").empty()) {
    if (text_of(document, "network") != "true") return text;
    return text + "nothing is open" + (text_of(document, "state") == "running" ? "\n" : ": it does not run\n");
  }
  // Without network there may still be denials; without either, the head has said it all.
  const bool network = text_of(document, "network") == "true";
  if (network) text += "\n" + connections_text(document) + "\n" + names_text(document);
  if (network || !list_of(document, "denials").empty()) text += "\n" + denials_text(document);
  return text;
}

Outcome<Answer> net(const Context& context, const std::string& id) {
  control::Request request;
  request.mutable_net()->set_id(id);
  const auto waiting = call_options(context, "network of " + id, context.timeout.value_or(kLookUpLimit));
  auto answer = ask(context, request, waiting, {}, id_document(id));
  if (answer) answer->text = net_text(answer->json);
  return answer;
}

}  // namespace kai
