// Events both ways, and what rides beside a message: priority, ttl, traceparent.
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "agent-host/limits.h"
#include "base/text.h"
#include "tests/unit/agent-host/host.h"

namespace kai::test {
namespace {

using Json = nlohmann::json;

constexpr const char* kTraceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

klp::Message event() {
  klp::Message message;
  message.set_id("e");
  message.set_from("newsAgent");
  message.set_to("topic:newsAgent.headline");
  message.set_type(klp::EVENT);
  message.set_timestamp(iso_now());
  message.set_payload("{}");
  return message;
}

/// An error to `message`, as control gives it.
klp::Message refusal(const klp::Message& message, const std::string& code) {
  klp::Message error;
  error.set_type(klp::ERROR);
  error.set_correlation_id(message.id());
  error.mutable_error()->set_code(code);
  error.mutable_error()->set_message("no grant");
  return error;
}

}  // namespace

TEST_CASE("klp.emit and klp.send to a topic are events, answered when they are sent") {
  Host host(runner(R"(
start()
trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ask(1, "klp.emit", name="booked", data={"id": "e1"})
answers = [hear()]
ask(2, "klp.emit", name="none", metadata={"priority": "low", "ttl": 5, "traceparent": trace})
answers.append(hear())
ask(3, "klp.emit", name="bytes", payloadBase64="AP8=", contentType="image/png")
answers.append(hear())
ask(4, "klp.send", to="topic:newsAgent.wanted", capability="", payload=[1])
answers.append(hear())
note("log", level="info", message=json.dumps(answers))
hear()
)"));
  host.start();
  const klp::Message booked = host.receive_message();
  CHECK(booked.type() == klp::EVENT);
  CHECK(booked.protocol() == "klp/1.0");
  CHECK(booked.id().size() == 36);
  CHECK(booked.from() == "calendarAgent");
  CHECK(booked.to() == "topic:calendarAgent.booked");
  CHECK(booked.payload() == "{\"id\": \"e1\"}");
  CHECK_FALSE(booked.has_metadata());
  const klp::Message none = host.receive_message();
  CHECK(none.payload() == "null");
  CHECK(none.metadata().priority() == klp::LOW);
  CHECK(none.metadata().ttl_seconds() == 5);
  CHECK(none.metadata().traceparent() == kTraceparent);
  const klp::Message bytes = host.receive_message();
  CHECK(bytes.payload() == std::string("\0\xFF", 2));
  CHECK(bytes.content_type() == "image/png");
  const klp::Message wanted = host.receive_message();
  CHECK(wanted.type() == klp::EVENT);
  CHECK(wanted.to() == "topic:newsAgent.wanted");
  CHECK(wanted.capability().empty());
  CHECK(wanted.payload() == "[1]");
  CHECK(Json::parse(host.receive().log().message()) == Json::parse(R"([
    {"jsonrpc": "2.0", "id": 1, "result": {}}, {"jsonrpc": "2.0", "id": 2, "result": {}},
    {"jsonrpc": "2.0", "id": 3, "result": {}}, {"jsonrpc": "2.0", "id": 4, "result": {"payload": null}}])"));
}

TEST_CASE("names that are none, and metadata that is not well-formed, are INVALID") {
  Host host(runner(R"(
start()
def outcome(method, **params):
    ask(1, method, **params)
    e = hear()["error"]
    return [e["code"], e["data"]["code"]]
bad_names = ["", ".x", "-", "a/b", "a b", "ž", "x" * 65, None, 5]
bad_topics = ["topic:", "topic:.x", "topic:a/b", "topic:" + "x" * 130]
trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
bad_metadata = [[], "high", {"priority": "highest"}, {"priority": 1}, {"ttl": -1}, {"ttl": 1.5}, {"ttl": "5"},
  {"ttl": 1 << 32}, {"traceparent": trace.upper()}, {"traceparent": trace[:-1]}, {"traceparent": "ff" + trace[2:]},
  {"traceparent": "00-" + "0" * 32 + trace[35:]}, {"traceparent": trace[:36] + "0" * 16 + "-01"}, {"traceparent": 1},
  {"traceparent": trace + "-x"}]
seen = [outcome("klp.emit", name=n) for n in bad_names] + [outcome("klp.emit")]
seen += [outcome("klp.send", to=t) for t in bad_topics]
seen += [outcome("klp.emit", name="n", metadata=m) for m in bad_metadata]
seen += [outcome("klp.send", to="o", capability="c", metadata=m) for m in bad_metadata]
seen += [outcome("klp.emit", name="n", payloadBase64="?")]
ok = all(s == [-32602, "INVALID"] for s in seen)
note("log", level="info", message=str(ok), fields={"seen": seen})
ask(2, "klp.emit", name="n", data="x" * (1 << 20))
note("log", level="info", message=hear()["error"]["data"]["code"])
hear()
)"));
  host.start();
  const klp::AgentLog log = host.receive().log();
  CHECK_MESSAGE(log.message() == "True", log.fields_json());
  CHECK(host.receive().log().message() == "TOO_LARGE");
}

TEST_CASE("metadata of klp.send goes to control, and what control says goes to the runner") {
  Host host(runner(R"(
start()
ask(1, "klp.send", to="other", capability="c", payload=1, metadata={"priority": "urgent", "ttl": 7,
  "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
ask(2, "klp.send", to="other", capability="c", payload=1, metadata={"priority": None, "ttl": None}, timeoutMs=None)
m = hear()
note("log", level="info", message=json.dumps([m["params"]["message"]["metadata"]]))
m = hear()
note("log", level="info", message=json.dumps([m["params"]["message"]["metadata"]]))
hear()
)"));
  host.start();
  const klp::Message urgent = host.receive_message();
  CHECK(urgent.metadata().priority() == klp::URGENT);
  CHECK(urgent.metadata().ttl_seconds() == 7);
  CHECK(urgent.metadata().traceparent() == kTraceparent);
  CHECK_FALSE(host.receive_message().has_metadata());
  klp::Message message = event();
  *message.mutable_metadata() = urgent.metadata();
  host.send_message(message);
  CHECK(Json::parse(host.receive().log().message()) == Json::parse(R"([{"priority": "urgent", "ttl": 7,
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}])"));
  message.mutable_metadata()->set_traceparent("\x1B[2J");  // another agent's words, that its host should have refused
  host.send_message(message);
  CHECK(Json::parse(host.receive().log().message()) == Json::parse(R"([{"priority": "urgent", "ttl": 7}])"));
}

TEST_CASE("an event that was refused is a line of the agent's log, once") {
  Host host(runner(R"(
start()
ask(1, "klp.emit", name="booked", data=1)
hear()
ask(2, "klp.send", to="other", capability="c", timeoutMs=20)
hear()
hear()
)"));
  host.start();
  const klp::Message booked = host.receive_message();
  const klp::Message request = host.receive_message();
  host.send_message(refusal(request, "TIMEOUT"));
  host.send_message(refusal(booked, "DENIED"));
  host.send_message(refusal(booked, "DENIED"));
  host.send_message(refusal(request, "DENIED"));
  const klp::AgentLog log = host.receive().log();
  CHECK(log.level() == "warn");
  CHECK(log.message() == "the event to topic:calendarAgent.booked was refused: no grant");
  CHECK(Json::parse(log.fields_json()) == Json::parse(R"({"code": "DENIED"})"));
  CHECK(host.receive_bytes().empty());
}

TEST_CASE("events reach the runner: binary too, and not after their ttl") {
  Host host(runner(R"(
start()
for _ in range(2):
    msg = hear()["params"]["message"]
    note("log", level="info", message=json.dumps([msg["type"], msg["from"], msg["to"], msg.get("payload"), msg.get("payloadBase64"), msg.get("contentType")]))
hear()
)"));
  host.start();
  klp::Message message = event();
  message.set_timestamp(iso_time(unix_ms() - 5000));
  message.mutable_metadata()->set_ttl_seconds(4);
  host.send_message(message);
  message.set_timestamp(iso_now());
  host.send_message(message);
  CHECK(Json::parse(host.receive().log().message()) ==
        Json::parse(R"(["event", "newsAgent", "topic:newsAgent.headline", {}, null, null])"));
  message.set_payload(std::string("\0\xFF", 2));
  message.set_content_type("image/png");
  host.send_message(message);
  CHECK(Json::parse(host.receive().log().message()) ==
        Json::parse(R"(["event", "newsAgent", "topic:newsAgent.headline", null, "AP8=", "image/png"])"));
}

TEST_CASE("an event to an agent that is starting is dropped") {
  Host host(runner(R"(
hello()
init = hear()
note("log", level="info", message="in init")
answer(init, {})
m = hear()
answer(m, {})
m = hear()
note("log", level="info", message=m["params"]["message"]["id"])
hear()
)"));
  klp::Message early = event();
  early.set_id("early");
  klp::Envelope accepted, envelope;
  accepted.mutable_accepted();
  envelope.set_message(early.SerializeAsString());
  std::string both;  // in one piece: the event is there before the runner can have started
  append_frame(both, accepted.SerializeAsString());
  append_frame(both, envelope.SerializeAsString());
  host.send_bytes(both);
  host.receive(klp::Envelope::kStarted);
  klp::Message late = event();
  late.set_id("late");
  host.send_message(late);
  CHECK(host.receive().log().message() == "late");
}

}  // namespace kai::test
