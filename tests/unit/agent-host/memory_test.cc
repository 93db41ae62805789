// memory.* through agent-host: from the runner to control and back, and what becomes of it when no answer comes.
#include <signal.h>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "agent-host/limits.h"
#include "tests/unit/agent-host/host.h"

namespace kai::test {
namespace {

using Json = nlohmann::json;

klp::MemoryRequest next_request(Host& host) {
  return host.receive(klp::Envelope::kMemoryRequest).memory_request();
}

void answer_version(Host& host, std::uint64_t id, std::uint64_t version) {
  klp::Envelope envelope;
  envelope.mutable_memory_answer()->set_id(id);
  envelope.mutable_memory_answer()->mutable_written()->add_versions(version);
  host.send(envelope);
}

void answer_value(Host& host, std::uint64_t id, const std::string& value) {
  klp::Envelope envelope;
  envelope.mutable_memory_answer()->set_id(id);
  klp::MemoryEntry& entry = *envelope.mutable_memory_answer()->mutable_got()->add_entries();
  entry.set_value(value);
  entry.set_version(1);
  host.send(envelope);
}

Json next_log(Host& host) {
  return Json::parse(host.receive(klp::Envelope::kLog).log().message());
}

}  // namespace

TEST_CASE("memory: asked in onInit, in any order while serving, and in onShutdown") {
  Host host(runner(R"(
hello()
init = hear()
ask("init", "memory.set", key="k", value={"a": 1}, ttl=5, ifAbsent=True)
print(json.dumps(hear()["result"]), flush=True)
answer(init, {})
answer(hear(), {})
ask(1, "memory.get", key="first")
ask("zwei", "memory.get", key="second", agent="other")
print(json.dumps([hear(), hear()]), flush=True)
stop = hear()
assert stop["method"] == "shutdown"
ask(3, "memory.delete", key="k")
print(json.dumps(hear()["error"]), flush=True)
answer(stop, {})
hear()
)"));
  host.accept();
  const auto set = next_request(host);
  CHECK(set.set().writes(0).value() == R"({"a": 1})");
  CHECK(set.set().writes(0).ttl_ms() == 5000);
  CHECK(set.set().writes(0).if_absent());
  answer_version(host, set.id(), 7);
  CHECK(Json::parse(host.output_line()) == Json::parse(R"({"version": 7})"));
  host.receive(klp::Envelope::kStarted);
  const auto first = next_request(host);
  const auto second = next_request(host);
  CHECK(first.get().keys(0) == "first");
  CHECK(second.agent() == "other");
  CHECK(first.id() != second.id());
  answer_value(host, second.id(), "2");
  answer_value(host, first.id(), "1");
  CHECK(Json::parse(host.output_line()) ==
        Json::parse(R"([{"jsonrpc": "2.0", "id": "zwei", "result": {"found": true, "value": 2, "version": 1}},
                        {"jsonrpc": "2.0", "id": 1, "result": {"found": true, "value": 1, "version": 1}}])"));
  host.stop(20'000);
  const auto last = next_request(host);
  CHECK(last.delete_().key() == "k");
  klp::Envelope refusal;
  refusal.mutable_memory_answer()->set_id(last.id());
  refusal.mutable_memory_answer()->mutable_error()->set_code("UNAVAILABLE");
  refusal.mutable_memory_answer()->mutable_error()->set_message("redis is down");
  refusal.mutable_memory_answer()->mutable_error()->set_retryable(true);
  host.send(refusal);
  CHECK(Json::parse(host.output_line()) == Json::parse(R"({"code": -32000, "message": "redis is down",
    "data": {"code": "UNAVAILABLE", "retryable": true}})"));
  CHECK(host.receive(klp::Envelope::kExit).exit().code() == 0);
}

TEST_CASE("memory: params that are wrong, and no method") {
  Host host(runner(R"(
start()
def outcome(method, **params):
    ask(1, method, **params)
    e = hear()["error"]
    return [e["code"], e["data"]["code"]]
seen = [outcome("memory.set", key="k"), outcome("memory.indexedDb", op="drop"), outcome("memory.watch", key="k"),
  outcome("memory.set", key="k", value="x" * ((1 << 20) + 20000)), outcome("memory.getMany", keys=["k"] * 1001)]
say({"jsonrpc": "2.0", "id": 1, "method": "memory.get"})
seen.append(hear()["error"]["data"]["code"])
note("log", level="info", message=json.dumps(seen))
hear()
)"));
  host.start();
  CHECK(next_log(host) == Json::parse(R"([[-32602, "INVALID"], [-32602, "INVALID"], [-32601, "INVALID"],
    [-32000, "TOO_LARGE"], [-32000, "TOO_LARGE"], "INVALID"])"));
}

TEST_CASE("memory: 256 requests may wait, the next one is BUSY") {
  Host host(runner(R"(
start()
for i in range(257): ask(i, "memory.get", key=str(i))
m = hear()
note("log", level="info", message=json.dumps([m["id"], m["error"]["data"]]))
m = hear()
ask(1000, "memory.get", key="again")
note("log", level="info", message=json.dumps(m))
hear()
)"));
  host.start();
  const auto first = next_request(host);
  for (int at = 1; at < 256; ++at) CHECK(next_request(host).get().keys(0) == std::to_string(at));
  CHECK(next_log(host) == Json::parse(R"([256, {"code": "BUSY", "retryable": true}])"));
  answer_value(host, first.id(), "null");
  CHECK(next_request(host).get().keys(0) == "again");
  CHECK(next_log(host)["id"] == 0);
}

TEST_CASE("memory: no answer within the deadline is TIMEOUT, and a transaction that begins too late is aborted") {
  Host host(runner(R"(
start()
ask(1, "memory.set", key="k", value=1)
ask(2, "memory.indexedDb", op="begin", database="d", mode="readwrite")
note("log", level="info", message=json.dumps(sorted([m["id"], m["error"]["data"]] for m in (hear(), hear()))))
ask(3, "memory.get", key="k")
note("log", level="info", message=json.dumps(hear()))
hear()
)"));
  host.accept(64, 200);
  const auto set = next_request(host);
  const auto begin = next_request(host);
  CHECK(next_log(host) == Json::parse(R"([[1, {"code": "TIMEOUT", "retryable": true}],
    [2, {"code": "TIMEOUT", "retryable": true}]])"));
  answer_version(host, set.id(), 1);
  klp::Envelope late;
  late.mutable_memory_answer()->set_id(begin.id());
  late.mutable_memory_answer()->mutable_indexed_db()->mutable_begun()->set_transaction(77);
  host.send(late);
  const auto next = next_request(host);
  const auto after = next_request(host);
  const auto& abort = next.has_indexed_db() ? next : after;
  const auto& get = next.has_indexed_db() ? after : next;
  CHECK(abort.indexed_db().transaction() == 77);
  CHECK(abort.indexed_db().has_abort());
  klp::Envelope done;
  done.mutable_memory_answer()->set_id(abort.id());
  done.mutable_memory_answer()->mutable_indexed_db()->mutable_done();
  host.send(done);  // nobody waits for it
  answer_value(host, get.id(), "5");
  CHECK(next_log(host)["id"] == 3);
}

TEST_CASE("memory: when control is lost, what waits is UNAVAILABLE, and the next control is asked anew") {
  Host host(runner(R"(
start()
ask(1, "memory.set", key="k", value=1)
print(json.dumps(hear()["error"]["data"]), flush=True)
ask(2, "memory.get", key="k")
print(json.dumps(hear()["error"]["data"]), flush=True)
m = hear()
ask(3, "memory.get", key="k")
answer(m, {"payload": hear()["result"]})
hear()
)"));
  host.start();
  const auto lost = next_request(host);
  host.hang_up();
  const Json unavailable = Json::parse(R"({"code": "UNAVAILABLE", "retryable": true})");
  CHECK(Json::parse(host.output_line()) == unavailable);
  CHECK(Json::parse(host.output_line()) == unavailable);
  CHECK(host.resumed().phase() == klp::Resume::SERVING);
  answer_version(host, lost.id(), 1);  // never asked by this one: nobody waits for it
  host.request("go", "x", "{}");
  const klp::Envelope asked = host.receive();
  REQUIRE(asked.has_memory_request());
  answer_value(host, asked.memory_request().id(), "5");
  CHECK(Json::parse(host.receive_message().payload()) == Json::parse(R"({"found": true, "value": 5, "version": 1})"));
}

TEST_CASE("memory: answers wait for a runner that is slow to read, and all arrive") {
  constexpr int kCount = 24;
  Host host(runner(R"(
start()
for i in range(24): ask(i, "memory.get", key=str(i))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("asked", flush=True)
signal.sigwait([signal.SIGUSR1])
seen = [hear() for i in range(24)]
note("log", level="info", message=json.dumps([len(seen), sum(len(m["result"]["value"]) for m in seen)]))
hear()
)"));
  host.start();
  std::vector<std::uint64_t> ids;
  for (int at = 0; at < kCount; ++at) ids.push_back(next_request(host).id());
  CHECK(host.output_line() == "asked\n");
  // As much as its queue and both sockets hold: so the host is not reading before the runner does.
  const std::string value = "\"" + std::string((1 << 20) - 64, 'x') + "\"";
  for (int at = 0; at < kCount; ++at) {
    if (at == 1) {
      klp::Envelope go;
      go.mutable_signal()->set_number(SIGUSR1);
      host.send(go);
    }
    answer_value(host, ids[static_cast<std::size_t>(at)], value);
  }
  CHECK(next_log(host) == Json::parse("[24, " + std::to_string(kCount * (value.size() - 2)) + "]"));
}

TEST_CASE("memory: an answer before the agent is accepted has no place in the protocol") {
  Host host(runner("start()\nhear()\n"));
  host.receive(klp::Envelope::kHello);
  answer_version(host, 1, 1);
  CHECK(host.receive(klp::Envelope::kLog).log().message().find("no place") != std::string::npos);
  CHECK(host.wait() == 1);
}

}  // namespace kai::test
