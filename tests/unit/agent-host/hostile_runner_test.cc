// Runners that break the protocol, flood, or do not read: each costs its own life at most, and agent-host stays in
// step.
#include <signal.h>

#include <doctest/doctest.h>

#include "agent-host/limits.h"
#include "tests/unit/agent-host/host.h"

namespace kai::test {

TEST_CASE("broken lines are forgiven up to a hundred") {
  Host host(runner(R"(
start()
broken = [b"garbage", b"[]", b"1", b"{}", b"\xff\xfe", b'{"jsonrpc":"1.0","method":"log"}', b'{"jsonrpc":"2.0","method":5}',
  b'{"jsonrpc":"2.0","id":{},"method":"x"}', b'{"jsonrpc":"2.0","id":99,"result":1}', b'{"jsonrpc":"2.0","id":"a","result":1}',
  b'{"jsonrpc":"2.0","id":1,"result":1,"error":{}}', b'{"jsonrpc":"2.0","id":1}', b'{"jsonrpc":"2.0","id":1,"error":"x"}',
  b'{"jsonrpc":"2.0","method":"log","params":[]}', b'{"jsonrpc":"2.0","method":"log","params":{"level":"loud","message":"m"}}',
  b'{"jsonrpc":"2.0","method":"log","params":{"level":"info","message":7}}', b'{"jsonrpc":"2.0","method":"nothing"}',
  b'{"jsonrpc":"2.0","method":"log","params":{"level":"info","message":"\\ud800"}}', b"[" * 200 + b"]" * 200,
  b'{"jsonrpc":"2.0","method":"log","params":{"level":"info","message":"m\x00"}}']
for i in range(99): raw(broken[i % len(broken)] + b"\n")
raw(b"\n \r\n")  # empty lines are nothing
m = hear()
while "error" in m: m = hear()  # those whose id was known
answer(m, {"payload": 1})
raw(b"the hundredth\n")
while True: signal.pause()
)"));
  host.start();
  host.request("r", "x", "{}");
  CHECK(host.receive_message().payload() == "1");
  const klp::AgentLog log = host.receive().log();
  CHECK(log.level() == "error");
  CHECK(log.message().find("100 lines") != std::string::npos);
  CHECK(host.receive().exit().signaled());
  CHECK(host.wait() == 137);
}

TEST_CASE("a broken request whose id is known gets its error") {
  Host host(runner(R"(
start()
raw(b'{"jsonrpc":"2.0","id":"q","method":"klp.send","params":[]}\n')
note("log", level="info", message=json.dumps(hear()["error"]["code"]))
hear()
)"));
  host.start();
  CHECK(host.receive().log().message() == "-32600");
}

TEST_CASE("before it has started, a violation is a failed start") {
  SUBCASE("broken lines") {
    Host host(runner("hello()\nfor i in range(100): raw(b'x\\n')\nhear(); hear()"));
    host.accept();
    const klp::StartFailed failed = host.receive(klp::Envelope::kStartFailed).start_failed();
    CHECK(failed.step() == "runner-protocol");
    CHECK(host.wait() == 1);
  }
  SUBCASE("a line without an end") {
    Host host(runner("raw(b'x' * (2 << 20))"));
    host.accept();
    CHECK(host.receive(klp::Envelope::kStartFailed).start_failed().step() == "runner-protocol");
    CHECK(host.wait() == 1);
  }
}

TEST_CASE("a line over the limit ends the agent, one at the limit does not") {
  Host host(runner(R"(
start()
limit = (1 << 20) + (64 << 10)
line = json.dumps({"jsonrpc": "2.0", "method": "log", "params": {"level": "info", "message": "m"}}).encode()
raw(line + b" " * (limit - len(line)) + b"\n")
raw(line + b" " * (limit - len(line) + 1) + b"\n")
hear()
)"));
  host.start();
  CHECK(host.receive().log().message() == "m");
  CHECK(host.receive().log().message().find("1114112 bytes") != std::string::npos);
  CHECK(host.wait() == 137);
}

TEST_CASE("one byte at a time") {
  Host host(runner(R"(
start()
m = hear()
for b in (json.dumps({"jsonrpc": "2.0", "id": m["id"], "result": {"payload": "slow"}}) + "\n").encode(): raw(bytes([b]))
hear()
)"));
  host.start();
  host.request("r", "x", "{}");
  CHECK(host.receive_message().payload() == "\"slow\"");
}

TEST_CASE("a runner that never reads: its senders get BUSY, health goes unanswered, stop works") {
  Host host(runner("start()\nsignal.signal(signal.SIGTERM, signal.SIG_DFL)\nwhile True: signal.pause()"));
  host.accept(4096);
  host.receive(klp::Envelope::kStarted);
  const std::string payload = '"' + std::string(512 << 10, 'x') + '"';
  klp::Message refused;
  for (int count = 0; count < 12; ++count) host.request(std::to_string(count), "x", payload);
  refused = host.receive_message();
  CHECK(refused.error().code() == "BUSY");
  CHECK(refused.error().retryable());
  klp::Envelope health;
  health.mutable_health_request()->set_sequence(1);
  host.send(health);
  host.stop(300);
  CHECK(host.receive(klp::Envelope::kExit).exit().code() == SIGTERM);
}

TEST_CASE("a runner that asks without reading the answers is ended") {
  Host host(runner(R"(
start()
line = (json.dumps({"jsonrpc": "2.0", "id": "x" * 100, "method": "memory.get", "params": {}}) + "\n").encode() * 100
while True: raw(line)
)"));
  host.start();
  const klp::AgentLog log = host.receive().log();
  CHECK(log.level() == "error");
  CHECK(log.message().find("does not read the answers") != std::string::npos);
  CHECK(host.wait() == 137);
}

TEST_CASE("a runner that closes descriptor 3 and runs on is ended") {
  Host host(runner("start()\ns.shutdown(socket.SHUT_RDWR); f.close(); s.close()\nwhile True: signal.pause()"));
  host.start();
  const klp::AgentLog log = host.receive().log();
  CHECK(log.message().find("closed descriptor 3") != std::string::npos);
  CHECK(host.receive().exit().signaled());
}

TEST_CASE("a child that floods descriptor 3 after the runner's end does not hold agent-host") {
  Host host(runner(R"(
start()
if os.fork() == 0:
    os.setsid()
    while True: note("log", level="info", message="x" * 1000)
hear()
os._exit(9)
)"));
  host.start();
  host.request("r", "x", "{}");
  CHECK(host.receive(klp::Envelope::kExit).exit().code() == 9);
  CHECK(host.wait() == 9);
}

TEST_CASE("a flood of log records waits for control, which can still stop the agent") {
  Host host(runner("start()\nwhile True: note('log', level='info', message='x' * 60000)"));
  host.start();
  host.stop(0);  // nothing of the flood has been read yet
  CHECK(host.receive(klp::Envelope::kExit).exit().signaled());
  CHECK(host.wait() > 128);
}

}  // namespace kai::test
