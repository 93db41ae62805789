// Control dies and another one comes: at every phase, with what was under way, and with what a keeper never says.
#include <signal.h>
#include <sys/socket.h>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "agent-host/limits.h"
#include "base/text.h"
#include "base/unix.h"
#include "tests/unit/agent-host/host.h"

namespace kai::test {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kEcho = R"(
start()
while m := hear(): answer(m, {"payload": m["params"]["message"]["payload"]} if m["method"] == "message" else {})
)";

spec::SandboxSpec idle() {
  return program({"/bin/sh", "-c", "exec tail -f /dev/null"});
}

/// The host serves: it answers this request.
void check_serving(Host& host, const std::string& id = "serving") {
  host.request(id, "x", "\"" + id + "\"");
  CHECK(host.receive_message().payload() == "\"" + id + "\"");
}

}  // namespace

TEST_CASE("before the hello was answered: it is said anew") {
  Host host(runner(kEcho));
  const klp::Hello first = host.receive().hello();
  host.hang_up();
  host.reconnect();
  const klp::Envelope again = host.receive();
  REQUIRE(again.has_hello());
  CHECK(again.hello().SerializeAsString() == first.SerializeAsString());
  host.start();
  check_serving(host);
}

TEST_CASE("started while there is no control is said by the resume") {
  Host host(runner(R"(
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
hello()
init = hear()
note("log", level="info", message="in init")
print("waits", flush=True)
signal.sigwait([signal.SIGUSR1])
answer(init, {}); answer(hear(), {})
print("served", hear()["method"], flush=True)
hear()
)"));
  host.accept();
  host.receive(klp::Envelope::kLog);
  CHECK(host.output_line() == "waits\n");
  SUBCASE("after it") {
    const klp::Resume resume = host.resumed();
    CHECK(resume.phase() == klp::Resume::STARTING);
    CHECK(resume.runner_spoke());
    klp::Envelope go;
    go.mutable_signal()->set_number(SIGUSR1);
    host.send(go);
    CHECK(host.receive().has_started());
  }
  SUBCASE("between it and its answer: started waits for the answer") {
    CHECK(host.resume().phase() == klp::Resume::STARTING);
    klp::Envelope go, resumed;
    go.mutable_signal()->set_number(SIGUSR1);
    host.send(go);
    resumed.mutable_resumed();
    host.send(resumed);
    CHECK(host.receive().has_started());
  }
  SUBCASE("before it") {
    klp::Envelope go;
    go.mutable_signal()->set_number(SIGUSR1);
    host.send(go);
    host.receive(klp::Envelope::kStarted);
    CHECK(host.resumed().phase() == klp::Resume::SERVING);
  }
  host.request("r", "x", "{}");
  CHECK(host.output_line() == "served message\n");
}

TEST_CASE("serving: open sends fail as retryable, answers to the dead control reach nobody") {
  Host host(runner(R"(
start()
old = hear()
ask("open", "klp.send", to="other", capability="c", payload=1)
error = hear()["error"]["data"]
print(json.dumps(error), flush=True)
outcome = []
for method, params in (("klp.send", {"to": "o", "capability": "c"}), ("klp.emit", {"name": "n"}), ("memory.get", {"key": "k"})):
    ask(method, method, **params)
    e = hear()["error"]
    outcome.append([e["code"], e["data"]["code"], e["data"]["retryable"]])
print(json.dumps(outcome), flush=True)
answer(old, {"payload": "late"})
note("log", level="info", message="kept")
print("said", flush=True)
while m := hear(): answer(m, {"payload": m["params"]["message"]["payload"]})
)"));
  host.start();
  host.request("old", "x", "{}");
  CHECK(host.receive_message().capability() == "c");
  host.hang_up();
  CHECK(Json::parse(host.output_line()) == Json::parse(R"({"code": "UNAVAILABLE", "retryable": true})"));
  CHECK(Json::parse(host.output_line()) == Json::parse(R"([[-32000, "UNAVAILABLE", true],
    [-32000, "UNAVAILABLE", true], [-32000, "UNAVAILABLE", true]])"));
  CHECK(host.output_line() == "said\n");
  const klp::Resume resume = host.resumed();
  CHECK(resume.phase() == klp::Resume::SERVING);
  CHECK(resume.hello().agent_id() == "calendarAgent");
  CHECK(resume.hello().runner_protocol());
  CHECK(host.receive().log().message() == "kept");
  check_serving(host);  // and not "late"
}

TEST_CASE("nothing but the resume is said before its answer") {
  Host host(runner(R"(
start()
m = hear()
ask("open", "klp.send", to="other", capability="c", payload=1)
hear()  # its failure: from here on the host knows of the loss
note("log", level="info", message="1")
ask(1, "klp.emit", name="n", data=2)
print(hear()["error"]["data"]["code"], flush=True)
while m := hear(): answer(m, {"payload": m["params"]["message"]["payload"]})
)"));
  host.start();
  host.request("r", "x", "{}");
  CHECK(host.receive_message().capability() == "c");
  host.resume();
  // Its answer to r goes nowhere; the log record waits.
  CHECK(host.output_line() == "UNAVAILABLE\n");
  CHECK(host.receive_bytes().empty());
  klp::Envelope resumed;
  resumed.mutable_resumed();
  host.send(resumed);
  CHECK(host.receive().log().message() == "1");
  check_serving(host);
}

TEST_CASE("a packet before the old channel's end takes its place") {
  Host host(runner(kEcho));
  host.start();
  check_serving(host, "one");
  CHECK(host.resumed().phase() == klp::Resume::SERVING);  // the old socket is still open
  check_serving(host, "two");
  host.hang_up();
  CHECK(host.resumed().phase() == klp::Resume::SERVING);
  check_serving(host, "three");
  SUBCASE("a second loss before the resume was answered") {
    host.resume();
    CHECK(host.resumed().phase() == klp::Resume::SERVING);
    check_serving(host, "four");
  }
}

TEST_CASE("a stop that was asked before the loss ends the runner") {
  SUBCASE("and its end is told by the exit status") {
    Host host(runner("start()\nanswer(hear(), {})\nassert hear() is None\nsys.exit(6)"));
    host.start();
    host.stop(20'000);
    host.hang_up();
    CHECK(host.wait() == 6);
  }
  SUBCASE("stopping: the next control may shorten it") {
    Host host(
        runner("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nstart()\nhear()\nprint('stop', flush=True)\n"
               "while True: signal.pause()"));
    host.start();
    host.stop(600'000);
    CHECK(host.output_line() == "stop\n");
    CHECK(host.resumed().phase() == klp::Resume::STOPPING);
    host.stop(0);
    CHECK(host.receive(klp::Envelope::kExit).exit().code() == SIGKILL);
  }
}

TEST_CASE("why the start failed is said again") {
  Host host(
      runner("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nhello()\nfail(hear(), 'no calendar')\n"
             "while True: signal.pause()"));
  host.accept();
  host.receive(klp::Envelope::kStartFailed);
  const klp::Resume resume = host.resumed();
  CHECK(resume.phase() == klp::Resume::STOPPING);
  const klp::Envelope failed = host.receive();
  REQUIRE(failed.has_start_failed());
  CHECK(failed.start_failed().step() == "init");
  CHECK(failed.start_failed().message() == "no calendar");
  host.stop(0);
  CHECK(host.wait() == 1);
}

TEST_CASE("a resume that is refused ends the agent") {
  Host host(runner(kEcho));
  host.start();
  host.resume();
  klp::Envelope envelope;
  envelope.mutable_refused()->set_code("DENIED");
  host.send(envelope);
  CHECK(host.wait() == 1);
}

TEST_CASE("what only the other phase may hear ends the agent") {
  klp::Envelope resumed, accepted, health;
  resumed.mutable_resumed();
  accepted.mutable_accepted();
  health.mutable_health_request()->set_sequence(1);
  SUBCASE("resumed without a resume") {
    Host host(idle());
    host.receive();
    host.send(resumed);
    CHECK(host.wait() == 1);
  }
  SUBCASE("resumed twice") {
    Host host(idle());
    host.start();
    host.resumed();
    host.send(resumed);
    CHECK(host.wait() == 1);
  }
  SUBCASE("accepted instead of resumed") {
    Host host(idle());
    host.start();
    host.resume();
    host.send(accepted);
    CHECK(host.wait() == 1);
  }
  SUBCASE("a health request before resumed") {
    Host host(idle());
    host.start();
    host.resume();
    host.send(health);
    CHECK(host.wait() == 1);
  }
}

TEST_CASE("protocol none goes through the loss of control, too") {
  Host host(idle());
  host.start();
  host.hang_up();
  CHECK(host.resumed().phase() == klp::Resume::SERVING);
  klp::Envelope envelope;
  envelope.mutable_health_request()->set_sequence(3);
  host.send(envelope);
  CHECK(host.receive().health_report().sequence() == 3);
}

TEST_CASE("whatever else is on the keeper's channel is ignored") {
  Host host(runner(kEcho));
  host.start();
  auto stream = socket_pair(SOCK_STREAM);
  auto packets = socket_pair(SOCK_SEQPACKET);
  auto pipe = make_pipe();
  const int two[] = {stream->first.get(), stream->second.get()};
  const int seqpacket[] = {packets->second.get()};
  const int no_socket[] = {pipe->second.get()};
  const int one[] = {stream->second.get()};
  host.send_to_keeper_channel("");
  host.send_to_keeper_channel("x");
  host.send_to_keeper_channel("", two);
  host.send_to_keeper_channel("", seqpacket);
  host.send_to_keeper_channel("", no_socket);
  host.send_to_keeper_channel("\xFF\xFF\xFF", one);
  host.send_to_keeper_channel(std::string(4096, 'x'), one);
  check_serving(host);
  // And it has kept none of the descriptors.
  stream->second.reset();
  char byte = 0;
  CHECK(recv(stream->first.get(), &byte, 1, 0) == 0);
  CHECK(host.resumed().phase() == klp::Resume::SERVING);
  check_serving(host);
}

TEST_CASE("the end of the keeper's channel") {
  SUBCASE("ends the agent") {
    Host host(runner(kEcho));
    host.start();
    host.lose_keeper();
    CHECK(host.wait() == 1);
  }
  SUBCASE("ends one whose control is lost, too") {
    Host host(runner(kEcho));
    host.start();
    host.hang_up();
    host.lose_keeper();
    CHECK(host.wait() == 1);
  }
  SUBCASE("not yet where the keeper is outlived") {
    Host host(runner(kEcho), true);
    host.start();
    host.lose_keeper();
    check_serving(host);
  }
}

TEST_CASE("frames that control did not read to their end come whole, and in order") {
  Host host(runner(R"(
start()
hear()
for n in range(40): note("log", level="info", message="%d" % n, fields={"x": "x" * 15000})
print("said", flush=True)
while m := hear(): answer(m, {"payload": m["params"]["message"]["payload"]})
)"));
  host.start();
  host.request("go", "x", "{}");
  CHECK(host.output_line() == "said\n");
  // More than the socket holds: a frame is cut somewhere.
  FrameDecoder decoder(kMaxFrameBytes + kEnvelopeOverheadBytes);
  decoder.feed(host.receive_bytes());
  int next = 0;
  for (auto frame = decoder.next(); frame && *frame; frame = decoder.next()) {
    klp::Envelope envelope;
    REQUIRE(envelope.ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size())));
    CHECK(envelope.log().message() == std::to_string(next++));
  }
  CHECK(next < 40);
  host.hang_up();
  host.resumed();
  const klp::AgentLog first = host.receive().log();
  const int resumed_at = std::stoi(first.message());
  // What had gone into the old socket after the test last looked is lost with it; nothing else is.
  CHECK(resumed_at >= next);
  CHECK(first.fields_json().size() > 15000);
  for (int n = resumed_at + 1; n < 40; ++n) CHECK(host.receive().log().message() == std::to_string(n));
  check_serving(host);
}

TEST_CASE("a control that does not come back costs no memory: records beyond the limit are counted") {
  Host host(runner(R"(
start()
hear()
for n in range(200): note("log", level="info", message="%d" % n, fields={"x": "x" * 15000})
ask(1, "memory.get", key="k")
hear()
print("said", flush=True)
while m := hear(): answer(m, {"payload": m["params"]["message"]["payload"]})
)"));
  host.start();
  host.request("go", "x", "{}");
  host.hang_up();
  CHECK(host.output_line() == "said\n");
  host.resumed();
  int kept = 0;
  std::size_t bytes = 0;
  klp::AgentLog log;
  while ((log = host.receive().log()).level() == "info") {
    ++kept;
    bytes += log.fields_json().size();
  }
  CHECK(kept > 10);
  CHECK(bytes <= kMaxKeptBytes);
  CHECK(log.level() == "warn");
  // Some may have gone into the socket of the control that died.
  CHECK(log.message().find(" log records or events were lost while kaid restarted") != std::string::npos);
  CHECK(std::stoi(log.message()) <= 200 - kept);
  check_serving(host);
}

TEST_CASE("half a frame from a control that died is forgotten") {
  Host host(runner(kEcho));
  host.start();
  host.send_bytes(std::string("\0\0\1\0half", 8));
  host.hang_up();
  host.resumed();
  check_serving(host);
}

}  // namespace kai::test
