// What survives what: kill -9 of the process, a full disk, a clock that goes back.
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <map>
#include <set>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "audit/record.h"
#include "base/unix.h"
#include "supervisor/control/audit_reader.h"
#include "tests/unit/audit/audit_fixture.h"

namespace kai::test {
namespace {

TEST_CASE("numbers are dense, in the log and per agent, across reopening") {
  AuditFixture f;
  for (int round = 0; round < 3; ++round) {
    f.fill(2, 10);
    f.close();
    f.open();
  }
  auto reader = std::move(*AuditReader::open(f.directory));
  const auto records = *reader->records("", 0, 60, 100);
  REQUIRE(records.size() == 60);
  std::map<std::string, std::uint64_t> last;
  std::set<std::string> ids;
  for (std::size_t at = 0; at < records.size(); ++at) {
    const auto document = nlohmann::json::parse(records[at].body);
    CHECK(document["seq"] == at + 1);
    CHECK(document["agentSeq"] == ++last[document["agentId"]]);
    ids.insert(document["id"]);
  }
  CHECK(ids.size() == 60);
}

TEST_CASE("observers see each record once it is written, in order") {
  AuditFixture f;
  std::vector<std::uint64_t> seen;
  const auto id = f.audit->add_observer([&](std::string_view agent, std::string_view record) {
    CHECK(agent == "a1");
    seen.push_back(audit::parse_record(record)->seq);
  });
  for (int at = 0; at < 5; ++at) f.audit->append("a1", "started");
  CHECK(seen.empty());
  f.audit->flush();
  CHECK(seen == std::vector<std::uint64_t>{1, 2, 3, 4, 5});
  f.audit->remove_observer(id);
  f.audit->append("a1", "terminated");
  f.audit->flush();
  CHECK(seen.size() == 5);
}

TEST_CASE("whoever waits shares a checkpoint; who waits for nothing gets one all the same") {
  AuditFixture f;
  int durable = 0;
  for (int at = 0; at < 100; ++at) {
    f.audit->append("a1", "message_received");
    f.audit->when_durable([&](const Result<>& result) { durable += result ? 1 : 1000; });
  }
  CHECK(durable == 0);
  run_until(f.loop, [&] { return durable == 100; });
  CHECK(f.query("SELECT count(*) FROM checkpoints") == "1");
  f.audit->append("a1", "message_received");
  f.audit->flush();
  // The timer's doing.
  run_until(f.loop, [&] { return f.query("SELECT count(*) FROM checkpoints") == "2"; });
  CHECK(f.verify().valid());
}

/// Runs `child` in a process of its own, which kills itself, and waits for that.
template <typename Child>
void in_a_process_that_is_killed(Child&& child) {
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    child();
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  CHECK(WIFSIGNALED(status));
}

TEST_CASE("kill -9 between write and fsync: what was flushed is there, and is signed at the next start") {
  TempDirectory temporary;
  const std::string directory = temporary / "audit";
  in_a_process_that_is_killed([&] {
    AuditFixture child(directory);
    child.fill(2, 5);
    for (int at = 0; at < 3; ++at) child.audit->append("a1", "message_received");
    child.audit->flush();
    child.audit->append("a1", "message_received");  // not flushed: nobody was told of it
    kill(getpid(), SIGKILL);
  });
  AuditFixture f(directory);
  CHECK(f.audit->last_seq() == 13);
  f.fill(1, 2);
  const auto report = f.verify();
  CHECK_MESSAGE(report.valid(), report.text());
  CHECK(report.records == 15);
}

TEST_CASE("kill -9 at any moment under load, again and again: nothing that was acknowledged is missing") {
  TempDirectory temporary;
  const std::string directory = temporary / "audit";
  std::uint64_t acknowledged = 0;
  for (int round = 0; round < 12; ++round) {
    auto pipe = std::move(*make_pipe());
    const pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      AuditFixture child(directory);
      for (;;) {
        for (int at = 0; at < 20; ++at) child.audit->append(at % 2 == 0 ? "a1" : "b2", "message_received");
        child.audit->flush();
        const std::uint64_t told = child.audit->last_seq();
        if (write(pipe.second.get(), &told, sizeof told) != sizeof told) _exit(1);
        child.loop.run_until([] { return true; });
      }
    }
    pipe.second.reset();
    // Another number of acknowledgements each round: another moment.
    for (int told = 0; told < 5 + 17 * round; ++told) {
      REQUIRE(read(pipe.first.get(), &acknowledged, sizeof acknowledged) == sizeof acknowledged);
    }
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    AuditFixture f(directory);
    CHECK(f.audit->last_seq() >= acknowledged);
    REQUIRE(f.durable());
    const auto report = f.verify();
    CHECK_MESSAGE(report.valid(), report.text());
  }
}

/// Files of this process cannot grow, as on a full disk.
class NoSpace {
 public:
  NoSpace() {
    getrlimit(RLIMIT_FSIZE, &before_);
    old_ = std::signal(SIGXFSZ, SIG_IGN);
    rlimit none = before_;
    none.rlim_cur = 0;
    setrlimit(RLIMIT_FSIZE, &none);
  }
  ~NoSpace() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, old_);
  }

 private:
  rlimit before_{};
  void (*old_)(int);
};

TEST_CASE("a disk that takes nothing: refused with the reason, kept in memory, written when it takes again") {
  AuditFixture f;
  f.fill(1, 5);
  {
    const NoSpace full;
    f.audit->append("a1", "started");
    CHECK_FALSE(f.durable());
    const auto refusal = f.audit->refusal();
    REQUIRE(refusal);
    CHECK(refusal->code == "UNAVAILABLE");
    CHECK(refusal->retryable);
    for (int at = 0; at < 100; ++at) f.audit->append("a1", "message_received");
    CHECK_FALSE(f.durable());
  }
  run_until(f.loop, [&] { return !f.audit->refusal(); });
  CHECK(f.durable());
  const auto report = f.verify();
  CHECK_MESSAGE(report.valid(), report.text());
  CHECK(report.records == 106);
}

TEST_CASE("more than memory holds meanwhile is counted, and the count is a record; messages push nothing else out") {
  AuditFixture f;
  {
    const NoSpace full;
    for (int at = 0; at < 70'000; ++at) f.audit->append("a1", "message_received");
    for (int at = 0; at < 10; ++at) f.audit->append("a2", "kai.crashed");
    CHECK_FALSE(f.durable());
  }
  run_until(f.loop, [&] { return !f.audit->refusal(); });
  CHECK(f.durable());
  constexpr int kMessages = 65'536 / 2;
  constexpr int kCount = kMessages + 10 + 1;
  REQUIRE(f.audit->last_seq() == kCount);
  auto reader = std::move(*AuditReader::open(f.directory));
  const auto record = nlohmann::json::parse(reader->record(kCount)->body);
  CHECK(record["event"] == "error");
  CHECK(record["metadata"]["lostRecords"] == 70'000 - kMessages);
  CHECK(f.verify().valid());
}

TEST_CASE("a small tmpfs that fills up, and is given space again") {
  TempDirectory temporary;
  const std::string place = temporary / "disk";
  std::filesystem::create_directory(place);
  if (mount("tmpfs", place.c_str(), "tmpfs", 0, "size=512k,mode=0700") < 0) {
    REQUIRE(errno == EPERM);
    MESSAGE("only root mounts a tmpfs; RLIMIT_FSIZE stands in for it above");
    return;
  }
  {
    AuditFixture f(place + "/audit");
    std::uint64_t appended = 0;
    while (!f.audit->refusal() && appended < 100'000) {
      for (int at = 0; at < 50; ++at, ++appended) f.audit->append("a1", "message_received");
      static_cast<void>(f.durable());
    }
    REQUIRE(f.audit->refusal());
    CHECK(f.audit->refusal()->message.find("full") != std::string::npos);
    REQUIRE(mount("tmpfs", place.c_str(), "tmpfs", MS_REMOUNT, "size=64m") == 0);
    run_until(f.loop, [&] { return !f.audit->refusal(); });
    CHECK(f.durable());
    const auto report = f.verify();
    CHECK_MESSAGE(report.valid(), report.text());
    CHECK(report.records == appended);
  }
  CHECK(umount(place.c_str()) == 0);
}

TEST_CASE("a clock that goes back orders nothing") {
  AuditFixture f;
  f.fill(1, 5);
  f.close();
  // As if the records to come were written before those that are there: theirs are of the far future.
  const std::string later = R"({"seq":6,"agentSeq":5,"id":"01890a5d-ac96-774b-bcce-b302099a8057","agentId":"a1",)"
                            R"("event":"started","timestamp":"2199-01-01T00:00:00.000Z","metadata":{}})";
  f.sql("INSERT INTO records VALUES(6, '" + later + "'); INSERT INTO agent_records VALUES('a1', 5, 6)");
  f.open();
  f.fill(2, 5);
  const auto report = f.verify();
  CHECK_MESSAGE(report.valid(), report.text());
  CHECK(report.records == 16);
}

}  // namespace
}  // namespace kai::test
