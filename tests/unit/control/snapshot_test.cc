// kaictl snapshot and restore, and the backup before an upgrade: a whole control, real stores, fake hosts.
#include "supervisor/control/snapshot.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>

#include "tests/unit/control/control_fixture.h"
#include "tests/unit/control/tar_builder.h"

namespace kai::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

Json with_memory(const std::string& id, const std::string& type = "persistent", const std::string& backend = "sqlite") {
  Json manifest = manifest_of(id);
  manifest["memory"] = {{"type", type}, {"backend", backend}, {"persistent", type != "volatile"}, {"maxSize", 1}};
  return manifest;
}

struct Fixture : ControlFixture {
  explicit Fixture(const Policy& chosen = builtin_policy(true)) : ControlFixture(chosen) {}

  /// As an operator does who named a directory.
  void register_agent(const Json& manifest) {
    const auto added = add(manifest);
    REQUIRE_MESSAGE(code(added) == "done", added.failed().message());
  }
  /// `state`: what its saveState gives.
  void start_agent(const std::string& id, const std::string& state = "null") {
    keeper->on_spawn = [state](FakeHost& host) {
      host.state = state;
      host.say_hello();
    };
    const auto started = call(start_of(id));
    REQUIRE_MESSAGE(code(started) == "done", started.failed().message());
  }
  void stop_agent(const std::string& id) { REQUIRE(code(call(stop_of(id))) == "done"); }
  void set(const std::string& key, const std::string& value) {
    klp::Envelope envelope;
    envelope.mutable_memory_request()->set_id(++last_);
    klp::MemoryWrite& write = *envelope.mutable_memory_request()->mutable_set()->add_writes();
    write.set_key(key);
    write.set_value(value);
    keeper->host().send(envelope);
    until([&] {
      const auto& received = keeper->host().received;
      return std::any_of(received.begin(), received.end(), [&](const klp::Envelope& each) {
        return each.memory_answer().id() == last_ && each.memory_answer().has_written();
      });
    });
  }
  std::string get(const std::string& id, const std::string& key) {
    control::Request request;
    request.mutable_memory_read()->set_id(id);
    request.mutable_memory_read()->set_key(key);
    const auto answer = call(request);
    return answer.has_failed() ? answer.failed().code() : Json::parse(answer.done().json())["value"].dump();
  }

  control::Response snapshot(const std::string& id, const std::string& path) {
    const Fd file(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    control::Request request;
    request.mutable_snapshot()->set_id(id);
    return call(request, {file.get()});
  }
  control::Response restore(const std::string& path) {
    const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    REQUIRE(file);
    control::Request request;
    request.mutable_restore()->set_label(path);
    return call(request, {file.get()});
  }
  control::Response unregister(const std::string& id) {
    control::Request request;
    request.mutable_unregister()->set_id(id);
    return call(request);
  }
  /// The audit's records of an event, newest last.
  std::vector<Json> records(const std::string& id, const std::string& event) {
    control::Request request;
    request.mutable_audit_list()->set_id(id);
    operator_.reset();
    static_cast<void>(call(request));
    std::vector<Json> found;
    for (const control::Response& response : operator_->responses) {
      if (!response.has_record()) continue;
      Json record = Json::parse(response.record());
      if (record["event"] == event) found.push_back(std::move(record));
    }
    return found;
  }

  std::uint64_t last_ = 0;
};

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a snapshot of an agent that runs brings back package, memory and state, wherever") {
  Fixture f;
  f.register_agent(with_memory("a1"));
  f.start_agent("a1", R"({"open":[1,2]})");
  f.set("k", "1");
  f.set("l", "\"two\"");
  const std::string path = f.directory / "a1.kai";
  const Json taken = document(f.snapshot("a1", path));
  CHECK(taken["id"] == "a1");
  CHECK(taken["version"] == "1.0.0");
  CHECK(taken["memoryEntries"] == 2);
  CHECK(taken["state"] == true);
  CHECK(taken["bytes"] == fs::file_size(path));
  CHECK(f.status("a1")["state"] == "running");
  CHECK(code(f.call(send_of("a1", "echo", "{}"))) == "done");
  const auto exported = f.records("a1", "kai.exported");
  REQUIRE(exported.size() == 1);
  CHECK(exported[0]["metadata"]["snapshot"] == true);
  CHECK(exported[0]["metadata"]["operatorUid"] == geteuid());

  f.set("k", "99");
  const auto running = f.restore(path);
  CHECK(code(running) == "CONFLICT");
  CHECK(has(running.failed().hint(), "kaictl stop a1"));
  CHECK(f.get("a1", "k") == "99");
  f.stop_agent("a1");

  const auto check_restored = [&] {
    const auto answer = f.restore(path);
    const Json restored = document(answer);
    CHECK(restored["id"] == "a1");
    CHECK(restored["version"] == "1.0.0");
    CHECK(restored["memoryEntries"] == 2);
    CHECK(restored["state"] == true);
    CHECK(has(answer.done().text(), "kaictl start a1"));
    CHECK(f.get("a1", "k") == "1");
    CHECK(f.get("a1", "l") == "\"two\"");
    CHECK(*f.registry->saved_state("a1") == R"({"open":[1,2]})");
    CHECK(f.status("a1")["state"] != "running");
    const auto registered = f.records("a1", "registered");
    REQUIRE_FALSE(registered.empty());
    CHECK(registered.back()["metadata"]["restored"] == true);
    CHECK(registered.back()["metadata"]["operatorUid"] == geteuid());
  };
  SUBCASE("over the agent as it is") {
    check_restored();
    const auto purged = f.records("a1", "kai.purged");
    REQUIRE(purged.size() == 1);
    CHECK(purged[0]["metadata"]["importedEntries"] == 2);
  }
  SUBCASE("after it was unregistered") {
    REQUIRE(code(f.unregister("a1")) == "done");
    check_restored();
  }
  SUBCASE("into another kaid's state directory") {
    f.end();
    fs::remove_all(f.directory / "state");
    for (const char* part : {"log", "db", "packages", "quarantine"})
      fs::create_directories(f.directory / (std::string("state/") + part));
    f.start();
    check_restored();
    f.start_agent("a1");
    CHECK(f.get("a1", "k") == "1");
  }
}

TEST_CASE("what is restored at rest can be saved again, and has its state still") {
  Fixture f;
  f.register_agent(with_memory("a1"));
  f.start_agent("a1", "[7]");
  f.set("k", "1");
  REQUIRE(code(f.snapshot("a1", f.directory / "one.kai")) == "done");
  f.stop_agent("a1");
  REQUIRE(code(f.snapshot("a1", f.directory / "rest.kai")) == "done");
  REQUIRE(code(f.restore(f.directory / "one.kai")) == "done");
  const Json again = document(f.snapshot("a1", f.directory / "two.kai"));
  CHECK(again["state"] == true);
  CHECK(again["memoryEntries"] == 1);
  // One without a state takes the one that waits away.
  const Json plain = document(f.restore(f.directory / "rest.kai"));
  CHECK(plain["state"] == false);
  CHECK(f.registry->saved_state("a1")->empty());
  REQUIRE(code(f.restore(f.directory / "two.kai")) == "done");
  CHECK(*f.registry->saved_state("a1") == "[7]");
}

TEST_CASE("every kind of memory comes back") {
  for (const auto& [type, backend] :
       {std::pair{"volatile", "memory"}, {"hybrid", "sqlite"}, {"persistent", "indexeddb"}}) {
    CAPTURE(backend);
    Fixture f;
    f.register_agent(with_memory("a1", type, backend));
    f.start_agent("a1");
    f.set("k", "1");
    REQUIRE(code(f.snapshot("a1", f.directory / "a1.kai")) == "done");
    f.stop_agent("a1");
    REQUIRE(code(f.unregister("a1")) == "done");
    REQUIRE(code(f.restore(f.directory / "a1.kai")) == "done");
    CHECK(f.get("a1", "k") == "1");
  }
}

TEST_CASE("damage is found before anything is changed") {
  Fixture f;
  f.register_agent(with_memory("a1"));
  f.start_agent("a1");
  f.set("k", "\"of the snapshot\"");
  const std::string path = f.directory / "a1.kai";
  REQUIRE(code(f.snapshot("a1", path)) == "done");
  f.set("k", "\"since\"");
  f.stop_agent("a1");
  std::string bytes = *read_file(path);
  bytes[bytes.find("of the snapshot")] = 'O';
  std::ofstream(path) << bytes;
  const auto refused = f.restore(path);
  CHECK(code(refused) == "INVALID");
  CHECK(has(refused.failed().message(), "nothing was changed"));
  CHECK(f.get("a1", "k") == "\"since\"");
  std::ofstream(path) << bytes.substr(0, bytes.size() / 2);
  CHECK(code(f.restore(path)) == "INVALID");
  std::ofstream(path) << "";
  CHECK(code(f.restore(path)) == "INVALID");
  CHECK(f.get("a1", "k") == "\"since\"");
  CHECK(fs::is_empty(f.directory / "state/backups"));
}

TEST_CASE("memory that the policy of now has no room for leaves all as it was") {
  Fixture f;
  f.register_agent(with_memory("a1"));
  f.start_agent("a1");
  f.set("k", "\"" + std::string(600 << 10, 'x') + "\"");
  const std::string path = f.directory / "a1.kai";
  REQUIRE(code(f.snapshot("a1", path)) == "done");
  f.stop_agent("a1");
  Policy small = builtin_policy(true);
  small.limits.memory_store_mb = 0;
  f.policies.use({{small}, {}});
  SUBCASE("of an agent that is here") {
    REQUIRE(f.registry->set_saved_state("a1", "[1]"));
    const auto refused = f.restore(path);
    REQUIRE(refused.has_failed());
    CHECK(has(refused.failed().message(), "nothing was changed"));
    CHECK(*f.registry->saved_state("a1") == "[1]");
    CHECK(f.get("a1", "k").size() > 600'000);
  }
  SUBCASE("of one that is not") {
    REQUIRE(code(f.unregister("a1")) == "done");
    const auto refused = f.restore(path);
    REQUIRE(refused.has_failed());
    CHECK(has(refused.failed().message(), "nothing was changed"));
    control::Request status;
    status.mutable_status()->set_id("a1");
    CHECK(code(f.call(status)) == "NOT_FOUND");
    CHECK(f.packages->list()->empty());
  }
}

TEST_CASE("what is in the archive needs no signature, anything else does where the policy says so") {
  Fixture f;
  f.register_agent(with_memory("a1"));
  const std::string path = f.directory / "a1.kai";
  REQUIRE(code(f.snapshot("a1", path)) == "done");
  Policy strict = builtin_policy(true);
  strict.allow_unsigned = Unsigned::kNever;
  f.policies.use({{strict}, {}});
  CHECK(code(f.restore(path)) == "done");
  REQUIRE(code(f.unregister("a1")) == "done");
  CHECK(code(f.restore(path)) == "DENIED");
}

TEST_CASE("a policy that differs from the one that held is a warning") {
  Fixture f;
  f.register_agent(with_memory("a1"));
  const std::string path = f.directory / "a1.kai";
  REQUIRE(code(f.snapshot("a1", path)) == "done");
  const auto mentions = [](const control::Response& answer) {
    return std::any_of(answer.done().warnings().begin(), answer.done().warnings().end(),
                       [](const std::string& each) { return has(each, "is not word for word the one that held"); });
  };
  const auto same = f.restore(path);
  REQUIRE(code(same) == "done");
  CHECK_FALSE(mentions(same));
  Policy other = builtin_policy(true);
  other.name = "other";
  other.limits.processes = 7;
  f.policies.use({{other}, {}});
  const auto different = f.restore(path);
  REQUIRE(code(different) == "done");
  CHECK(mentions(different));
}

TEST_CASE("what cannot be a snapshot, or to be one, is refused") {
  Fixture f;
  f.register_agent(with_memory("a1"));
  CHECK(code(f.snapshot("nobody", f.directory / "x.kai")) == "NOT_FOUND");
  control::Request request;
  request.mutable_snapshot()->set_id("a1");
  CHECK(code(f.call(request)) == "INVALID");
  const auto pair = std::move(*socket_pair(SOCK_STREAM));
  CHECK(code(f.call(request, {pair.first.get()})) == "INVALID");
  std::ofstream(f.directory / "full") << "text";
  const Fd full(open((f.directory / "full").c_str(), O_RDWR | O_CLOEXEC));
  CHECK(code(f.call(request, {full.get()})) == "INVALID");
  control::Request restore;
  restore.mutable_restore()->set_label("x");
  CHECK(code(f.call(restore)) == "INVALID");
  CHECK(code(f.call(restore, {pair.first.get()})) == "INVALID");
  CHECK(code(f.call(restore, {full.get()})) == "INVALID");
}

TEST_CASE("what saveState gives is no JSON: the agent is told on, and serves") {
  Fixture f;
  f.register_agent(with_memory("a1"));
  f.start_agent("a1", "{");
  CHECK(code(f.snapshot("a1", f.directory / "a1.kai")) == "AGENT_ERROR");
  CHECK(code(f.call(send_of("a1", "echo", "{}"))) == "done");
}

TEST_CASE("an agent that ends while it is asked for its state is told of, and nobody waits for ever") {
  Fixture f;
  f.register_agent(with_memory("a1"));
  f.keeper->on_spawn = [&f](FakeHost& host) {
    host.say_hello();
    host.on_hook = [&f](const klp::HookCall&) {
      f.loop.defer([&f] { f.keeper->exited(f.keeper->instance(), true, 9); });
    };
  };
  REQUIRE(code(f.call(start_of("a1"))) == "done");
  const auto answer = f.snapshot("a1", f.directory / "a1.kai");
  CHECK(answer.has_failed());
  CHECK(answer.failed().retryable());
}

TEST_CASE("backups: a file of its own, kAI's alone, and the newest few are kept") {
  Fixture f;
  f.register_agent(with_memory("a1"));
  Environment environment{f.loop,  *f.client,  *f.log,   *f.registry, *f.packages,
                          f.hello, f.policies, *f.audit, *f.memory};
  Agents agents(environment);
  REQUIRE(agents.load());
  const std::string own = f.directory / "state/backups/a1";
  std::string last;
  for (std::size_t each = 0; each < kKeptBackups + 2; ++each) {
    bool over = false;
    write_backup(environment, *agents.find("a1"), [&](const Outcome<std::string>& done) {
      REQUIRE_MESSAGE(done, (done ? "" : done.error().message));
      last = *done;
      over = true;
    });
    f.until([&] { return over; });
    // As an interrupted one leaves it.
    std::ofstream(own + "/.new-left") << "half";
  }
  CHECK(last.starts_with(own + "/1.0.0-"));
  std::size_t kept = 0;
  for (const auto& each : fs::directory_iterator(own)) kept += each.path().extension() == ".tar" ? 1U : 0U;
  CHECK(kept == kKeptBackups);
  CHECK(fs::exists(last));
  struct stat status {};
  REQUIRE(stat(last.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  REQUIRE(stat(own.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0700);
  REQUIRE(code(f.restore(last)) == "done");
}

}  // namespace kai::test
