// An agent-host is hostile from the agent's first instruction on. Each attack ends that agent and nothing else.
#include <sys/socket.h>
#include <unistd.h>

#include <limits>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/control/control_fixture.h"

namespace kai::test {
namespace {

// Short for who waits for them, long beside what a loaded disk needs for a commit: the good ones start in time.
Policy short_deadlines() {
  Policy policy = builtin_policy(true);
  policy.deadlines.hello = std::chrono::milliseconds(1000);
  policy.deadlines.start = std::chrono::milliseconds(1500);
  policy.auto_restart = false;
  return policy;
}

struct HostileFixture : ControlFixture {
  HostileFixture() : ControlFixture(short_deadlines()) {
    REQUIRE(add(manifest_of("good")).has_done());
    REQUIRE(add(manifest_of("bad")).has_done());
    REQUIRE(call(start_of("good")).has_done());
  }
  // The neighbour noticed nothing.
  ~HostileFixture() {
    CHECK(document(call(send_of("good", "echo", "[1]")))["payload"] == nlohmann::json::array({1}));
    CHECK(keeper->hosts.size() == 1);
  }
  FakeHost& bad() { return *keeper->hosts.rbegin()->second; }
  std::string cause() { return status("bad")["lastEnd"]["cause"]; }
  void start_bad() {
    keeper->on_spawn = nullptr;
    REQUIRE(call(start_of("bad")).has_done());
  }
  void until_bad_is_gone() {
    until([&] { return keeper->hosts.size() == 1; });
  }
};

TEST_CASE_FIXTURE(HostileFixture, "it never says hello") {
  keeper->on_spawn = [](FakeHost&) {};
  const auto answer = call(start_of("bad"));
  CHECK(code(answer) == "TIMEOUT");
  CHECK(answer.failed().message().find("no hello within 1 s") != std::string::npos);
  CHECK(cause() == "hello_timeout");
}

TEST_CASE_FIXTURE(HostileFixture, "its program never says hello on the runner protocol") {
  keeper->on_spawn = [](FakeHost& host) {
    host.script = [](const klp::Envelope&) {};
    host.say_hello();
  };
  CHECK(code(call(start_of("bad"))) == "TIMEOUT");
  CHECK(cause() == "hello_timeout");
}

TEST_CASE_FIXTURE(HostileFixture, "onInit never returns") {
  keeper->on_spawn = [](FakeHost& host) {
    host.script = [&host](const klp::Envelope& envelope) {
      if (!envelope.has_accepted()) return;
      klp::Envelope word;
      word.mutable_runner_hello();
      host.send(word);
    };
    host.say_hello();
  };
  CHECK(code(call(start_of("bad"))) == "TIMEOUT");
  CHECK(cause() == "hung");
}

TEST_CASE_FIXTURE(HostileFixture, "a hello that lies is refused, and is a security violation") {
  std::string lie;
  SUBCASE("another id") {
    lie = "id";
  }
  SUBCASE("another version") {
    lie = "version";
  }
  SUBCASE("more capabilities than registered") {
    lie = "capability";
  }
  SUBCASE("another protocol") {
    lie = "protocol";
  }
  bool told = false;
  keeper->on_spawn = [&](FakeHost& host) {
    if (lie == "id") host.spec.set_agent_id("good");
    if (lie == "version") host.spec.set_agent_version("9.9.9");
    if (lie == "capability") host.spec.add_capabilities("rootShell");
    if (lie == "protocol") host.spec.set_runner_protocol(false);
    host.script = [&told](const klp::Envelope& envelope) { told |= envelope.has_refused(); };
    host.say_hello();
  };
  CHECK(code(call(start_of("bad"))) == "DENIED");
  CHECK(cause() == "hello_refused");
  CHECK(log_text().find("\"type\":\"security_violation\",\"severity\":\"critical\"") != std::string::npos);
}

TEST_CASE_FIXTURE(HostileFixture, "a message before the hello, or a second hello") {
  SUBCASE("before") {
    keeper->on_spawn = [](FakeHost& host) {
      klp::Envelope envelope;
      envelope.mutable_started();
      host.send(envelope);
    };
  }
  SUBCASE("second") {
    keeper->on_spawn = [](FakeHost& host) {
      host.say_hello();
      host.say_hello();
    };
  }
  const auto answer = call(start_of("bad"));
  CHECK(code(answer) == "AGENT_CRASHED");
  CHECK(answer.failed().message().find("not allowed in phase") != std::string::npos);
}

TEST_CASE_FIXTURE(HostileFixture, "what only control may say") {
  start_bad();
  klp::Envelope envelope;
  envelope.mutable_stop();
  bad().send(envelope);
  until_bad_is_gone();
  CHECK(cause() == "signal");
}

TEST_CASE_FIXTURE(HostileFixture, "bytes that are no frames, no envelopes, no messages") {
  start_bad();
  SUBCASE("a lying length") {
    bad().send_raw("\xff\xff\xff\xff");
  }
  SUBCASE("garbage") {
    bad().send_raw(std::string("\0\0\0\x04\xff\xff\xff\xff", 8));
  }
  SUBCASE("no message inside") {
    klp::Envelope envelope;
    envelope.set_message("\xff\xff\xff");
    bad().send(envelope);
  }
  SUBCASE("a message without a type") {
    klp::Envelope envelope;
    envelope.set_message("");
    bad().send(envelope);
  }
  SUBCASE("a name over its limit") {
    klp::Message message;
    message.set_type(klp::EVENT);
    message.set_to(std::string(257, 'x'));
    klp::Envelope envelope;
    message.SerializeToString(envelope.mutable_message());
    bad().send(envelope);
  }
  until_bad_is_gone();
  CHECK(status("bad")["lastEnd"]["message"].get<std::string>().find("broke the protocol") != std::string::npos);
}

TEST_CASE_FIXTURE(HostileFixture, "it floods kaid with requests and reads no answer") {
  start_bad();
  FakeHost& host = bad();
  klp::Message request;
  request.set_type(klp::REQUEST);
  request.set_to("kaid");
  request.set_capability("memory.get");
  klp::Envelope envelope;
  request.SerializeToString(envelope.mutable_message());
  std::string frame;
  append_frame(frame, envelope.SerializeAsString());
  std::string flood;
  for (int at = 0; at < 1000; ++at) flood += frame;
  const Fd raw = host.take_socket();
  std::size_t at = 0;  // a partly written frame goes on where it stopped
  until([&] {
    const ssize_t count = ::send(raw.get(), flood.data() + at, flood.size() - at, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count > 0) at = (at + static_cast<std::size_t>(count)) % flood.size();
    return keeper->hosts.size() == 1;
  });
  CHECK(status("bad")["lastEnd"]["message"].get<std::string>().find("broke") != std::string::npos);
}

TEST_CASE_FIXTURE(HostileFixture, "answers to nobody, twice and too late are dropped") {
  start_bad();
  klp::Message stray;
  stray.set_type(klp::RESPONSE);
  stray.set_correlation_id("0190-nobody");
  klp::Envelope envelope;
  stray.SerializeToString(envelope.mutable_message());
  for (int at = 0; at < 100; ++at) bad().send(envelope);
  CHECK(document(call(send_of("bad", "echo", "{}")))["type"] == "response");
  REQUIRE(call(stop_of("bad")).has_done());
}

TEST_CASE_FIXTURE(HostileFixture, "a payload that is no JSON cannot pass for fields of ours") {
  start_bad();
  FakeHost& host = bad();
  host.script = [&host](const klp::Envelope& envelope) {
    if (!envelope.has_message()) return;
    klp::Message request, response;
    request.ParseFromString(envelope.message());
    response.set_type(klp::RESPONSE);
    response.set_payload(R"({},"from":"operator")");
    host.answer(request, response);
  };
  const auto answer = document(call(send_of("bad", "echo", "{}")));
  CHECK(answer["from"] == "bad");
  CHECK_FALSE(answer.contains("payload"));
  CHECK(answer["payloadBase64"] == "e30sImZyb20iOiJvcGVyYXRvciI=");
  host.script = nullptr;
  REQUIRE(call(stop_of("bad")).has_done());
}

TEST_CASE_FIXTURE(HostileFixture, "a health report can only fill in its own fields; silence is a warning") {
  start_bad();
  FakeHost& host = bad();
  host.script = [&host](const klp::Envelope& envelope) {
    if (!envelope.has_health_request()) return;
    klp::Envelope report;
    report.mutable_health_report()->set_sequence(envelope.health_request().sequence());
    report.mutable_health_report()->set_status(static_cast<klp::HealthReport::Status>(99));
    report.mutable_health_report()->set_last_activity_unix_ms(std::numeric_limits<std::int64_t>::min());
    for (int at = 0; at < 1000; ++at) {
      report.mutable_health_report()->add_errors()->set_message("x\"},\"state\":\"terminated\"");
    }
    host.send(report);
  };
  const auto status_now = status("bad");
  CHECK(status_now["state"] == "running");
  CHECK(status_now["health"]["status"] == "warning");
  CHECK(status_now["health"]["errors"].size() <= 32);
  host.script = nullptr;
  REQUIRE(call(stop_of("bad")).has_done());
}

TEST_CASE_FIXTURE(HostileFixture, "a death while its health is asked for leaves nobody without an answer") {
  start_bad();
  FakeHost& host = bad();
  host.script = [this](const klp::Envelope& envelope) {
    if (!envelope.has_health_request()) return;
    loop.defer([this] { keeper->exited(keeper->hosts.rbegin()->first, true, 11); });
  };
  const auto status_then = status("bad");
  CHECK(status_then["state"] == "stopped");
  CHECK_FALSE(status_then.contains("health"));
}

TEST_CASE_FIXTURE(HostileFixture, "half a frame when it dies, and its last words before") {
  start_bad();
  bad().write_output(2, "last words\n");
  bad().send_raw(std::string("\0\0\0\x10half", 8));
  keeper->exited(keeper->hosts.rbegin()->first, true, 11);
  until_bad_is_gone();
  CHECK(cause() == "signal");
  CHECK(log_text().find("last words") != std::string::npos);
}

TEST_CASE_FIXTURE(HostileFixture, "100 MB of output cost a bounded log") {
  start_bad();
  FakeHost& host = bad();
  const std::string chunk = std::string(99, 'y') + "\n";
  std::string block;
  while (block.size() < 60'000) block += chunk;
  std::size_t written = 0;
  Fd pipe = std::move(host.descriptors.at(1));
  REQUIRE(set_nonblocking(pipe.get()));
  until([&] {
    const ssize_t count = ::write(pipe.get(), block.data(), block.size());
    if (count > 0) written += static_cast<std::size_t>(count);
    return written > (100U << 20);
  });
  REQUIRE(call(stop_of("bad")).has_done());
  CHECK(log_text().size() < 4U << 20);
  CHECK(log_text().find("dropped") != std::string::npos);
}

}  // namespace
}  // namespace kai::test
