// Agents' memory from the agent's side and from the operator's: a whole control, real stores, fake hosts.
#include <fcntl.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/control/control_fixture.h"

namespace kai::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

Json with_memory(const std::string& id, const std::string& type, const std::string& backend, bool shared = false) {
  Json manifest = manifest_of(id);
  manifest["memory"] = {{"type", type}, {"backend", backend}, {"persistent", type != "volatile"}};
  if (shared) manifest["memory"]["sharedAccess"] = true;
  manifest["memory"]["maxSize"] = 1;
  return manifest;
}

control::Request terminate_of(const std::string& id, bool purge = false) {
  control::Request request;
  request.mutable_terminate()->set_id(id);
  request.mutable_terminate()->set_purge(purge);
  return request;
}

control::Request read_of(const std::string& id, const std::string& key) {
  control::Request request;
  request.mutable_memory_read()->set_id(id);
  request.mutable_memory_read()->set_key(key);
  return request;
}

struct Fixture : ControlFixture {
  explicit Fixture(const Policy& chosen = builtin_policy(true)) : ControlFixture(chosen) {}

  /// Registers and starts it; its host is kept by id.
  void begin(const Json& manifest) {
    const std::string id = manifest["id"];
    REQUIRE(code(add(manifest)) == "done");
    start_agent(id);
  }
  void start_agent(const std::string& id) {
    const auto started = call(start_of(id));
    REQUIRE_MESSAGE(code(started) == "done", started.failed().message());
  }
  /// Of its instance that is alive.
  FakeHost& host_of(const std::string& id) {
    const auto found = std::find_if(keeper->hosts.begin(), keeper->hosts.end(),
                                    [&](const auto& each) { return each.second->spec.agent_id() == id; });
    REQUIRE(found != keeper->hosts.end());
    return *found->second;
  }
  klp::MemoryAnswer ask(const std::string& id, klp::MemoryRequest request) {
    FakeHost& host = host_of(id);
    request.set_id(++last_);
    klp::Envelope envelope;
    *envelope.mutable_memory_request() = std::move(request);
    host.send(envelope);
    const klp::MemoryAnswer* found = nullptr;
    until([&] {
      for (const klp::Envelope& each : host.received) {
        if (each.has_memory_answer() && each.memory_answer().id() == last_) found = &each.memory_answer();
      }
      return found != nullptr;
    });
    return *found;
  }
  klp::MemoryAnswer set(const std::string& id, const std::string& key, const std::string& value) {
    klp::MemoryRequest request;
    klp::MemoryWrite& write = *request.mutable_set()->add_writes();
    write.set_key(key);
    write.set_value(value);
    return ask(id, request);
  }
  std::string get(const std::string& id, const std::string& key, const std::string& of = {}) {
    klp::MemoryRequest request;
    request.mutable_get()->add_keys(key);
    request.set_agent(of);
    const auto answer = ask(id, request);
    if (answer.has_error()) return answer.error().code();
    return answer.got().entries_size() == 0 ? "absent" : answer.got().entries(0).value();
  }
  Json stats(const std::string& id = {}) {
    control::Request request;
    request.mutable_memory_stats()->set_id(id);
    return document(call(request));
  }

  std::uint64_t last_ = 0;
};

}  // namespace

TEST_CASE("volatile memory: stop keeps it, terminate clears it, and both are told") {
  Fixture f;
  f.begin(with_memory("a1", "volatile", "memory"));
  CHECK(f.get("a1", "k") == "absent");
  CHECK(f.set("a1", "k", R"({"n":1.50})").written().versions(0) == 1);
  CHECK(f.get("a1", "k") == R"({"n":1.50})");
  CHECK(code(f.call(stop_of("a1"))) == "done");
  f.start_agent("a1");
  CHECK(f.get("a1", "k") == R"({"n":1.50})");
  CHECK(code(f.call(terminate_of("a1"))) == "done");
  CHECK(f.log_text().find("its volatile memory is gone") != std::string::npos);
  f.start_agent("a1");
  CHECK(f.get("a1", "k") == "absent");
}

TEST_CASE("volatile memory outlives a control, as its agent does, and not kaid") {
  Fixture f;
  f.begin(with_memory("a1", "volatile", "memory"));
  REQUIRE(f.set("a1", "k", "1").has_written());
  f.end();
  SUBCASE("control is started again") {
    f.hello.set_again(true);
    f.start();
    CHECK(document(f.call(read_of("a1", "k")))["value"] == 1);
  }
  SUBCASE("kaid is started again") {
    f.start();
    CHECK(code(f.call(read_of("a1", "k"))) == "NOT_FOUND");
  }
}

TEST_CASE("persistent and hybrid memory: kept over terminate and restarts, gone with purge") {
  for (const auto& [type, backend] :
       {std::pair{"persistent", "sqlite"}, {"hybrid", "sqlite"}, {"persistent", "indexeddb"}}) {
    CAPTURE(type);
    CAPTURE(backend);
    Fixture f;
    f.begin(with_memory("a1", type, backend));
    REQUIRE(f.set("a1", "k", R"("kept")").has_written());
    CHECK(f.get("a1", "k") == R"("kept")");
    CHECK(code(f.call(terminate_of("a1"))) == "done");
    f.end();
    f.start();
    CHECK(document(f.call(read_of("a1", "k")))["value"] == "kept");
    CHECK(fs::exists(f.directory / "state/memory/a1.db"));
    CHECK(code(f.call(terminate_of("a1", true))) == "done");
    CHECK(!fs::exists(f.directory / "state/memory/a1.db"));
    CHECK(code(f.call(read_of("a1", "k"))) == "NOT_FOUND");
    CHECK(f.log_text().find("\"memoryEntries\":1") != std::string::npos);
  }
}

TEST_CASE("unregister leaves nothing for the next of that name") {
  Fixture f;
  f.begin(with_memory("a1", "persistent", "sqlite"));
  REQUIRE(f.set("a1", "k", "1").has_written());
  REQUIRE(code(f.call(stop_of("a1"))) == "done");
  control::Request unregister;
  unregister.mutable_unregister()->set_id("a1");
  REQUIRE(code(f.call(unregister)) == "done");
  f.begin(with_memory("a1", "persistent", "sqlite"));
  CHECK(f.get("a1", "k") == "absent");
}

TEST_CASE("shared memory: read with a grant where the manifest shares it, written by nobody else") {
  Policy policy = builtin_policy(true);
  policy.permissions = {{"memory", {"read"}, "owner"}, {"memory", {"read"}, "private"}, {"memory", {"read"}, "nobody"}};
  Fixture f(policy);
  Json reader = with_memory("reader", "volatile", "memory");
  for (const char* of : {"owner", "private", "nobody"}) {
    reader["security"]["permissions"].push_back(
        {{"resource", "memory"}, {"scope", of}, {"actions", {"read", "write"}}});
  }
  f.begin(with_memory("owner", "persistent", "sqlite", true));
  f.begin(with_memory("private", "persistent", "sqlite"));
  f.begin(with_memory("stranger", "volatile", "memory"));
  f.begin(reader);
  REQUIRE(f.set("owner", "k", "1").has_written());
  REQUIRE(f.set("private", "k", "2").has_written());
  CHECK(f.get("reader", "k", "owner") == "1");
  CHECK(f.get("reader", "k") == "absent");
  CHECK(f.get("reader", "k", "private") == "DENIED");
  CHECK(f.get("reader", "k", "nobody") == "NOT_FOUND");
  CHECK(f.get("stranger", "k", "owner") == "DENIED");
  CHECK(f.get("stranger", "k", "nobody") == "DENIED");
  klp::MemoryRequest write;
  write.set_agent("owner");
  write.mutable_set()->add_writes()->set_key("k");
  CHECK(f.ask("reader", write).error().code() == "DENIED");
  CHECK(f.status("stranger")["denials"] == 2);
  CHECK(f.status("reader")["denials"] == 2);
  REQUIRE(code(f.call(stop_of("owner"))) == "done");
  CHECK(f.get("reader", "k", "owner") == "1");
}

TEST_CASE("stats: the spec's fields, of all and of one") {
  Fixture f;
  f.begin(with_memory("a1", "persistent", "sqlite"));
  f.begin(with_memory("a2", "volatile", "memory"));
  REQUIRE(f.set("a1", "key", std::string(R"(")") + std::string(1021, 'x') + '"').has_written());
  Json all = f.stats();
  CHECK(all["activeContexts"] == 2);
  CHECK(all["totalAllocated"] == doctest::Approx(1026.0 / (1 << 20)));
  REQUIRE(all["contexts"].size() == 2);
  CHECK(all["contexts"][0]["id"] == "a1");
  CHECK(all["contexts"][0]["type"] == "persistent");
  CHECK(all["contexts"][0]["backend"] == "sqlite");
  CHECK(all["contexts"][0]["entryCount"] == 1);
  CHECK(all["contexts"][0]["size"] == doctest::Approx(1026.0 / (1 << 20)));
  CHECK(all["contexts"][0]["lastAccessed"].get<std::string>().ends_with("Z"));
  CHECK(f.stats("a2")["contexts"].size() == 1);
  f.end();
  f.start();
  CHECK(f.stats("a1")["contexts"][0]["entryCount"] == 1);
}

TEST_CASE("export and import: the same content again, also in another agent, while it does not run") {
  Fixture f;
  f.begin(with_memory("a1", "persistent", "sqlite"));
  for (int each = 0; each < 50; ++each) {
    REQUIRE(f.set("a1", "k" + std::to_string(each), std::to_string(each)).has_written());
  }
  const std::string path = f.directory / "memory.ndjson";
  control::Request save;
  save.mutable_memory_export()->set_id("a1");
  Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  const auto saved = f.call(save, {file.get()});
  REQUIRE_MESSAGE(saved.has_done(), saved.failed().message());
  CHECK(document(saved)["entries"] == 50);
  REQUIRE(f.set("a1", "k0", "\"changed\"").has_written());
  control::Request load;
  load.mutable_memory_import()->set_id("a1");
  Fd in(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  CHECK(code(f.call(load, {in.get()})) == "CONFLICT");
  REQUIRE(code(f.call(stop_of("a1"))) == "done");
  const auto loaded = f.call(load, {in.get()});
  REQUIRE_MESSAGE(loaded.has_done(), loaded.failed().message());
  CHECK(document(f.call(read_of("a1", "k0")))["value"] == 0);
  // A pipe would let a client hold control's thread.
  auto pipe = std::move(*socket_pair(SOCK_STREAM));
  CHECK(code(f.call(load, {pipe.first.get()})) == "INVALID");
  CHECK(code(f.call(save)) == "INVALID");
}

TEST_CASE("a damaged file refuses the start of its agent, is set aside, and costs nobody else") {
  Fixture f;
  f.begin(with_memory("a1", "persistent", "sqlite"));
  f.begin(with_memory("a2", "persistent", "sqlite"));
  REQUIRE(f.set("a1", "k", "1").has_written());
  REQUIRE(code(f.call(stop_of("a1"))) == "done");
  f.end();
  std::ofstream(f.directory / "state/memory/a1.db", std::ios::in | std::ios::out) << "this is no database at all";
  f.start();
  const auto refused = f.call(start_of("a1"));
  REQUIRE(refused.has_failed());
  CHECK(refused.failed().message().find("its memory is not there") != std::string::npos);
  CHECK(f.status("a1")["lastEnd"]["cause"] == "setup");
  std::size_t aside = 0;
  for (const auto& entry : fs::directory_iterator(f.directory / "state/memory")) {
    if (entry.path().filename().string().starts_with("a1.db.damaged-")) ++aside;
  }
  CHECK(aside >= 1);
  f.start_agent("a2");
  CHECK(f.set("a2", "k", "2").has_written());
  f.start_agent("a1");
  CHECK(f.get("a1", "k") == "absent");
}

TEST_CASE("damage that an operator's look finds is refused to the agent all the same, by kaid's own start always") {
  Fixture f;
  f.begin(with_memory("a1", "persistent", "sqlite"));
  REQUIRE(f.set("a1", "k", "1").has_written());
  f.end();
  std::ofstream(f.directory / "state/memory/a1.db", std::ios::in | std::ios::out) << "this is no database at all";
  f.start();  // desired running: kaid's own start is refused
  f.until([&] { return f.log_text().find("its memory is not there") != std::string::npos; });
  for (int asked = 0; f.status("a1")["state"] != "stopped" && asked < 2000; ++asked) {
  }
  CHECK(f.status("a1")["state"] == "stopped");
  CHECK(code(f.call(read_of("a1", "k"))) == "INTERNAL");
  CHECK(f.stats("a1")["contexts"][0]["fault"].get<std::string>().find("damaged") != std::string::npos);
  f.end();
  f.start();  // the control before has set it aside
  for (int asked = 0; f.status("a1")["state"] != "stopped" && asked < 2000; ++asked) {
  }
  CHECK(code(f.call(start_of("a1"))) == "INTERNAL");  // the operator is told
  f.start_agent("a1");                                // and goes on
  CHECK(f.get("a1", "k") == "absent");

  // Of the next damage nobody has been told.
  REQUIRE(f.set("a1", "k", "2").has_written());
  REQUIRE(code(f.call(stop_of("a1"))) == "done");
  f.loop.finish_work();
  std::ofstream(f.directory / "state/memory/a1.db", std::ios::in | std::ios::out) << "this is no database at all";
  CHECK(code(f.call(read_of("a1", "k"))) == "INTERNAL");
  CHECK(code(f.call(start_of("a1"))) == "INTERNAL");
  f.start_agent("a1");
  CHECK(f.get("a1", "k") == "absent");
}

TEST_CASE("a name that cannot be an agent's is not echoed into denials") {
  Fixture f;
  f.begin(with_memory("a1", "volatile", "memory"));
  CHECK(f.get("a1", "k", std::string(1 << 16, '\1')) == "INVALID");
  CHECK(f.status("a1")["denials"] == 0);
}

TEST_CASE("redis that nobody configured refuses the start, and no other backend takes its place") {
  Fixture f;
  REQUIRE(code(f.add(with_memory("a1", "persistent", "redis"))) == "done");
  const auto refused = f.call(start_of("a1"));
  REQUIRE(refused.has_failed());
  CHECK(refused.failed().message().find("redis") != std::string::npos);
}

TEST_CASE("redis that is down: an operator's start fails at once, kaid's own waits for it and can be stopped") {
  Fixture f;
  f.end();
  f.hello.set_redis_url("unix:" + (f.directory / "none.sock"));
  f.start();
  REQUIRE(code(f.add(with_memory("a1", "persistent", "redis"))) == "done");
  const auto refused = f.call(start_of("a1"));
  REQUIRE(refused.has_failed());
  CHECK(f.status("a1")["state"] == "stopped");
  f.end();
  f.start();  // desired running: its start waits
  CHECK(f.status("a1")["state"] == "starting");
  f.until([&] { return f.log_text().find("its start waits for it") != std::string::npos; });
  CHECK(code(f.call(stop_of("a1"))) == "done");
  CHECK(f.status("a1")["state"] == "stopped");
}

TEST_CASE("requests of an agent that has ended are answered to nobody") {
  Fixture f;
  f.begin(with_memory("a1", "persistent", "sqlite"));
  klp::Envelope envelope;
  for (int each = 0; each < 100; ++each) {
    envelope.mutable_memory_request()->set_id(static_cast<std::uint64_t>(each) + 1000);
    klp::MemoryWrite& write = *envelope.mutable_memory_request()->mutable_set()->add_writes();
    write.set_key("k" + std::to_string(each));
    write.set_value("1");
    f.host_of("a1").send(envelope);
    envelope.mutable_memory_request()->clear_set();
  }
  f.host_of("a1").exit(1);
  f.until([&] { return f.log_text().find("kai.crashed") != std::string::npos; });
}

}  // namespace kai::test
