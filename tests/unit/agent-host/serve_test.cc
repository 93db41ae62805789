// The life of a runner: start, streams, signals, end.
#include "agent-host/serve.h"

#include <signal.h>

#include <cerrno>

#include <doctest/doctest.h>

#include "tests/unit/agent-host/host.h"

namespace kai::test {
namespace {

klp::Exit exited(Host& host) {
  return host.receive(klp::Envelope::kExit).exit();
}

/// Says "ready", waits for SIGINT or SIGTERM (blocked, so that none is lost), and exits with 40 plus its number.
spec::SandboxSpec obedient() {
  return program({"/usr/bin/python3", "-S", "-E", "-c", R"(
import os, signal
wanted = {signal.SIGINT, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
os.write(1, b"ready\n")
os._exit(40 + signal.sigwait(wanted))
)"});
}

spec::SandboxSpec stubborn() {
  return program({"/bin/sh", "-c", "trap '' TERM HUP; echo ready; exec tail -f /dev/null"});
}

}  // namespace

TEST_CASE("a program without the runner protocol: hello, started, exit") {
  Host host(program({"/bin/sh", "-c", "echo out; exec tail -f /dev/null"}));
  const klp::Hello hello = host.receive().hello();
  CHECK(hello.agent_id() == "calendarAgent");
  CHECK(hello.version() == "1.0.3");
  REQUIRE(hello.capabilities_size() == 1);
  CHECK(hello.capabilities(0) == "scheduleEvent");
  CHECK_FALSE(hello.runner_protocol());
  host.accept();
  CHECK(host.output_line() == "out\n");
  CHECK(host.receive(klp::Envelope::kStarted).has_started());
  host.stop(5000);
  exited(host);
  host.wait();
}

TEST_CASE("the exit status of the program is agent-host's") {
  Host host(program({"sh", "-c", "exit 7"}));  // found in PATH
  host.accept();
  const klp::Exit exit = exited(host);
  CHECK_FALSE(exit.signaled());
  CHECK(exit.code() == 7);
  CHECK(host.wait() == 7);
}

TEST_CASE("a program that dies of a signal is 128 and the signal") {
  Host host(program({"/bin/sh", "-c", "kill -9 $$"}));
  host.accept();
  const klp::Exit exit = exited(host);
  CHECK(exit.signaled());
  CHECK(exit.code() == SIGKILL);
  CHECK(host.wait() == 137);
}

TEST_CASE("a program that cannot be run is reported with the reason, instead of a hello") {
  struct Case {
    spec::SandboxSpec spec;
    int error_number, status;
    const char* says;
  };
  auto no_directory = program({"/bin/true"});
  no_directory.set_cwd("/nowhere");
  auto no_path = program({"true"});
  no_path.set_env(0, "PATH=/nowhere");
  const Case cases[] = {
      {program({"/nowhere/program"}), ENOENT, 127, "/nowhere/program"},
      {no_path, ENOENT, 127, "no such program"},
      {program({"/etc/passwd"}), EACCES, 126, "not executable"},
      {program({"/tmp"}), EACCES, 126, "not executable"},
      {no_directory, ENOENT, 126, "working directory /nowhere"},
      {program({}), EINVAL, 126, "names no program"},
  };
  for (const Case& one : cases) {
    Host host(one.spec);
    const klp::Envelope first = host.receive();
    REQUIRE(first.has_start_failed());
    CHECK(first.start_failed().step() == "exec");
    CHECK(first.start_failed().errno_value() == one.error_number);
    CHECK_MESSAGE(first.start_failed().message().find(one.says) != std::string::npos, first.start_failed().message());
    CHECK(host.wait() == one.status);
  }
}

TEST_CASE("the runner inherits its streams, descriptor 3 and nothing else") {
  Host host(runner(R"(
status = dict(l.split(":\t", 1) for l in open("/proc/self/status").read().splitlines() if ":\t" in l)
fds = sorted(int(n) for n in os.listdir("/proc/self/fd"))
print(json.dumps({"fds": [n for n in fds if n < 4 or os.path.exists(f"/proc/self/fd/{n}")],
  "blocked": int(status["SigBlk"], 16), "leader": os.getsid(0) == os.getpgrp() == os.getpid(), "cwd": os.getcwd(),
  "fd": os.environ.get("KAI_RUNNER_FD"), "sigpipe": signal.SIGPIPE in signal.valid_signals(),
  "env": sorted(os.environ)}))
)"));
  host.accept();
  // Python itself ignores SIGPIPE and adds LC_CTYPE.
  CHECK(host.output() ==
        "{\"fds\": [0, 1, 2, 3], \"blocked\": 0, \"leader\": true, \"cwd\": \"/\", \"fd\": \"3\", \"sigpipe\": true, "
        "\"env\": [\"KAI_RUNNER_FD\", \"LC_CTYPE\", \"PATH\"]}\n");
}

TEST_CASE("signals have their default dispositions, and there is no descriptor 3 without the runner protocol") {
  Host host(program({"/bin/sh", "-c", "grep -E 'SigBlk|SigIgn' /proc/self/status; ls /proc/self/fd | wc -w"}));
  host.accept();
  // The fourth is ls's own, of the directory.
  CHECK(host.output() == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n4\n");
}

TEST_CASE("agent-host does not hold the agent's streams open") {
  Host host(program({"/bin/sh", "-c", "echo last; exec >/dev/null 2>&1; exec tail -f /dev/null"}));
  host.accept();
  CHECK(host.output() == "last\n");  // ends although the program lives on
  host.stop(0);
  CHECK(exited(host).signaled());
}

TEST_CASE("orphans are reaped by PID 1") {
  Host host(program({"/usr/bin/python3", "-S", "-E", "-c", R"(
import os, sys
r, w = os.pipe()
if os.fork() == 0:
    orphan = os.fork()
    if orphan == 0:
        os._exit(0)
    os.write(w, str(orphan).encode())
    os._exit(0)
os.wait()
orphan = int(os.read(r, 20))
while True:  # a zombie can still be signalled, a reaped process cannot
    try: os.kill(orphan, 0)
    except ProcessLookupError: break
    os.sched_yield()
sys.exit(5)
)"}));
  host.accept();
  CHECK(host.wait() == 5);
}

TEST_CASE("when the runner ends, its children end with it, those in other sessions too") {
  Host host(program({"/bin/sh", "-c", "setsid sh -c 'echo up; exec tail -f /dev/null' & wait"}));
  host.accept();
  CHECK(host.output_line() == "up\n");
  klp::Envelope envelope;
  envelope.mutable_signal()->set_number(SIGKILL);
  host.send(envelope);
  CHECK(exited(host).code() == SIGKILL);
  CHECK(host.output() == "");  // the setsid child held it
  CHECK(host.wait() == 137);
}

TEST_CASE("a signal from control goes to the runner's process group") {
  Host host(obedient());
  host.accept();
  CHECK(host.output_line() == "ready\n");
  klp::Envelope envelope;
  envelope.mutable_signal()->set_number(SIGINT);
  host.send(envelope);
  CHECK(exited(host).code() == 40 + SIGINT);
  CHECK(host.wait() == 40 + SIGINT);
}

TEST_CASE("stop without the runner protocol: SIGTERM, then SIGKILL after the grace") {
  SUBCASE("a program that obeys") {
    Host host(obedient());
    host.accept();
    CHECK(host.output_line() == "ready\n");
    host.stop(20'000);
    CHECK(exited(host).code() == 40 + SIGTERM);
  }
  SUBCASE("a program that does not") {
    Host host(stubborn());
    host.accept();
    CHECK(host.output_line() == "ready\n");
    host.stop(100);
    const klp::Exit exit = exited(host);
    CHECK(exit.signaled());
    CHECK(exit.code() == SIGKILL);
    CHECK(host.wait() == 137);
  }
  SUBCASE("a second stop can only shorten the grace") {
    Host host(stubborn());
    host.accept();
    CHECK(host.output_line() == "ready\n");
    host.stop(60'000);
    host.stop(0);
    host.stop(60'000);
    CHECK(exited(host).code() == SIGKILL);
  }
}

TEST_CASE("SIGTERM to agent-host stops the agent") {
  Host host(obedient());
  host.accept();
  CHECK(host.output_line() == "ready\n");
  kill(host.pid(), SIGTERM);
  CHECK(exited(host).code() == 40 + SIGTERM);
  CHECK(host.wait() == 40 + SIGTERM);
}

TEST_CASE("when the keeper goes, the agent goes") {
  Host host(stubborn());
  host.accept();
  CHECK(host.output_line() == "ready\n");
  host.lose_keeper();
  CHECK(host.wait() == 1);
  CHECK(host.output() == "");
}

TEST_CASE("a refused agent is ended, and nothing more is said") {
  Host host(program({"/bin/sh", "-c", "exec tail -f /dev/null"}));
  CHECK(host.receive().has_hello());
  klp::Envelope envelope;
  envelope.mutable_refused()->set_code("DENIED");
  host.send(envelope);
  CHECK(host.wait() == 1);
  CHECK_THROWS_WITH(host.receive(), "the channel ended");
}

TEST_CASE("messages to a program without the runner protocol are refused, its health is that it is there") {
  Host host(program({"/bin/sh", "-c", "exec tail -f /dev/null"}));
  host.start();
  host.request("r1", "scheduleEvent", "{}");
  const klp::Message answer = host.receive_message();
  CHECK(answer.type() == klp::ERROR);
  CHECK(answer.correlation_id() == "r1");
  CHECK(answer.error().code() == "UNKNOWN_CAPABILITY");
  klp::Envelope envelope;
  envelope.mutable_health_request()->set_sequence(3);
  host.send(envelope);
  const klp::HealthReport report = host.receive().health_report();
  CHECK(report.sequence() == 3);
  CHECK(report.status() == klp::HealthReport::HEALTHY);
}

TEST_CASE("frames that have no place in the protocol end the agent") {
  const auto frame = [](const klp::Envelope& envelope) {
    std::string bytes;
    append_frame(bytes, envelope.SerializeAsString());
    return bytes;
  };
  klp::Envelope message, hello, twice, garbage, untyped, unknown;
  message.set_message(klp::Message().SerializeAsString());
  hello.mutable_hello();
  twice.mutable_accepted();
  garbage.set_message("\xFF\xFF\xFF");
  untyped.set_message("");
  std::string not_an_envelope;
  append_frame(not_an_envelope, "\x0A\xFF");
  const struct {
    const char* what;
    bool accepted;
    std::string bytes;
  } cases[] = {
      {"a length over the limit", false, std::string("\x7F\xFF\xFF\xFF", 4)},
      {"not an envelope", false, not_an_envelope},
      {"an empty envelope", false, std::string(4, '\0')},
      {"a message before accepted", false, frame(message)},
      {"a hello", false, frame(hello)},
      {"accepted twice", true, frame(twice)},
      {"a message that is none", true, frame(garbage)},
      {"a message without a type", true, frame(untyped)},
      {"a kind that only hosts send", true, frame(hello)},
  };
  for (const auto& one : cases) {
    CAPTURE(one.what);
    Host host(program({"/bin/sh", "-c", "exec tail -f /dev/null"}));
    if (one.accepted) host.start();
    host.send_bytes(one.bytes);
    CHECK(host.wait() == 1);
  }
}

TEST_CASE("half a frame costs nothing and waits") {
  Host host(program({"/bin/sh", "-c", "exec tail -f /dev/null"}));
  CHECK(host.receive().has_hello());
  klp::Envelope accepted;
  accepted.mutable_accepted();
  std::string bytes;
  append_frame(bytes, accepted.SerializeAsString());
  for (const char byte : bytes) host.send_bytes(std::string_view(&byte, 1));
  CHECK(host.receive().has_started());
}

}  // namespace kai::test
