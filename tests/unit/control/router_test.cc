// Messages between agents: a whole control, and hosts that the test speaks for.
#include <algorithm>
#include <deque>

#include <doctest/doctest.h>

#include "base/text.h"
#include "tests/unit/control/control_fixture.h"

namespace kai::test {
namespace {

using nlohmann::json;

Policy open_policy() {
  Policy policy = builtin_policy(true);
  policy.permissions = {{"agent", {"execute"}, "*"}, {"topic", {"read", "write"}, "*"}};
  policy.auto_restart = false;
  return policy;
}

json may(const std::string& resource, const std::string& scope, const std::vector<std::string>& actions) {
  return {{"resource", resource}, {"scope", scope}, {"actions", actions}};
}

struct RouterFixture : ControlFixture {
  explicit RouterFixture(const Policy& policy = open_policy()) : ControlFixture(policy) {}

  FakeHost& start(const std::string& id, const json& permissions = json::array()) {
    json manifest = manifest_of(id);
    manifest["security"]["permissions"] = permissions;
    const auto added = add(manifest);
    REQUIRE_MESSAGE(added.has_done(), added.failed().message());
    REQUIRE(call(start_of(id)).has_done());
    return *keeper->hosts.rbegin()->second;
  }

  static klp::Message message(klp::Type type, const std::string& to, const std::string& payload = "{}") {
    klp::Message made;
    made.set_protocol("klp/1.0");
    made.set_id(new_uuid());
    made.set_from("liar");
    made.set_to(to);
    made.set_type(type);
    made.set_timestamp(iso_now());
    made.set_payload(payload);
    if (type == klp::REQUEST) made.set_capability("echo");
    return made;
  }
  static void say(FakeHost& host, const klp::Message& message) {
    klp::Envelope envelope;
    message.SerializeToString(envelope.mutable_message());
    host.send(envelope);
  }
  static std::vector<klp::Message> messages_of(const FakeHost& host) {
    std::vector<klp::Message> messages;
    for (const klp::Envelope& envelope : host.received) {
      if (envelope.has_message()) messages.emplace_back().ParseFromString(envelope.message());
    }
    return messages;
  }
  /// What came back for `sent`.
  klp::Message answer_to(const FakeHost& host, const klp::Message& sent) {
    klp::Message found;
    until([&] {
      for (klp::Message& each : messages_of(host)) {
        if (each.correlation_id() == sent.id()) found = std::move(each);
      }
      return !found.id().empty();
    });
    return found;
  }
  /// The code of the error that a request or event of `host` is answered with; "response" for a response.
  std::string said_to(FakeHost& host, const klp::Message& sent) {
    say(host, sent);
    const klp::Message answer = answer_to(host, sent);
    return answer.type() == klp::ERROR ? answer.error().code() : "response";
  }
  std::size_t events_of(const FakeHost& host) {
    const auto messages = messages_of(host);
    return static_cast<std::size_t>(
        std::count_if(messages.begin(), messages.end(), [](const klp::Message& m) { return m.type() == klp::EVENT; }));
  }
  std::uint64_t denials(const std::string& id) { return status(id)["denials"]; }
};

const json kToB = json::array({may("agent", "b", {"execute"})});
const json kToAll = json::array({may("agent", "*", {"execute"})});

TEST_CASE_FIXTURE(RouterFixture, "a request goes to the agent that the sender may send to, and its answer comes back") {
  FakeHost& a = start("a", kToB);
  FakeHost& b = start("b");
  klp::Message request = message(klp::REQUEST, "b", R"({"n":1})");
  request.set_deadline_ms(5000);
  request.mutable_metadata()->set_priority(klp::HIGH);
  request.mutable_metadata()->set_ttl_seconds(9);
  request.mutable_metadata()->set_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
  say(a, request);
  const klp::Message answer = answer_to(a, request);
  CHECK(answer.type() == klp::RESPONSE);
  CHECK(answer.from() == "b");
  CHECK(answer.to() == "a");
  CHECK(answer.payload() == R"({"n":1})");
  const klp::Message got = messages_of(b).back();
  CHECK(got.id() == request.id());
  CHECK(got.from() == "a");
  CHECK(got.to() == "b");
  CHECK(got.capability() == "echo");
  CHECK(got.deadline_ms() <= 5000);
  CHECK(got.deadline_ms() > 0);
  CHECK(got.metadata().SerializeAsString() == request.metadata().SerializeAsString());
}

TEST_CASE_FIXTURE(RouterFixture, "the policy's deadline is the longest that a request may ask for") {
  FakeHost& a = start("a", kToB);
  FakeHost& b = start("b");
  klp::Message request = message(klp::REQUEST, "b");
  request.set_deadline_ms(86'400'000);
  CHECK(said_to(a, request) == "response");
  CHECK(messages_of(b).back().deadline_ms() <= 30'000);
}

TEST_CASE_FIXTURE(RouterFixture, "without a permission nothing is told, not even whether the other exists") {
  FakeHost& a = start("a", json::array({may("agent", "c", {"execute"}),
                                        may("agent", "b", {"read"}),
                                        may("topic", "b", {"write"}),
                                        {{"resource", "agent"}, {"actions", {"execute"}}}}));
  FakeHost& b = start("b");
  for (const char* to : {"b", "a", "nobody", "B", "", "b/x"}) {
    CAPTURE(to);
    CHECK(said_to(a, message(klp::REQUEST, to)) == "DENIED");
  }
  CHECK(messages_of(b).empty());
  CHECK(denials("a") == 6);
  CHECK(log_text().find("\"event\":\"kai.denied\"") != std::string::npos);
}

TEST_CASE_FIXTURE(RouterFixture,
                  "with permission for all: what is not there is NOT_FOUND, what does not run NOT_RUNNING") {
  FakeHost& a = start("a", kToAll);
  REQUIRE(add(manifest_of("b")).has_done());
  CHECK(said_to(a, message(klp::REQUEST, "nobody")) == "NOT_FOUND");
  CHECK(said_to(a, message(klp::REQUEST, "b")) == "NOT_RUNNING");
  klp::Message request = message(klp::REQUEST, "a");
  request.set_capability("fly");
  CHECK(said_to(a, request) == "UNKNOWN_CAPABILITY");
  CHECK(denials("a") == 0);
}

TEST_CASE_FIXTURE(RouterFixture, "an agent that may send to itself gets its own request and its own answer") {
  FakeHost& a = start("a", kToAll);
  a.script = [&a](const klp::Envelope& envelope) {
    klp::Message got, response;
    got.ParseFromString(envelope.message());
    if (got.type() != klp::REQUEST) return;
    response.set_type(klp::RESPONSE);
    a.answer(got, response);
  };
  CHECK(said_to(a, message(klp::REQUEST, "a")) == "response");
}

TEST_CASE_FIXTURE(RouterFixture, "what is no agent") {
  FakeHost& a = start("a", kToAll);
  CHECK(said_to(a, message(klp::REQUEST, "operator")) == "INVALID");
  CHECK(said_to(a, message(klp::REQUEST, "topic:x")) == "INVALID");
  CHECK(said_to(a, message(klp::REQUEST, "kaid")) == "UNAVAILABLE");
  CHECK(said_to(a, message(klp::EVENT, "b")) == "INVALID");
  CHECK(said_to(a, message(klp::EVENT, "topic:")) == "INVALID");
}

TEST_CASE_FIXTURE(RouterFixture, "the receiver's error comes with its code, from it") {
  FakeHost& a = start("a", kToB);
  FakeHost& b = start("b");
  b.script = [&b](const klp::Envelope& envelope) {
    klp::Message got, error;
    got.ParseFromString(envelope.message());
    error.set_type(klp::ERROR);
    error.mutable_error()->set_code("CONFLICT");
    error.mutable_error()->set_message("taken");
    error.mutable_error()->set_details_json(R"({"slot":3})");
    b.answer(got, error);
  };
  const klp::Message request = message(klp::REQUEST, "b");
  say(a, request);
  const klp::Message answer = answer_to(a, request);
  CHECK(answer.from() == "b");
  CHECK(answer.error().code() == "CONFLICT");
  CHECK(answer.error().message() == "taken");
  CHECK(answer.error().details_json() == R"({"slot":3})");
}

TEST_CASE_FIXTURE(RouterFixture, "one that ends in between: the sender is told; the sender's own end hurts nobody") {
  FakeHost& a = start("a", kToB);
  const std::uint64_t a_instance = keeper->hosts.rbegin()->first;
  FakeHost& b = start("b");
  const std::uint64_t b_instance = keeper->hosts.rbegin()->first;
  std::deque<klp::Message> held;
  b.script = [&](const klp::Envelope& envelope) {
    if (envelope.has_message()) held.emplace_back().ParseFromString(envelope.message());
  };
  const klp::Message request = message(klp::REQUEST, "b");
  say(a, request);
  until([&] { return held.size() == 1; });
  SUBCASE("the receiver") {
    keeper->exited(b_instance, true, 11);
    const klp::Message answer = answer_to(a, request);
    CHECK(answer.error().code() == "AGENT_CRASHED");
    CHECK(answer.error().retryable());
    CHECK(said_to(a, message(klp::REQUEST, "b")) == "NOT_RUNNING");
  }
  SUBCASE("the sender") {
    keeper->exited(a_instance, true, 11);
    until([&] { return status("a")["state"] == "stopped"; });
    klp::Message response;
    response.set_type(klp::RESPONSE);
    b.answer(held.front(), response);
    CHECK(status("b")["state"] == "running");
    // A new life of the sender has nothing of the old one's on its account.
    REQUIRE(call(start_of("a")).has_done());
    CHECK(messages_of(*keeper->hosts.rbegin()->second).empty());
  }
  SUBCASE("the sender, unregistered") {
    keeper->exited(a_instance, true, 11);
    until([&] { return status("a")["state"] == "stopped"; });
    control::Request unregister;
    unregister.mutable_unregister()->set_id("a");
    REQUIRE(call(unregister).has_done());
    klp::Message response;
    response.set_type(klp::RESPONSE);
    b.answer(held.front(), response);
    CHECK(status("b")["state"] == "running");
  }
}

TEST_CASE("one sender has no more requests open than its policy gives, whoever they are for") {
  Policy policy = open_policy();
  policy.limits.in_flight = 3;
  RouterFixture f(policy);
  FakeHost& a = f.start("a", kToAll);
  FakeHost& b = f.start("b");
  FakeHost& c = f.start("c");
  b.script = c.script = [](const klp::Envelope&) {};
  for (const char* to : {"b", "c", "b"}) RouterFixture::say(a, RouterFixture::message(klp::REQUEST, to));
  CHECK(f.said_to(a, RouterFixture::message(klp::REQUEST, "c")) == "BUSY");
  // The others are served meanwhile.
  CHECK(document(f.call(send_of("a", "echo", "[1]")))["payload"] == json::array({1}));
}

TEST_CASE_FIXTURE(RouterFixture, "a topic reaches everyone who may read it, and nobody else") {
  FakeHost& a = start("a", json::array({may("topic", "news", {"write"})}));
  FakeHost& reader = start("reader", json::array({may("topic", "news", {"read"})}));
  FakeHost& all = start("all", json::array({may("topic", "*", {"read"})}));
  FakeHost& other = start("other", json::array({may("topic", "weather", {"read"}), may("topic", "news", {"write"})}));
  REQUIRE(add([] {
            json manifest = manifest_of("stopped");
            manifest["security"]["permissions"] = json::array({may("topic", "news", {"read"})});
            return manifest;
          }())
              .has_done());
  const klp::Message event = message(klp::EVENT, "topic:news", R"({"rain":true})");
  say(a, event);
  until([&] { return events_of(reader) == 1 && events_of(all) == 1; });
  const klp::Message got = messages_of(reader).back();
  CHECK(got.id() == event.id());
  CHECK(got.from() == "a");
  CHECK(got.to() == "topic:news");
  CHECK(got.payload() == R"({"rain":true})");
  CHECK(messages_of(a).empty());  // it may not read what it writes
  CHECK(messages_of(other).empty());
  CHECK(said_to(a, message(klp::EVENT, "topic:weather")) == "DENIED");
  CHECK(denials("a") == 1);
  CHECK(said_to(reader, message(klp::EVENT, "topic:news")) == "DENIED");
}

TEST_CASE_FIXTURE(RouterFixture, "one that may read its own topic hears itself") {
  FakeHost& a = start("a", json::array({may("topic", "a.tick", {"read", "write"})}));
  say(a, message(klp::EVENT, "topic:a.tick"));
  until([&] { return events_of(a) == 1; });
}

TEST_CASE_FIXTURE(RouterFixture, "a reader that does not read loses events, and slows nobody") {
  FakeHost& a = start("a", json::array({may("topic", "news", {"write"})}));
  FakeHost& slow = start("slow", json::array({may("topic", "news", {"read"})}));
  const Fd unread = slow.take_socket();  // it lives, and reads nothing more
  FakeHost& quick = start("quick", json::array({may("topic", "news", {"read"})}));
  const std::string payload = "\"" + std::string(60'000, 'x') + "\"";
  constexpr std::size_t kEvents = 100;
  for (std::size_t sent = 0; sent < kEvents; ++sent) {
    say(a, message(klp::EVENT, "topic:news", payload));
    until([&] { return events_of(quick) == sent + 1; });
  }
  CHECK(log_text().find("\"event\":\"kai.events_lost\"") != std::string::npos);
  CHECK(status("slow")["state"] == "running");
  CHECK(status("quick")["state"] == "running");
}

TEST_CASE_FIXTURE(RouterFixture, "a replayed request does not reach its receiver") {
  FakeHost& a = start("a", kToB);
  FakeHost& b = start("b");
  const klp::Message request = message(klp::REQUEST, "b");
  CHECK(said_to(a, request) == "response");
  say(a, request);
  until([&] { return messages_of(a).size() == 2; });
  CHECK(messages_of(a).back().error().code() == "REPLAY");
  CHECK(messages_of(b).size() == 1);
  CHECK(denials("a") == 1);
}

}  // namespace
}  // namespace kai::test
