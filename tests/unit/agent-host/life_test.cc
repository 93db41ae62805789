// The life of an agent between control and a scripted runner: start, health, stop.
#include <signal.h>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "tests/unit/agent-host/host.h"

namespace kai::test {
namespace {

using Json = nlohmann::json;

klp::StartFailed start_failure(Host& host) {
  return host.receive(klp::Envelope::kStartFailed).start_failed();
}

klp::HealthReport health(Host& host, std::uint64_t sequence = 1) {
  klp::Envelope envelope;
  envelope.mutable_health_request()->set_sequence(sequence);
  host.send(envelope);
  klp::HealthReport report = host.receive(klp::Envelope::kHealthReport).health_report();
  CHECK(report.sequence() == sequence);
  return report;
}

}  // namespace

TEST_CASE("the order of a start, and what init is told") {
  Host host(runner(R"(
params = start()
note("log", level="info", message="init", fields=params)
hear()
)"));
  const klp::Hello hello = host.receive().hello();
  CHECK(hello.runner_protocol());
  host.accept(8, 1234);
  CHECK(host.receive().runner_hello().sdk() == "test/1");
  CHECK(host.receive().has_started());
  const klp::AgentLog log = host.receive().log();
  CHECK(log.level() == "info");
  CHECK(log.message() == "init");
  CHECK(Json::parse(log.fields_json()) == Json::parse(R"({
    "agent": {"id": "calendarAgent", "name": "Personal Calendar Assistant", "version": "1.0.3"},
    "capabilities": ["scheduleEvent"],
    "manifest": {"id": "calendarAgent", "name": "Personal Calendar Assistant"},
    "permissions": [{"resource": "calendar", "actions": ["read"]}],
    "limits": {"messageMs": 1234, "inFlight": 8, "frameBytes": 1048576},
    "protocol": 1})"));
}

TEST_CASE("a runner whose first word is an answer has no SDK to name") {
  Host host(runner("answer(hear(), {}); answer(hear(), {}); hear()"));
  host.accept();
  host.receive();
  const klp::Envelope word = host.receive();
  REQUIRE(word.has_runner_hello());
  CHECK(word.runner_hello().sdk().empty());
  CHECK(host.receive().has_started());
}

TEST_CASE("onInit or onStart that throws: the message, the stack, exit 1") {
  SUBCASE("init") {
    Host host(
        runner(R"(hello(); fail(hear(), "no calendar", code="AGENT_ERROR", name="TypeError", stack="at x"); hear())"));
    host.accept();
    const klp::StartFailed failed = start_failure(host);
    CHECK(failed.step() == "init");
    CHECK(failed.message() == "no calendar");
    CHECK(Json::parse(failed.details_json()) == Json::parse(R"({"name": "TypeError", "stack": "at x"})"));
    CHECK(host.receive().has_exit());
    CHECK(host.wait() == 1);
  }
  SUBCASE("start") {
    Host host(runner(R"(hello(); answer(hear(), {}); fail(hear(), "no"); hear())"));
    host.accept();
    CHECK(start_failure(host).step() == "start");
    CHECK(host.wait() == 1);
  }
}

TEST_CASE("a runner that exits before it has started") {
  Host host(runner("sys.exit(4)"));
  host.accept();
  CHECK(host.receive(klp::Envelope::kExit).exit().code() == 4);
  CHECK(host.wait() == 4);
}

TEST_CASE("a runner that speaks another protocol version") {
  Host host(runner("note('hello', sdk='future/2', protocol=2); hear(); hear()"));
  host.accept();
  const klp::StartFailed failed = start_failure(host);
  CHECK(failed.step() == "runner-protocol");
  CHECK(failed.message().find("protocol 2") != std::string::npos);
  CHECK(host.wait() == 1);
}

TEST_CASE("health is rebuilt from what the agent says") {
  Host host(runner(R"(
start()
answer(hear(), {"status": "warning", "uptime": 5, "memoryUsage": 31.25, "cpuUsage": 0.5, "evil": "\u001b[2J",
  "lastActivity": "2026-05-04T15:00:00.123456+02:00",
  "errors": [{"type": "E", "count": 2, "lastOccurrence": "2026-05-04T13:00:00Z", "message": "m", "evil": 1}]})
answer(hear(), {"status": "healthy", "uptime": "long", "lastActivity": "now", "errors": [1]})
answer(hear(), {"status": "fine"})
answer(hear(), None)
fail(hear(), "no pulse", name="HealthError")
fail(hear(), "still none", name="HealthError")
fail(hear(), "other", name="OtherError")
hear()
)"));
  host.start();
  const klp::HealthReport good = health(host, 1);
  CHECK(good.status() == klp::HealthReport::WARNING);
  CHECK(good.uptime_ms() == 5);
  CHECK(iso_time(good.last_activity_unix_ms()) == "2026-05-04T13:00:00.123Z");
  REQUIRE(good.errors_size() == 1);
  CHECK(good.errors(0).type() == "E");
  CHECK(good.errors(0).count() == 2);
  CHECK(iso_time(good.errors(0).last_occurrence_unix_ms()) == "2026-05-04T13:00:00.000Z");
  CHECK(good.errors(0).message() == "m");
  const klp::HealthReport wrong = health(host, 2);
  CHECK(wrong.status() == klp::HealthReport::WARNING);
  CHECK(wrong.errors_size() == 0);
  CHECK(health(host, 3).status() == klp::HealthReport::WARNING);
  CHECK(health(host, 4).status() == klp::HealthReport::HEALTHY);
  const klp::HealthReport failed = health(host, 5);
  CHECK(failed.status() == klp::HealthReport::CRITICAL);
  REQUIRE(failed.errors_size() == 1);
  CHECK(failed.errors(0).type() == "HealthError");
  CHECK(failed.errors(0).message() == "no pulse");
  CHECK(failed.errors(0).count() == 1);
  const klp::HealthReport again = health(host, 6);
  CHECK(again.errors(0).count() == 2);
  CHECK(again.errors(0).message() == "still none");
  CHECK(health(host, 7).errors(0).count() == 1);
}

TEST_CASE("with protocol none agent-host answers for the program, but not for one that is stopped") {
  Host host(program({"/usr/bin/python3", "-S", "-E", "-u", "-c", R"(
import signal
signal.signal(signal.SIGUSR1, lambda *_: print("awake"))
print("ready")
while True: signal.pause()
)"}));
  host.start();
  CHECK(host.output_line() == "ready\n");
  CHECK(health(host, 1).status() == klp::HealthReport::HEALTHY);
  klp::Envelope signal, question;
  signal.mutable_signal()->set_number(SIGSTOP);
  host.send(signal);
  host.wait_stopped();
  question.mutable_health_request()->set_sequence(2);
  host.send(question);
  question.mutable_health_request()->set_sequence(3);
  host.send(question);
  signal.mutable_signal()->set_number(SIGCONT);
  host.send(signal);
  signal.mutable_signal()->set_number(SIGUSR1);
  host.send(signal);
  CHECK(host.output_line() == "awake\n");
  CHECK(health(host, 4).status() == klp::HealthReport::HEALTHY);  // and neither 2 nor 3 was answered
}

TEST_CASE("stop: onShutdown, then the runner's own end") {
  SUBCASE("it answers and exits") {
    Host host(runner("start()\nm = hear(); assert m['method'] == 'shutdown'\nanswer(m, {}); sys.exit(6)"));
    host.start();
    host.stop(20'000);
    CHECK(host.receive(klp::Envelope::kExit).exit().code() == 6);
    CHECK(host.wait() == 6);
  }
  SUBCASE("it answers and waits for the end of its input") {
    Host host(runner("start()\nanswer(hear(), {})\nassert hear() is None\nsys.exit(6)"));
    host.start();
    host.stop(20'000);
    CHECK(host.wait() == 6);
  }
  SUBCASE("it answers and stays: SIGTERM") {
    Host host(runner("start()\nanswer(hear(), {})\nwhile True: signal.pause()"));
    host.start();
    host.stop(20'000);
    const klp::Exit exit = host.receive(klp::Envelope::kExit).exit();
    CHECK(exit.signaled());
    CHECK(exit.code() == SIGTERM);
  }
  SUBCASE("it does not answer: SIGTERM before the grace is over") {
    Host host(runner("start()\nhear()\nwhile True: signal.pause()"));
    host.start();
    host.stop(500);
    CHECK(host.receive(klp::Envelope::kExit).exit().code() == SIGTERM);
  }
  SUBCASE("it ignores everything: SIGKILL") {
    Host host(runner("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nstart()\nhear()\nwhile True: signal.pause()"));
    host.start();
    host.stop(200);
    CHECK(host.receive(klp::Envelope::kExit).exit().code() == SIGKILL);
    CHECK(host.wait() == 137);
  }
  SUBCASE("onShutdown throws: logged, and the stop goes on") {
    Host host(runner("start()\nfail(hear(), 'still writing')\nassert hear() is None\nsys.exit(0)"));
    host.start();
    host.stop(20'000);
    const klp::AgentLog log = host.receive(klp::Envelope::kLog).log();
    CHECK(log.message() == "onShutdown failed: still writing");
    CHECK(host.wait() == 0);
  }
  SUBCASE("a message in flight is answered, a new one refused") {
    Host host(runner(R"(
start()
m = hear()
stop = hear()
note("log", level="info", message="stopping")
answer(m, {"payload": 1})
hear()
)"));
    host.start();
    host.request("before", "x", "{}");
    host.stop(20'000);
    host.request("after", "x", "{}");
    std::string seen;
    for (int count = 0; count < 3; ++count) {
      const klp::Envelope envelope = host.receive();
      klp::Message message;
      if (!envelope.has_message() || !message.ParseFromString(envelope.message())) continue;
      seen += message.correlation_id() + (message.type() == klp::ERROR ? ":" + message.error().code() : "") + " ";
    }
    CHECK((seen == "before after:NOT_RUNNING " || seen == "after:NOT_RUNNING before "));
  }
  SUBCASE("while it is starting") {
    Host host(runner("hello(); hear()\nwhile True: signal.pause()"));
    host.accept();
    host.receive(klp::Envelope::kRunnerHello);
    host.stop(20'000);
    CHECK(host.receive(klp::Envelope::kExit).exit().code() == SIGTERM);
  }
}

TEST_CASE("what a runner said just before it ended is heard") {
  Host host(runner("start()\nanswer(hear(), {'payload': 'last'})\nos._exit(0)"));
  host.start();
  host.request("r", "x", "{}");
  CHECK(host.receive_message().payload() == "\"last\"");
  CHECK(host.receive().has_exit());
}

}  // namespace kai::test
