// Messages between control and a scripted runner, both ways: payloads, errors, deadlines, limits, log records.
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "agent-host/limits.h"
#include "base/text.h"
#include "tests/unit/agent-host/host.h"

namespace kai::test {
namespace {

using Json = nlohmann::json;

std::string request_frame(const std::string& id) {
  klp::Message message;
  message.set_id(id);
  message.set_from("operator");
  message.set_to("calendarAgent");
  message.set_type(klp::REQUEST);
  message.set_capability("x");
  message.set_timestamp(iso_now());
  message.set_payload("{}");
  klp::Envelope envelope;
  envelope.set_message(message.SerializeAsString());
  std::string frame;
  append_frame(frame, envelope.SerializeAsString());
  return frame;
}

}  // namespace

TEST_CASE("a message and its answer") {
  Host host(runner(R"(
start()
while True:
    m = hear()
    if not m: break
    msg = m["params"]["message"]
    answer(m, {"payload": msg})
)"));
  host.start();
  klp::Message message;
  message.set_id("id-1");
  message.set_from("operator");
  message.set_to("calendarAgent");
  message.set_type(klp::REQUEST);
  message.set_capability("scheduleEvent");
  message.set_timestamp(iso_now());
  message.set_payload("{\"title\":\n\"Z\xC3\xBCrich \xE2\x80\xA8\",\r\n \"n\": 123456789012345678901234567890}");
  message.mutable_metadata()->set_priority(klp::HIGH);
  message.mutable_metadata()->set_ttl_seconds(60);
  message.mutable_metadata()->set_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  host.send_message(message);
  const klp::Message answer = host.receive_message();
  CHECK(answer.type() == klp::RESPONSE);
  CHECK(answer.protocol() == "klp/1.0");
  CHECK(answer.correlation_id() == "id-1");
  CHECK(answer.from() == "calendarAgent");
  CHECK(answer.to() == "operator");
  CHECK(answer.id().size() == 36);
  CHECK(answer.content_type().empty());
  // Byte for byte as Python wrote it: no number has lost digits on the way.
  CHECK(answer.payload().find("123456789012345678901234567890") != std::string::npos);
  const Json seen = Json::parse(answer.payload());
  CHECK(seen["protocol"] == "klp/1.0");
  CHECK(seen["id"] == "id-1");
  CHECK(seen["from"] == "operator");
  CHECK(seen["to"] == "calendarAgent");
  CHECK(seen["type"] == "request");
  CHECK(seen["capability"] == "scheduleEvent");
  CHECK(seen["timestamp"] == message.timestamp());
  CHECK(seen["payload"]["title"] == "Z\xC3\xBCrich \xE2\x80\xA8");
  CHECK(seen["metadata"] == Json::parse(R"({"priority": "high", "ttl": 60,
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})"));
}

TEST_CASE("the shapes of a result") {
  Host host(runner(R"(
start()
results = [{"payloadBase64": "AP8=", "contentType": "image/png"}, {"message": {"id": "mine", "from": "root",
  "payload": [1], "metadata": {"priority": "urgent", "ttl": 5, "other": 1}}}, {}, None, {"payloadBase64": "?"},
  {"payloadBase64": "AP8="}]
for r in results: answer(hear(), r)
hear()
)"));
  host.start();
  const auto ask = [&] {
    host.request("r", "x", "{}");
    return host.receive_message();
  };
  const klp::Message binary = ask();
  CHECK(binary.payload() == std::string("\0\xFF", 2));
  CHECK(binary.content_type() == "image/png");
  const klp::Message whole = ask();
  CHECK(whole.payload() == "[1]");
  CHECK(whole.from() == "calendarAgent");
  CHECK(whole.id() != "mine");
  CHECK(whole.metadata().priority() == klp::URGENT);
  CHECK(whole.metadata().ttl_seconds() == 5);
  CHECK(ask().payload() == "null");
  CHECK(ask().error().code() == "AGENT_ERROR");
  CHECK(ask().error().code() == "AGENT_ERROR");
  CHECK(ask().content_type() == "application/octet-stream");
}

TEST_CASE("a payload that is not JSON goes as base64") {
  Host host(runner(R"(
start()
m = hear()
msg = m["params"]["message"]
answer(m, {"payload": [msg["payloadBase64"], msg["contentType"], "payload" in msg]})
hear()
)"));
  host.start();
  klp::Message message;
  message.set_id("r");
  message.set_type(klp::REQUEST);
  message.set_payload(std::string("\0\xFF\x10", 3));
  message.set_content_type("image/png");
  host.send_message(message);
  CHECK(Json::parse(host.receive_message().payload()) == Json::parse(R"(["AP8Q", "image/png", false])"));
}

TEST_CASE("an error of a hook: code, message, stack, retryable") {
  Host host(runner(R"(
start()
fail(hear(), "conflict with standup", code="CONFLICT", name="Conflict", stack="s" * 100000, details={"id": 7}, retryable=True)
fail(hear(), "x" * 100000, code="QUARANTINED")
say({"jsonrpc": "2.0", "id": hear()["id"], "error": {"code": -32601, "message": "no hook"}})
say({"jsonrpc": "2.0", "id": hear()["id"], "error": {}})
fail(hear(), "wait", code="BUSY", details="x" * 100000)
hear()
)"));
  host.start();
  const auto ask = [&] {
    host.request("r", "x", "{}");
    return host.receive_message().error();
  };
  const klp::ErrorBody conflict = ask();
  CHECK(conflict.code() == "CONFLICT");
  CHECK(conflict.message() == "conflict with standup");
  CHECK(conflict.retryable());
  const Json details = Json::parse(conflict.details_json());
  CHECK(details["name"] == "Conflict");
  CHECK(details["details"]["id"] == 7);
  CHECK(details["stack"].get<std::string>().size() == kMaxStackBytes);
  const klp::ErrorBody not_its_word = ask();
  CHECK(not_its_word.code() == "AGENT_ERROR");
  CHECK(not_its_word.message().size() == kMaxErrorMessageBytes);
  CHECK(ask().code() == "UNKNOWN_CAPABILITY");
  const klp::ErrorBody bare = ask();
  CHECK(bare.code() == "AGENT_ERROR");
  CHECK_FALSE(bare.message().empty());
  const klp::ErrorBody busy = ask();
  CHECK(busy.retryable());
  CHECK(busy.details_json().empty());
}

TEST_CASE("what agent-host refuses by itself") {
  Host host(runner("start()\nwhile m := hear(): answer(m, {'payload': 1})"));
  host.start();
  SUBCASE("payloads that are no JSON") {
    for (const std::string& payload :
         {std::string(), std::string("{"), std::string("{}\0x", 4), std::string("\"\xFF\""), std::string("{} {}"),
          std::string(200, '[') + std::string(200, ']')}) {
      host.request("r", "x", payload);
      CHECK(host.receive_message().error().code() == "INVALID");
    }
  }
  SUBCASE("a message whose ttl has passed") {
    klp::Message message;
    message.set_id("r");
    message.set_type(klp::REQUEST);
    message.set_payload("{}");
    message.set_timestamp(iso_time(unix_ms() - 5000));
    message.mutable_metadata()->set_ttl_seconds(4);
    host.send_message(message);
    CHECK(host.receive_message().error().code() == "EXPIRED");
  }
  SUBCASE("binary that does not fit a line") {
    klp::Message message;
    message.set_id("r");
    message.set_type(klp::REQUEST);
    message.set_payload(std::string(1 << 20, 'x'));
    message.set_content_type("image/png");
    host.send_message(message);
    CHECK(host.receive_message().error().code() == "TOO_LARGE");
  }
  // It lives on.
  host.request("after", "x", "{}");
  CHECK(host.receive_message().correlation_id() == "after");
}

TEST_CASE("a payload of exactly the limit goes both ways") {
  Host host(runner("start()\nwhile m := hear(): answer(m, {'payload': m['params']['message']['payload']})"));
  host.start();
  const std::string payload = '"' + std::string(kMaxFrameBytes - 2, 'x') + '"';
  host.request("r", "x", payload);
  CHECK(host.receive_message().payload() == payload);
}

TEST_CASE("an answer over the limit is TOO_LARGE") {
  Host host(runner("start()\nanswer(hear(), {'payload': 'x' * (1 << 20)})\nhear()"));
  host.start();
  host.request("r", "x", "{}");
  CHECK(host.receive_message().error().code() == "TOO_LARGE");
}

TEST_CASE("deadlines: TIMEOUT, and the late answer is dropped") {
  Host host(runner(R"(
start()
first = hear(); second = hear()
answer(first, {"payload": "late"})
answer(second, {"payload": "in time"})
hear()
)"));
  host.start();
  host.request("slow", "x", "{}", 50);
  const klp::Message timeout = host.receive_message();
  CHECK(timeout.correlation_id() == "slow");
  CHECK(timeout.error().code() == "TIMEOUT");
  CHECK(timeout.error().retryable());
  host.request("next", "x", "{}");
  const klp::Message answer = host.receive_message();
  CHECK(answer.correlation_id() == "next");
  CHECK(answer.payload() == "\"in time\"");
}

TEST_CASE("the default deadline comes with accepted") {
  Host host(runner("start()\nhear()\nhear()"));
  host.accept(64, 50);
  host.receive(klp::Envelope::kStarted);
  host.request("r", "x", "{}");
  CHECK(host.receive_message().error().code() == "TIMEOUT");
}

TEST_CASE("more in flight than allowed is BUSY; answers may come in any order") {
  Host host(runner("start()\na = hear(); b = hear()\nanswer(b, {'payload': 2}); answer(a, {'payload': 1})\nhear()"));
  host.accept(2);
  host.receive(klp::Envelope::kStarted);
  // In one piece: the third is there before the first is answered.
  host.send_bytes(request_frame("a") + request_frame("b") + request_frame("c"));
  bool busy = false;
  std::string order;
  for (int count = 0; count < 3; ++count) {
    const klp::Message answer = host.receive_message();
    if (answer.type() == klp::ERROR) {
      busy = answer.correlation_id() == "c" && answer.error().code() == "BUSY" && answer.error().retryable();
    } else {
      order += answer.correlation_id();
    }
  }
  CHECK(busy);
  CHECK(order == "ba");
}

TEST_CASE("an event is a notification") {
  Host host(runner(R"(
start()
m = hear()
note("log", level="debug", message=json.dumps(["id" in m, m["method"], m["params"]["message"]["type"]]))
hear()
)"));
  host.start();
  klp::Message message;
  message.set_id("e");
  message.set_type(klp::EVENT);
  message.set_to("topic:x");
  message.set_payload("{}");
  host.send_message(message);
  CHECK(host.receive().log().message() == "[false, \"message\", \"event\"]");
}

TEST_CASE("klp.send: the request to control, and its answer to the runner") {
  Host host(runner(R"(
start()
ask("a", "klp.send", to="other", capability="echo", payload={"n": 1}, timeoutMs=5000)
ask(2, "klp.send", to="other", capability="echo", payloadBase64="AP8=", contentType="image/png")
answers = [hear(), hear()]
note("log", level="info", message=json.dumps(answers))
hear()
)"));
  host.start();
  const klp::Message first = host.receive_message();
  CHECK(first.type() == klp::REQUEST);
  CHECK(first.to() == "other");
  CHECK(first.from() == "calendarAgent");
  CHECK(first.capability() == "echo");
  CHECK(first.payload() == "{\"n\": 1}");
  CHECK(first.deadline_ms() == 5000);
  const klp::Message second = host.receive_message();
  CHECK(second.payload() == std::string("\0\xFF", 2));
  CHECK(second.content_type() == "image/png");

  klp::Message response, error, stray;
  stray.set_type(klp::RESPONSE);
  stray.set_correlation_id("nobody's");
  host.send_message(stray);
  response.set_type(klp::RESPONSE);
  response.set_correlation_id(second.id());
  response.set_payload("\x01\x02");
  response.set_content_type("image/png");
  host.send_message(response);
  error.set_type(klp::ERROR);
  error.set_correlation_id(first.id());
  error.mutable_error()->set_code("DENIED");
  error.mutable_error()->set_message("no grant");
  error.mutable_error()->set_details_json("{\"a\":1}");
  host.send_message(error);
  CHECK(Json::parse(host.receive().log().message()) == Json::parse(R"([
    {"jsonrpc": "2.0", "id": 2, "result": {"payloadBase64": "AQI=", "contentType": "image/png"}},
    {"jsonrpc": "2.0", "id": "a", "error": {"code": -32000, "message": "no grant",
      "data": {"code": "DENIED", "details": {"a": 1}, "retryable": false}}}])"));
}

TEST_CASE("requests of the runner that are refused") {
  Host host(runner(R"(
start()
def outcome(method, **params):
    ask(1, method, **params)
    e = hear()["error"]
    return [e["code"], e["data"]["code"], e["data"]["retryable"]]
log = [outcome("memory.get", key=5), outcome("no.such"),
  outcome("klp.send", capability="c"), outcome("klp.send", to="o", capability=""),
  outcome("klp.send", to="o", capability="c", timeoutMs=-1), outcome("klp.send", to="o", capability="c", payloadBase64="?")]
note("log", level="info", message=json.dumps(log))
ask(9, "klp.send", to="o", capability="c", timeoutMs=1)
note("log", level="info", message=hear()["error"]["data"]["code"])
hear()
)"));
  host.start();
  CHECK(Json::parse(host.receive().log().message()) == Json::parse(R"([
    [-32602, "INVALID", false], [-32601, "INVALID", false],
    [-32602, "INVALID", false], [-32602, "INVALID", false], [-32602, "INVALID", false], [-32602, "INVALID", false]])"));
  CHECK(host.receive_message().deadline_ms() == 1);
  CHECK(host.receive().log().message() == "TIMEOUT");
}

TEST_CASE("a log record: level, message, fields; long ones are cut") {
  Host host(runner(R"(
start()
note("log", level="warn", message="x" * 100000, fields={"a": [1]})
note("log", level="error", message="m", fields={"a": "x" * 100000})
hear()
)"));
  host.start();
  const klp::AgentLog cut = host.receive().log();
  CHECK(cut.level() == "warn");
  CHECK(cut.message().size() == kMaxLogMessageBytes);
  CHECK(cut.fields_json() == "{\"a\": [1]}");
  CHECK(host.receive().log().fields_json() == R"({"fieldsLost":"too large"})");
}

}  // namespace kai::test
