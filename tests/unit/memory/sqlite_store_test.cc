#include "supervisor/memory/sqlite_store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/memory/sqlite_backend.h"

namespace kai {
namespace {

klp::MemoryRequest idb(const std::function<void(klp::IdbRequest&)>& fill) {
  klp::MemoryRequest request;
  fill(*request.mutable_indexed_db());
  return request;
}

klp::MemoryRequest begin(klp::IdbMode mode, std::uint64_t version = 0) {
  return idb([&](klp::IdbRequest& request) {
    request.mutable_begin()->set_database("db");
    request.mutable_begin()->set_mode(mode);
    request.mutable_begin()->set_version(version);
    if (mode != klp::VERSIONCHANGE) request.mutable_begin()->add_scope(1);
  });
}

klp::MemoryRequest within(std::uint64_t transaction, const std::function<void(klp::IdbRequest&)>& fill) {
  return idb([&](klp::IdbRequest& request) {
    request.set_transaction(transaction);
    fill(request);
  });
}

klp::MemoryRequest commit(std::uint64_t transaction) {
  return within(transaction, [](klp::IdbRequest& request) { request.mutable_commit(); });
}

klp::MemoryRequest put(std::uint64_t transaction, const std::string& key, const std::string& value) {
  return within(transaction, [&](klp::IdbRequest& request) {
    request.mutable_put()->set_store(1);
    request.mutable_put()->set_key(key);
    request.mutable_put()->set_value(value);
  });
}

std::uint64_t transaction_of(const klp::MemoryAnswer& answer) {
  REQUIRE_MESSAGE(answer.indexed_db().has_begun(), answer.error().message());
  return answer.indexed_db().begun().transaction();
}

// A database "db" with the object store 1.
void make_database(MemoryClient& memory) {
  const std::uint64_t upgrade = transaction_of(memory.ask(begin(klp::VERSIONCHANGE, 1)));
  const auto store = memory.ask(within(upgrade, [](klp::IdbRequest& request) {
    request.mutable_create_store()->set_name("events");
    request.mutable_create_store()->set_key_path_json("null");
  }));
  REQUIRE(store.indexed_db().id().id() == 1);
  REQUIRE(memory.ask(commit(upgrade)).has_indexed_db());
}

std::uint64_t records(MemoryClient& memory) {
  const std::uint64_t reader = transaction_of(memory.ask(begin(klp::READONLY)));
  const auto answer =
      memory.ask(within(reader, [](klp::IdbRequest& request) { request.mutable_count()->set_store(1); }));
  REQUIRE(memory.ask(commit(reader)).has_indexed_db());
  return answer.indexed_db().count().count();
}

// Something asked and not waited for.
struct Pending {
  std::optional<klp::MemoryAnswer> answer;
  Pending(MemoryClient& memory, klp::MemoryRequest request) {
    memory.store().perform(std::move(request), [this](klp::MemoryAnswer&& said) { answer = std::move(said); });
  }
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;
  const klp::MemoryAnswer& wait(MemoryClient& memory) {
    memory.loop().run_until([this] { return answer.has_value(); });
    return *answer;
  }
};

Fd memory_file() {
  return Fd(memfd_create("export", MFD_CLOEXEC));
}

// The store keeps a descriptor of the same open file: its position is the caller's to set back.
Fd again(const Fd& file) {
  lseek(file.get(), 0, SEEK_SET);
  return Fd(fcntl(file.get(), F_DUPFD_CLOEXEC, 0));
}

}  // namespace

TEST_CASE("sqlite: the conformance suite") {
  const SqliteBackend sqlite;
  check_conformance(sqlite.backend);
}

TEST_CASE("memory: the conformance suite, without waiting for the disk") {
  const SqliteBackend memory({.durable = false});
  check_conformance(memory.backend);
}

TEST_CASE("indexeddb: the conformance suite of keys and values") {
  const SqliteBackend indexed_db({.indexed_db = true});
  check_conformance(indexed_db.backend);
}

TEST_CASE("sqlite with encryption: the conformance suite") {
  SqliteBackend sealed;
  sealed.key = SealKey{1, 2, 3};
  check_conformance(sealed.backend);
}

TEST_CASE("a store may be ended by whom it answers") {
  const SqliteBackend sqlite;
  TestClock clock;
  EventLoop loop;
  auto store = make_sqlite_store(loop, clock.get(), MemoryTerms{"conformer", 1'000, 0, {}, {}}, {sqlite.path()});
  int answered = 0;
  store->open([&](MemoryOutcome<>&&) {
    for (int i = 0; i < 3; ++i) {
      store->perform(set_request("k", "1"), [&](klp::MemoryAnswer&&) {
        if (++answered == 1) store.reset();
      });
    }
  });
  loop.run_until([&] { return answered == 3; });
  CHECK(store == nullptr);
}

TEST_CASE("large answers are given in turn, in their order") {
  const SqliteBackend sqlite({.indexed_db = true});
  MemoryClient memory(sqlite.backend, 8 << 20);
  const std::string value = '"' + std::string((1 << 20) - 2, 'x') + '"';
  REQUIRE(memory.set("k", value).has_written());
  std::vector<int> order;
  constexpr int kReads = 60;
  for (int i = 0; i < kReads; ++i) {
    klp::MemoryRequest get;
    get.mutable_get()->add_keys("k");
    memory.store().perform(std::move(get), [&order, &value, i](klp::MemoryAnswer&& answer) {
      CHECK(answer.got().entries_size() == 1);
      if (answer.got().entries_size() == 1) CHECK(answer.got().entries(0).value() == (i < 40 ? value : "2"));
      order.push_back(i);
    });
    if (i == 39) memory.store().perform(set_request("k", "2"), [](klp::MemoryAnswer&&) {});
  }
  std::size_t most_at_once = 0;
  std::size_t before = 0;
  memory.loop().run_until([&] {
    most_at_once = std::max(most_at_once, order.size() - before);
    before = order.size();
    return order.size() == kReads;
  });
  CHECK(std::is_sorted(order.begin(), order.end()));
  CHECK(most_at_once < 40);
}

TEST_CASE("large IndexedDB answers are given in turn, in their order") {
  const SqliteBackend sqlite({.indexed_db = true});
  MemoryClient memory(sqlite.backend, 8 << 20);
  make_database(memory);
  const std::uint64_t writer = transaction_of(memory.ask(begin(klp::READWRITE)));
  REQUIRE(memory.ask(put(writer, "a", std::string(1'000'000, 'x'))).has_indexed_db());
  std::vector<int> order;
  constexpr int kReads = 40;
  for (int i = 0; i < kReads; ++i) {
    auto read = within(writer, [](klp::IdbRequest& request) { request.mutable_read()->mutable_span()->set_store(1); });
    memory.store().perform(std::move(read), [&order, i](klp::MemoryAnswer&& answer) {
      CHECK(answer.indexed_db().records().records_size() == 1);
      order.push_back(i);
    });
  }
  const klp::MemoryAnswer last = memory.ask(commit(writer));
  REQUIRE_MESSAGE(last.has_indexed_db(), last.error().message());
  CHECK(order.size() == kReads);
  CHECK(std::is_sorted(order.begin(), order.end()));
}

TEST_CASE("a store waits for the end of the one before it on the same file") {
  const SqliteBackend sqlite;
  TestClock clock;
  EventLoop loop;
  const MemoryTerms terms{"conformer", 1 << 20, 0, {}, {}};
  std::unique_ptr<MemoryStore> store;
  std::uint64_t last = 0;
  for (int round = 0; round < 30; ++round) {
    std::optional<MemoryOutcome<>> opened;
    auto next = make_sqlite_store(loop, clock.get(), terms, {sqlite.path()});
    store = std::move(next);  // the one before ends with what it has under way
    if (round % 3 == 2) {
      store->clear([&](MemoryOutcome<>&& outcome) { opened = std::move(outcome); });
    } else {
      store->open([&](MemoryOutcome<>&& outcome) { opened = std::move(outcome); });
    }
    loop.run_until([&] { return opened.has_value(); });
    REQUIRE_MESSAGE(*opened, opened->error().message());
    std::optional<klp::MemoryAnswer> first;
    store->perform(set_request("k", "1"), [&](klp::MemoryAnswer&& answer) { first = std::move(answer); });
    loop.run_until([&] { return first.has_value(); });
    REQUIRE_MESSAGE(first->has_written(), first->error().message());
    if (round % 3 != 2) CHECK(first->written().versions(0) > last);
    last = first->written().versions(0);
    for (int i = 0; i < 50; ++i) store->perform(set_request("k" + std::to_string(i), "1"), {});
    loop.run_until([] { return true; });  // begins the job
  }
}

TEST_CASE("a message is UTF-8 and drives no terminal, whatever is in it") {
  const klp::MemoryError error = memory_error("INVALID", "the name \xff\x1b[31m");
  CHECK(error.message() == "the name \\xff\\e[31m");
}

TEST_CASE("keys and values wait for an IndexedDB writer, and it for them") {
  const SqliteBackend sqlite({.indexed_db = true});
  MemoryClient memory(sqlite.backend);
  make_database(memory);
  const std::uint64_t writer = transaction_of(memory.ask(begin(klp::READWRITE)));
  Pending key(memory, set_request("k", "1"));
  Pending second(memory, begin(klp::READWRITE));
  REQUIRE(memory.ask(put(writer, "a", "value")).has_indexed_db());
  CHECK_FALSE(key.answer);
  CHECK_FALSE(second.answer);
  REQUIRE(memory.ask(commit(writer)).has_indexed_db());
  CHECK(key.wait(memory).has_written());
  const std::uint64_t next = transaction_of(second.wait(memory));
  CHECK(memory.store().usage().entries == 2);
  CHECK(memory.store().usage().bytes == 2 + 6);
  CHECK(code_of(memory.ask(put(writer, "b", "value"))) == "NOT_FOUND");
  const klp::MemoryAnswer last = memory.ask(commit(next));
  REQUIRE_MESSAGE(last.has_indexed_db(), last.error().message());
}

TEST_CASE("the end of a session takes back what was not committed") {
  const SqliteBackend sqlite({.indexed_db = true});
  MemoryClient memory(sqlite.backend);
  make_database(memory);
  const std::uint64_t writer = transaction_of(memory.ask(begin(klp::READWRITE)));
  REQUIRE(memory.ask(put(writer, "a", "value")).has_indexed_db());
  Pending waits(memory, begin(klp::READWRITE));
  Pending key(memory, set_request("k", "1"));
  memory.store().end_session();
  CHECK(code_of(waits.wait(memory)) == "UNAVAILABLE");
  CHECK(key.wait(memory).has_written());
  CHECK(code_of(memory.ask(commit(writer))) == "NOT_FOUND");
  CHECK(records(memory) == 0);
  CHECK(memory.store().usage().bytes == 2);

  // One that begins in the same round as the session's end does not stay open.
  Pending begins(memory, begin(klp::READWRITE));
  Pending in_between(memory, begin(klp::READONLY));
  memory.store().end_session();
  static_cast<void>(begins.wait(memory));
  static_cast<void>(in_between.wait(memory));
  REQUIRE(memory.ask(commit(transaction_of(memory.ask(begin(klp::READWRITE))))).has_indexed_db());
}

TEST_CASE("an export comes back whole, into the same backend and another") {
  const SqliteBackend sqlite({.indexed_db = true});
  MemoryClient memory(sqlite.backend);
  make_database(memory);
  const std::uint64_t writer = transaction_of(memory.ask(begin(klp::READWRITE)));
  for (const char* key : {"a", "b"}) REQUIRE(memory.ask(put(writer, key, "value")).has_indexed_db());
  REQUIRE(memory.ask(commit(writer)).has_indexed_db());
  REQUIRE(memory.set("k", "{\"a\": 1}").has_written());
  const std::uint64_t version = memory.get("k").got().entries(0).version();
  REQUIRE(memory.set_for("short", "1", 5'000).has_written());
  REQUIRE(memory.set_for("gone", "1", 10).has_written());
  memory.clock().advance(std::chrono::seconds(1));

  const Fd file = memory_file();
  REQUIRE(memory.wait([&](auto done) { memory.store().save(again(file), "2026-05-04T13:00:00.000Z", done); }));
  const MemoryUsage before = memory.store().usage();
  REQUIRE(memory.clear());
  REQUIRE(memory.set("other", "1").has_written());
  REQUIRE(memory.wait([&](auto done) { memory.store().restore(again(file), done); }));
  CHECK(memory.value("other") == "(none)");
  CHECK(memory.value("k") == "{\"a\": 1}");
  CHECK(memory.get("k").got().entries(0).version() == version);
  CHECK(memory.value("gone") == "(none)");
  memory.clock().advance(std::chrono::seconds(3));
  CHECK(memory.value("short") == "1");
  memory.clock().advance(std::chrono::seconds(2));
  CHECK(memory.value("short") == "(none)");
  CHECK(memory.store().usage().entries + 2 == before.entries);
  REQUIRE(memory.reopen());
  CHECK(memory.store().usage().entries == 3);

  SUBCASE("a changed file changes nothing") {
    REQUIRE(pwrite(file.get(), "Z", 1, 120) == 1);
    const auto refused = memory.wait([&](auto done) { memory.store().restore(again(file), done); });
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code() == "INVALID");
    CHECK(memory.value("k") == "{\"a\": 1}");
    CHECK(memory.store().usage().entries == 3);
  }
  SUBCASE("another backend has no IndexedDB") {
    const SqliteBackend plain;
    MemoryClient other(plain.backend);
    REQUIRE(other.set("mine", "1").has_written());
    const auto refused = other.wait([&](auto done) { other.store().restore(again(file), done); });
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code() == "INVALID");
    CHECK(other.value("mine") == "1");
  }
  SUBCASE("a smaller quota refuses it") {
    const SqliteBackend small_files({.indexed_db = true});
    MemoryClient small(small_files.backend, 2 * kQuotaBytesPerEntry);
    REQUIRE(small.set("mine", "1").has_written());
    const auto refused = small.wait([&](auto done) { small.store().restore(again(file), done); });
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code() == "QUOTA_EXCEEDED");
    CHECK(small.value("mine") == "1");
    CHECK(small.store().usage().bytes == 5);
  }
}

}  // namespace kai
