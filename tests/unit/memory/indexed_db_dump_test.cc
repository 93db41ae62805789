#include <map>

#include "tests/unit/memory/dump_text.h"
#include "tests/unit/memory/indexed_db_fixture.h"

namespace kai::test {
namespace {

std::vector<DumpLine> dump(Idb& idb) {
  std::vector<DumpLine> lines;
  const auto done = idb.engine().dump([&](DumpLine&& line) {
    lines.push_back(std::move(line));
    return Result<>{};
  });
  REQUIRE(done);
  return lines;
}

/// As the store does it: in one transaction of SQLite's. The code of the refusal, or "done".
std::string load(Idb& idb, const std::vector<DumpLine>& lines) {
  const MemoryUsage before = idb.account().used();
  Transaction transaction(idb.database());
  REQUIRE(transaction.begin());
  REQUIRE(idb.engine().clear());
  CHECK(idb.account().used().bytes == 0);
  CHECK(idb.account().used().entries == 0);
  for (const DumpLine& line : lines) {
    if (const auto loaded = idb.engine().load(line); !loaded) {
      idb.account().reset(before);
      return loaded.error().code();
    }
  }
  REQUIRE(idb.engine().finish_load());
  REQUIRE(transaction.commit());
  return "done";
}

/// Two databases with all that there is, and an empty third one.
void fill(Idb& idb) {
  auto transaction = idb.upgrade(7, "b");
  const auto store = idb.create_store(transaction, "s", true);
  const auto plain = idb.create_index(transaction, store, "plain");
  const auto multi = idb.create_index(transaction, store, "multi", true, true);
  idb.create_store(transaction, "empty");
  klp::IdbRequest put = put_request(transaction, store, "k1", std::string("\0v", 2), {{plain, "p"}, {multi, "m"}});
  put.mutable_put()->set_next_key(42);
  idb.ok(put);
  idb.put(transaction, store, "k0", "", {{multi, "n"}, {multi, "o"}});
  idb.commit(transaction);
  transaction = idb.upgrade(1, "a");
  idb.put(transaction, idb.create_store(transaction, "s"), "x", "y");
  idb.commit(transaction);
  idb.commit(idb.upgrade(3, ""));
}

/// A dump as text, its ids numbered in the order in which they come: another file gives others.
std::string text(Idb& idb) {
  std::uint32_t stores = 0, indexes = 0;
  std::map<std::uint32_t, std::uint32_t> numbers;
  auto lines = dump(idb);
  for (DumpLine& line : lines) {
    if (auto* store = std::get_if<IdbDumpStore>(&line)) store->id = ++stores;
    if (auto* index = std::get_if<IdbDumpIndex>(&line)) index->id = numbers[index->id] = ++indexes;
    if (auto* record = std::get_if<IdbDumpRecord>(&line)) {
      for (auto& [index, key] : record->index_keys) index = numbers.at(index);
    }
  }
  const auto made = dump_text({"a1", "2026-05-04T13:00:00.000Z", "indexeddb"}, lines);
  REQUIRE(made);
  return *made;
}

TEST_CASE("a dump goes into another file, and comes out of it the same") {
  for (const bool sealed : {false, true}) {
    Idb from(1 << 20, sealed), to(1 << 20, !sealed);
    fill(from);
    CHECK(load(to, dump(from)) == "done");
    CHECK(text(to) == text(from));
    CHECK(to.databases() == ":3 a:1 b:7");
    CHECK(to.describe("b").stores(0).next_key() == 42);
    CHECK(to.account().used().bytes == from.account().used().bytes);
    to.check_usage();
    to.reopen();
    to.check_usage();
    // Over what is there.
    CHECK(load(to, dump(from)) == "done");
    to.check_usage();
    CHECK(to.databases() == ":3 a:1 b:7");
  }
}

TEST_CASE("the words of whom a dump is told end it") {
  Idb idb;
  fill(idb);
  const auto done = idb.engine().dump([](DumpLine&&) -> Result<> { return failure("full"); });
  REQUIRE(!done);
  CHECK(done.error().what == "full");
}

TEST_CASE("a load that is refused leaves all as it was") {
  Idb idb(1 << 20);
  fill(idb);
  const std::string before = text(idb);
  const IdbDumpDatabase database{"d", 1};
  const IdbDumpStore store{1, "s", "null", false, 1};
  const IdbDumpIndex index{9, "i", "null", true, false};
  const IdbDumpRecord record{"k", "v", {{9, "i"}}};
  const auto refused = [&](const std::vector<DumpLine>& lines, const std::string& code) {
    CHECK(load(idb, lines) == code);
    CHECK(text(idb) == before);
    idb.check_usage();
  };
  refused({store}, "INVALID");
  refused({record}, "INVALID");
  refused({database, index}, "INVALID");
  refused({database, record}, "INVALID");
  refused({database, DumpEntry{}}, "INVALID");
  refused({database, database}, "INVALID");
  refused({IdbDumpDatabase{"d", 0}}, "INVALID");
  refused({IdbDumpDatabase{"d", kMaxIdbVersion + 1}}, "INVALID");
  refused({IdbDumpDatabase{std::string(2000, 'd'), 1}}, "TOO_LARGE");
  refused({database, IdbDumpStore{1, "s", "null", true, 0}}, "INVALID");
  refused({database, IdbDumpStore{1, "s", "nul", true, 1}}, "INVALID");
  refused({database, store, store}, "CONFLICT");
  refused({database, store, index, IdbDumpIndex{9, "j", "null", false, false}}, "INVALID");
  refused({database, store, index, record, record}, "CONFLICT");
  refused({database, store, index, record, IdbDumpRecord{"l", "v", {{9, "i"}}}}, "CONFLICT");
  refused({database, store, index, record, IdbDumpIndex{10, "j", "null", false, false}}, "INVALID");
  refused({database, store, index, IdbDumpRecord{"k", "v", {{8, "i"}}}}, "INVALID");
  refused({database, store, index, IdbDumpRecord{"", "v", {}}}, "INVALID");
  refused({database, store, index, IdbDumpRecord{"k", std::string(1 << 20, 'v'), {}}}, "QUOTA_EXCEEDED");
  // An index of another store: ids are the store's own.
  refused({database, store, index, IdbDumpStore{2, "t", "null", false, 1}, record}, "INVALID");
  CHECK(load(idb, {database, store, index, record}) == "done");
  idb.check_usage();
}

TEST_CASE("values follow the policy on encryption") {
  Idb idb;
  fill(idb);
  const std::string before = text(idb);
  const auto sealed = [&] { return *idb.database().number("SELECT count(*) FROM idb_record WHERE sealed=1"); };
  idb.terms().key = SealKey{7};
  CHECK(text(idb) == before);
  REQUIRE(idb.engine().reseal());
  CHECK(sealed() == 3);
  CHECK(text(idb) == before);
  idb.check_usage();
  idb.terms().old_key = std::exchange(idb.terms().key, std::nullopt);
  REQUIRE(idb.engine().reseal());
  CHECK(sealed() == 0);
  CHECK(text(idb) == before);
  idb.check_usage();
}

}  // namespace
}  // namespace kai::test
