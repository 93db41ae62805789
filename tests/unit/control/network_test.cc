// What control makes of an agent's network: rules that follow the policy, what egress tells, what `kaictl net` says. A
// whole control, a fake keeper, and the test as egress.
#include <sys/socket.h>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/control/control_fixture.h"

namespace kai::test {
namespace {

constexpr const char* kAllows = R"(policies:
- name: web
  agentId: "a*"
  network: {allowedDomains: [allowed.example]}
  quarantine: {denials: 5}
)";
constexpr const char* kAllowsNothing = "policies:\n- name: web\n  agentId: \"a*\"\n  quarantine: {denials: 5}\n";

nlohmann::json asks_for(const std::string& id, const nlohmann::json& domains) {
  auto manifest = manifest_of(id);
  manifest["security"]["networkAccess"] = {{"allowOutbound", true}, {"allowedDomains", domains}};
  return manifest;
}

control::Request reload() {
  control::Request request;
  request.mutable_reload();
  return request;
}

control::Request net_of(const std::string& id) {
  control::Request request;
  request.mutable_net()->set_id(id);
  return request;
}

struct Fixture : ControlFixture {
  explicit Fixture(const nlohmann::json& domains = {"allowed.example", "other.example"}) {
    keeper->policies = {{"10-web.yaml", kAllows}};
    REQUIRE(code(call(reload())) == "done");
    REQUIRE(add(asks_for("a1", domains)).has_done());
    REQUIRE(code(call(start_of("a1"))) == "done");
    egress = keeper->bring_egress();
  }
  std::uint64_t instance() { return keeper->instance(); }
  void tell(egress::Event event) { REQUIRE(send_packet(egress.get(), event.SerializeAsString())); }
  void refuse(egress::Refused::Kind kind, const std::string& name, std::uint64_t more = 0) {
    egress::Event event;
    auto& refused = *event.mutable_refused();
    refused.set_instance(instance());
    refused.set_kind(kind);
    refused.set_name(name);
    refused.set_port(kind == egress::Refused::LOOKUP ? 0 : 443);
    refused.set_reason("policy web does not list it");
    refused.set_rule("10-web.yaml:4");
    refused.set_more(more);
    tell(event);
  }
  void until_logged(const std::string& text) {
    until([&] { return log_text().find(text) != std::string::npos; });
  }
  void reload_to(const char* text) {
    keeper->policies = {{"10-web.yaml", text}};
    REQUIRE(code(call(reload())) == "done");
  }
  /// Answers the next question of control's with `snapshot`.
  void answer(egress::Snapshot snapshot) {
    std::optional<Packet> question;
    until([&] {
      auto packet = receive_packet(egress.get(), 4096, MSG_DONTWAIT);
      if (packet) question = std::move(*packet);
      return question.has_value();
    });
    egress::Query query;
    REQUIRE(query.ParseFromString(question->bytes));
    CHECK(query.instance() == instance());
    egress::Event event;
    snapshot.set_id(query.id());
    *event.mutable_snapshot() = std::move(snapshot);
    tell(event);
  }

  Fd egress;
};

TEST_CASE("an agent that asks for a network gets its rules with its sandbox, and others none") {
  Fixture f;
  REQUIRE(f.keeper->host().spec.has_network());
  CHECK(f.keeper->host().spec.network().allowed_size() == 1);
  CHECK(f.keeper->host().spec.network().agent_id() == "a1");
  REQUIRE(f.add(manifest_of("a2")).has_done());
  REQUIRE(code(f.call(start_of("a2"))) == "done");
  CHECK_FALSE(f.keeper->hosts.rbegin()->second->spec.has_network());
}

TEST_CASE("rules follow the policies at once; the sandbox is the old one only where more than names has changed") {
  Fixture f;
  f.keeper->networks.clear();
  f.reload_to(kAllowsNothing);
  f.until([&] { return f.keeper->networks.size() == 1; });
  REQUIRE(f.keeper->networks[0].second);
  CHECK(f.keeper->networks[0].first == f.instance());
  CHECK(f.keeper->networks[0].second->allowed_size() == 0);
  const std::string more = "policies:\n- name: web\n  network: {allowedDomains: [allowed.example, other.example]}\n";
  f.reload_to(kAllows);
  f.until([&] { return f.keeper->networks.size() == 2; });
  CHECK(f.keeper->networks[1].second->allowed_size() == 1);
  const std::string before = f.log_text();
  f.reload_to(more.c_str());
  f.until([&] { return f.keeper->networks.size() == 3; });
  CHECK(f.keeper->networks[2].second->allowed_size() == 2);
}

TEST_CASE("quarantine and terminate cut it off before anything else") {
  Fixture f;
  f.keeper->networks.clear();
  SUBCASE("quarantine") {
    control::Request request;
    request.mutable_quarantine()->set_id("a1");
    request.mutable_quarantine()->set_reason("odd");
    REQUIRE(code(f.call(request)) == "done");
    f.until([&] { return !f.keeper->frozen.empty(); });
    // What stands still is not connected again by a policy that is read meanwhile.
    f.reload_to(kAllows);
  }
  SUBCASE("terminate") {
    control::Request request;
    request.mutable_terminate()->set_id("a1");
    REQUIRE(code(f.call(request)) == "done");
  }
  REQUIRE_FALSE(f.keeper->networks.empty());
  for (const auto& [instance, rules] : f.keeper->networks) CHECK_FALSE(rules);
}

TEST_CASE("each decision is a line: connections with their bytes, refusals as denials with their rule") {
  Fixture f;
  egress::Event opened;
  opened.mutable_opened()->set_instance(f.instance());
  opened.mutable_opened()->set_connection(7);
  opened.mutable_opened()->set_name("allowed.example");
  opened.mutable_opened()->set_address("93.184.216.34");
  opened.mutable_opened()->set_port(443);
  opened.mutable_opened()->set_protocol(egress::TLS);
  opened.mutable_opened()->set_rule("10-web.yaml:4");
  f.tell(opened);
  f.until_logged(R"("event":"kai.connected","message":"connected to allowed.example:443")");
  egress::Event closed;
  closed.mutable_closed()->set_instance(f.instance());
  closed.mutable_closed()->set_name("allowed.example");
  closed.mutable_closed()->set_port(443);
  closed.mutable_closed()->set_sent(11);
  closed.mutable_closed()->set_received(22);
  closed.mutable_closed()->set_cause("closed by the agent");
  f.tell(closed);
  f.until_logged(R"("sent":11,"received":22)");
  f.refuse(egress::Refused::CONNECTION, "other.example");
  f.until_logged("connection to other.example:443 refused: policy web does not list it");
  CHECK(f.log_text().find(R"("rule":"10-web.yaml:4")") != std::string::npos);
  CHECK(f.status("a1")["denials"] == 1);
  f.refuse(egress::Refused::LOOKUP, "evil\x1b[2J.example");
  f.until([&] { return f.status("a1")["denials"] == 2; });
  CHECK(f.log_text().find('\x1b') == std::string::npos);
  // Allowed and not reached is nobody's wrong.
  f.refuse(egress::Refused::FAILED, "allowed.example");
  f.until_logged("connection to allowed.example:443 not made");
  CHECK(f.status("a1")["denials"] == 2);
}

TEST_CASE("refused connections count towards quarantine, also those that were not told one by one") {
  Fixture f;
  f.refuse(egress::Refused::CONNECTION, "other.example", 9);
  f.until([&] { return f.status("a1")["status"] == "quarantined"; });
  CHECK(f.status("a1")["quarantine"]["reason"]["type"] == "security_violation");
}

TEST_CASE("what egress says of nobody, or no event at all, harms nobody") {
  Fixture f;
  egress::Event stray;
  stray.mutable_refused()->set_instance(f.instance() + 77);
  f.tell(stray);
  egress::Event lost;
  lost.mutable_lost()->set_events(12);
  f.tell(lost);
  f.until_logged(R"("dropped":12)");
  REQUIRE(send_packet(f.egress.get(), "\xff\xff\xff no event"));
  f.until_logged("kai-egress says what is no event");
  f.refuse(egress::Refused::CONNECTION, "other.example");
  f.until([&] { return f.status("a1")["denials"] == 1; });
  // The next one is listened to.
  f.egress = f.keeper->bring_egress(true);
  f.until_logged("another egress has taken the place of the one before");
  f.refuse(egress::Refused::CONNECTION, "other.example");
  f.until([&] { return f.status("a1")["denials"] == 2; });
}

TEST_CASE("a connection that ended with its agent is told, though the agent is gone by then") {
  Fixture f;
  const std::uint64_t instance = f.instance();
  REQUIRE(code(f.call(stop_of("a1"))) == "done");
  egress::Event closed;
  closed.mutable_closed()->set_instance(instance);
  closed.mutable_closed()->set_name("allowed.example");
  closed.mutable_closed()->set_cause("the agent ended");
  f.tell(closed);
  f.until_logged("connection to allowed.example ended: the agent ended");
}

TEST_CASE("kaictl net: what is open, looked up and refused") {
  Fixture f;
  f.until([&] { return f.status("a1")["state"] == "running"; });
  const auto asked = f.operator_->send(net_of("a1"));
  egress::Snapshot snapshot;
  snapshot.set_known(true);
  snapshot.set_open(1);
  snapshot.set_lookups(4);
  auto& connection = *snapshot.add_connections();
  connection.set_name("allowed.example");
  connection.set_address("93.184.216.34");
  connection.set_port(443);
  connection.set_protocol(egress::TLS);
  auto& refusals = *snapshot.add_refusals();
  refusals.set_name("other.example");
  refusals.set_reason("no");
  refusals.set_count(3);
  f.answer(snapshot);
  const auto json = document(f.operator_->wait(asked));
  CHECK(json["network"] == true);
  CHECK(json["policy"] == "web");
  CHECK(json["limits"]["ports"] == nlohmann::json{80, 443});
  CHECK(json["open"] == 1);
  CHECK(json["connections"][0]["state"] == "open");
  CHECK(json["connections"][0]["protocol"] == "tls");
  CHECK(json["denials"][0]["count"] == 3);
  CHECK_FALSE(json.contains("fault"));
}

TEST_CASE("explain --connect of an agent that runs: names follow at once, a port waits for its listener") {
  Fixture f;
  const auto verdict = [&](const std::string& name, std::uint32_t port) {
    control::Request request;
    request.mutable_policy_explain()->set_id("a1");
    request.mutable_policy_explain()->set_connect_name(name);
    request.mutable_policy_explain()->set_connect_port(port);
    return document(f.call(request));
  };
  CHECK(verdict("allowed.example", 443)["verdict"] == "granted");
  CHECK(verdict("other.example", 443)["verdict"] == "refused");
  f.reload_to(
      "policies:\n- name: web\n  network: {allowedDomains: [allowed.example, other.example], ports: [443, 8443]}\n");
  CHECK(verdict("other.example", 443)["verdict"] == "granted");
  const auto port = verdict("other.example", 8443);
  CHECK(port["verdict"] == "refused");
  CHECK(port["reason"].get<std::string>().find("kaictl restart a1") != std::string::npos);
  REQUIRE(code(f.call(stop_of("a1"))) == "done");
  CHECK(verdict("other.example", 8443)["verdict"] == "granted");
}

TEST_CASE("kaictl net of an agent without a network, that does not run, whose egress is gone, or that nobody knows") {
  Fixture f;
  REQUIRE(f.add(manifest_of("a2")).has_done());
  auto json = document(f.call(net_of("a2")));
  CHECK(json["network"] == false);
  CHECK(json["reason"] == "its manifest does not ask for it (allowOutbound)");
  CHECK(json["connections"].empty());
  CHECK(code(f.call(net_of("nobody"))) == "NOT_FOUND");
  f.egress.reset();
  CHECK(document(f.call(net_of("a1"))).contains("fault"));
  REQUIRE(code(f.call(stop_of("a1"))) == "done");
  json = document(f.call(net_of("a1")));
  CHECK(json["network"] == true);
  CHECK(json["state"] == "stopped");
  CHECK_FALSE(json.contains("open"));
}

}  // namespace
}  // namespace kai::test
