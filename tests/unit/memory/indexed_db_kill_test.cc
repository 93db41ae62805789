// kill -9 of the process that writes: what was answered is there, what was not committed is not, on a real file with a
// write-ahead log.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "base/fd.h"
#include "tests/unit/memory/indexed_db_fixture.h"

namespace kai::test {
namespace {

constexpr int kRounds = 60;
constexpr char kCommitted = 'c';  // a commit was answered
constexpr char kWritten = 'w';    // records of a transaction that stays open were

void say(int pipe, char what) {
  if (::write(pipe, &what, 1) != 1) _exit(1);
}

// Transaction n: three records of its own, a fourth that all write, and a step of the key generator.
void write_records(Idb& idb, std::uint64_t transaction, const klp::IdbStore& store, std::uint64_t n) {
  const std::uint32_t index = store.indexes(0).id();
  for (int i = 0; i < 3; ++i) {
    const std::string key = std::to_string(n) + "/" + std::to_string(i);
    klp::IdbRequest put = put_request(transaction, store.id(), key, std::string(500, 'v'), {{index, "i" + key}});
    put.mutable_put()->set_next_key(n + 1);
    idb.ok(put);
  }
  idb.put(transaction, store.id(), "last", std::to_string(n), {{index, "last"}});
}

[[noreturn]] void child(const std::string& path, int pipe) {
  try {
    Idb idb(path);
    const klp::IdbStore store = idb.describe().stores(0);
    for (std::uint64_t n = store.next_key();; ++n) {
      std::uint64_t transaction = idb.begin(klp::READWRITE);
      write_records(idb, transaction, store, n);
      idb.commit(transaction);
      say(pipe, kCommitted);
      transaction = idb.begin(klp::READWRITE);
      write_records(idb, transaction, store, n + 1'000'000);
      klp::IdbRequest clear = within(transaction);
      clear.mutable_clear()->set_store(store.id());
      idb.ok(clear);
      write_records(idb, transaction, store, n + 2'000'000);
      say(pipe, kWritten);
      idb.abort(transaction);
    }
  } catch (...) {
  }
  _exit(1);
}

/// Lets a child write until its so-many-th word, kills it there, and says how many commits were answered.
std::uint64_t run_and_kill(const std::string& path, int words) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  Fd reading(ends[0]), writing(ends[1]);
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) child(path, writing.get());
  writing = Fd();
  std::uint64_t commits = 0;
  const auto hear = [&] {
    char word = 0;
    if (::read(reading.get(), &word, 1) != 1) return false;
    if (word == kCommitted) ++commits;
    return true;
  };
  while (words-- > 0) REQUIRE(hear());
  REQUIRE(kill(pid, SIGKILL) == 0);
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  CHECK(WIFSIGNALED(status));
  while (hear()) {  // what it said before the signal reached it
  }
  return commits;
}

TEST_CASE("kill -9 loses no commit that was answered, and leaves nothing of a transaction that was open") {
  TempDirectory directory;
  const std::string path = directory / "memory.db";
  {
    Idb idb(path);
    const auto transaction = idb.upgrade(1);
    idb.create_index(transaction, idb.create_store(transaction, "s", true), "i", true);
    idb.commit(transaction);
  }
  std::uint64_t answered = 0;
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t now = run_and_kill(path, 1 + round % 7);  // odd: after a commit; even: with one open
    Idb idb(path);
    const klp::IdbStore store = idb.describe().stores(0);
    const std::uint64_t there = store.next_key() - 1;
    // The last one may have been committed and not yet answered.
    CHECK(there >= answered + now);
    CHECK(there <= answered + now + 1);
    answered = there;
    CHECK(idb.account().used().entries == 3 * there + 1);
    idb.check_usage();
    const auto transaction = idb.begin(klp::READONLY);
    klp::IdbRequest get = within(transaction);
    get.mutable_read()->mutable_span()->set_store(store.id());
    get.mutable_read()->mutable_span()->mutable_range()->set_lower("last");
    CHECK(idb.ok(get).records().records(0).value() == std::to_string(there));
    klp::IdbRequest count = within(transaction);
    count.mutable_count()->set_store(store.id());
    count.mutable_count()->set_index(store.indexes(0).id());
    CHECK(idb.ok(count).count().count() == 3 * there + 1);
  }
  Idb idb(path);
  auto check = idb.database().prepare("PRAGMA integrity_check");
  REQUIRE(check);
  REQUIRE((*check)->step());
  CHECK((*check)->text(0) == "ok");
  CHECK(answered >= kRounds);
}

}  // namespace
}  // namespace kai::test
