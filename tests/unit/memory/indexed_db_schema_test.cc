#include "supervisor/memory/schedule.h"
#include "tests/unit/memory/indexed_db_fixture.h"

namespace kai::test {
namespace {

klp::IdbRequest rename(std::uint64_t transaction, std::uint32_t store, std::uint32_t index, const std::string& name) {
  klp::IdbRequest request = within(transaction);
  klp::IdbRename& change = index == 0 ? *request.mutable_rename_store() : *request.mutable_rename_index();
  change.set_store(store);
  change.set_index(index);
  change.set_name(name);
  return request;
}

klp::IdbRequest remove(std::uint64_t transaction, std::uint32_t store, std::uint32_t index) {
  klp::IdbRequest request = within(transaction);
  klp::IdbTarget& target = index == 0 ? *request.mutable_delete_store() : *request.mutable_delete_index();
  target.set_store(store);
  target.set_index(index);
  return request;
}

klp::IdbRequest make_store(std::uint64_t transaction, const std::string& name, const std::string& key_path) {
  klp::IdbRequest request = within(transaction);
  request.mutable_create_store()->set_name(name);
  request.mutable_create_store()->set_key_path_json(key_path);
  return request;
}

klp::IdbRequest delete_database(const std::string& name) {
  klp::IdbRequest request;
  request.mutable_delete_database()->set_name(name);
  return request;
}

TEST_CASE("a VERSIONCHANGE makes the database, and an abort undoes it") {
  Idb idb;
  CHECK(idb.describe().version() == 0);
  const auto begun = idb.ok(upgrade_request("d", 3)).begun();
  CHECK(begun.database().version() == 0);
  CHECK(begun.database().name() == "d");
  CHECK(idb.engine().writing());
  idb.create_store(begun.transaction(), "s");
  // Nobody is told of what is not committed.
  CHECK(idb.describe().version() == 0);
  CHECK(idb.databases().empty());
  idb.abort(begun.transaction());
  CHECK(!idb.engine().writing());
  CHECK(idb.describe().version() == 0);

  const auto again = idb.upgrade(3);
  CHECK(idb.engine().is_open(again));
  idb.commit(again);
  CHECK(!idb.engine().is_open(again));
  CHECK(idb.databases() == "d:3");
  const auto next = idb.ok(upgrade_request("d", 4)).begun();
  CHECK(next.database().version() == 3);
  CHECK(idb.databases() == "d:3");
  idb.abort(next.transaction());
  CHECK(idb.databases() == "d:3");
}

TEST_CASE("versions grow, and a transaction needs its database") {
  Idb idb;
  CHECK(idb.refused(upgrade_request("d", 0)) == "INVALID");
  CHECK(idb.refused(upgrade_request("d", kMaxIdbVersion + 1)) == "INVALID");
  CHECK(idb.refused(begin_request(klp::READONLY, "d", {})) == "NOT_FOUND");
  CHECK(idb.refused(begin_request(klp::READWRITE, "d", {})) == "NOT_FOUND");
  CHECK(idb.refused(upgrade_request(std::string(kMaxIdbNameBytes + 1, 'n'), 1)) == "TOO_LARGE");
  klp::IdbRequest odd = begin_request(klp::READONLY, "d", {});
  odd.mutable_begin()->set_mode(static_cast<klp::IdbMode>(3));
  CHECK(idb.refused(odd) == "INVALID");
  CHECK(idb.refused({}) == "INVALID");
  idb.commit(idb.upgrade(kMaxIdbVersion));
  CHECK(idb.refused(upgrade_request("d", kMaxIdbVersion)) == "INVALID");
  CHECK(idb.refused(begin_request(klp::READONLY, "d", {1})) == "NOT_FOUND");
  CHECK(!idb.engine().writing());
  CHECK(!idb.database().in_transaction());
}

TEST_CASE("names are any bytes, the empty one too") {
  Idb idb;
  const std::string odd("\0\xff\xed\xa0\x80 \n", 7);
  for (const std::string& name : {std::string(), odd, std::string(kMaxIdbNameBytes, 'n')}) {
    const auto transaction = idb.upgrade(1, name);
    const auto store = idb.create_store(transaction, name);
    idb.create_index(transaction, store, name);
    idb.put(transaction, store, "k", "v");
    idb.commit(transaction);
    const auto database = idb.describe(name);
    REQUIRE(database.stores_size() == 1);
    CHECK(database.stores(0).name() == name);
    CHECK(database.stores(0).indexes(0).name() == name);
  }
  idb.check_usage();
}

TEST_CASE("stores and indexes: made, found again, renamed, deleted") {
  Idb idb;
  auto transaction = idb.upgrade(1);
  const auto a = idb.create_store(transaction, "a", true);
  const auto b = idb.create_store(transaction, "b");
  const auto i = idb.create_index(transaction, a, "i", true, true);
  const auto j = idb.create_index(transaction, a, "j");
  CHECK(i != j);
  idb.commit(transaction);
  idb.reopen();
  auto database = idb.describe();
  REQUIRE(database.stores_size() == 2);
  CHECK(database.stores(0).id() == a);
  CHECK(database.stores(0).auto_increment());
  CHECK(database.stores(0).next_key() == 1);
  CHECK(database.stores(0).key_path_json() == "null");
  REQUIRE(database.stores(0).indexes_size() == 2);
  CHECK(database.stores(0).indexes(0).id() == i);
  CHECK(database.stores(0).indexes(0).unique());
  CHECK(database.stores(0).indexes(0).multi_entry());
  CHECK(database.stores(0).indexes(0).key_path_json() == "\"k\"");
  CHECK(!database.stores(1).auto_increment());

  transaction = idb.upgrade(2);
  idb.put(transaction, a, "k", "v", {{i, "x"}, {j, "yy"}});
  CHECK(idb.refused(rename(transaction, a, 0, "b")) == "CONFLICT");
  CHECK(idb.refused(rename(transaction, a, i, "j")) == "CONFLICT");
  idb.ok(rename(transaction, a, 0, "a"));
  idb.ok(rename(transaction, a, 0, "c"));
  idb.ok(rename(transaction, b, 0, "a"));
  idb.ok(rename(transaction, a, i, "k"));
  idb.ok(rename(transaction, a, j, "i"));
  idb.ok(remove(transaction, a, i));
  idb.check_usage();
  CHECK(idb.refused(remove(transaction, a, i)) == "NOT_FOUND");
  CHECK(idb.refused(put_request(transaction, a, "k", "v", {{i, "x"}})) == "NOT_FOUND");
  CHECK(idb.all(transaction, a, j) == "yy/k=v");
  idb.commit(transaction);
  idb.reopen();
  database = idb.describe();
  CHECK(database.stores(0).name() == "c");
  CHECK(database.stores(1).name() == "a");
  CHECK(database.stores(0).indexes(0).name() == "i");
  idb.check_usage();

  transaction = idb.upgrade(3);
  idb.ok(remove(transaction, a, 0));
  CHECK(idb.account().used().bytes == 0);
  CHECK(idb.refused(remove(transaction, a, 0)) == "NOT_FOUND");
  idb.abort(transaction);
  CHECK(idb.account().used().bytes == 4);
  transaction = idb.upgrade(3);
  idb.ok(remove(transaction, a, 0));
  CHECK(idb.create_store(transaction, "c") > b);  // no id is used twice
  idb.commit(transaction);
  idb.check_usage();
}

TEST_CASE("what a change of the schema is refused for") {
  Idb idb;
  auto transaction = idb.upgrade(1);
  const auto store = idb.create_store(transaction, "s");
  const auto other = idb.create_store(transaction, "o");
  const auto index = idb.create_index(transaction, store, "i");
  const std::string long_name(kMaxIdbNameBytes + 1, 'n');
  CHECK(idb.refused(make_store(transaction, "s", "null")) == "CONFLICT");
  CHECK(idb.refused(make_store(transaction, long_name, "null")) == "TOO_LARGE");
  CHECK(idb.refused(make_store(transaction, "t", "")) == "INVALID");
  CHECK(idb.refused(make_store(transaction, "t", "[\"a\"")) == "INVALID");
  CHECK(idb.refused(make_store(transaction, "t", "\"\xff\"")) == "INVALID");
  CHECK(idb.refused(make_store(transaction, "t", '"' + std::string(kMaxIdbKeyPathBytes, 'a') + '"')) == "TOO_LARGE");
  CHECK(idb.refused(rename(transaction, store, 0, long_name)) == "TOO_LARGE");
  CHECK(idb.refused(rename(transaction, store, index, long_name)) == "TOO_LARGE");
  CHECK(idb.refused(rename(transaction, other, index, "x")) == "NOT_FOUND");
  CHECK(idb.refused(rename(transaction, 999, 0, "x")) == "NOT_FOUND");
  CHECK(idb.refused(remove(transaction, other, index)) == "NOT_FOUND");
  klp::IdbRequest no_index = within(transaction);
  no_index.mutable_delete_index()->set_store(store);
  CHECK(idb.refused(no_index) == "NOT_FOUND");
  klp::IdbRequest create = within(transaction);
  create.mutable_create_index()->set_store(store);
  create.mutable_create_index()->mutable_index()->set_name("i");
  create.mutable_create_index()->mutable_index()->set_key_path_json("1");
  CHECK(idb.refused(create) == "CONFLICT");
  create.mutable_create_index()->set_store(999);
  CHECK(idb.refused(create) == "NOT_FOUND");
  idb.commit(transaction);

  transaction = idb.begin(klp::READWRITE);
  CHECK(idb.refused(make_store(transaction, "t", "null")) == "INVALID");
  CHECK(idb.refused(remove(transaction, store, 0)) == "INVALID");
  CHECK(idb.refused(rename(transaction, store, index, "x")) == "INVALID");
  CHECK(idb.refused(make_store(transaction + 1, "t", "null")) == "NOT_FOUND");
  idb.abort(transaction);
  CHECK(idb.refused(remove(transaction, store, 0)) == "NOT_FOUND");
}

TEST_CASE("deleting a database gives all back") {
  Idb idb;
  CHECK(idb.ok(delete_database("d")).database().version() == 0);
  auto transaction = idb.upgrade(1);
  const auto store = idb.create_store(transaction, "s");
  const auto index = idb.create_index(transaction, store, "i");
  CHECK(idb.refused(delete_database("d")) == "BUSY");
  CHECK(idb.refused(upgrade_request("e", 1)) == "BUSY");
  CHECK(idb.refused(begin_request(klp::READONLY, "d", {})) == "BUSY");
  idb.put(transaction, store, "k", "value", {{index, "ii"}});
  idb.commit(transaction);
  transaction = idb.upgrade(1, "e");
  idb.put(transaction, idb.create_store(transaction, "s"), "k", "v");
  idb.commit(transaction);
  CHECK(idb.account().used().bytes == 10);
  CHECK(idb.account().used().entries == 2);

  const auto reader = idb.begin(klp::READONLY);
  CHECK(idb.refused(delete_database("d")) == "BUSY");
  CHECK(idb.refused(begin_request(klp::READWRITE, "d", {})) == "BUSY");
  idb.commit(reader);
  const auto was = idb.ok(delete_database("d")).database();
  CHECK(was.version() == 1);
  CHECK(was.stores(0).indexes(0).id() == index);
  CHECK(idb.databases() == "e:1");
  CHECK(idb.account().used().bytes == 2);
  idb.check_usage();
  idb.reopen();
  CHECK(idb.databases() == "e:1");
  idb.check_usage();
  CHECK(!idb.database().in_transaction());
}

TEST_CASE("so many and no more: databases, stores, indexes, their names together, transactions") {
  Idb idb;
  for (std::size_t i = 0; i < kMaxIdbDatabases; ++i) idb.commit(idb.upgrade(1, "d" + std::to_string(i)));
  CHECK(idb.refused(upgrade_request("d", 1)) == "TOO_LARGE");
  CHECK(!idb.database().in_transaction());
  idb.ok(delete_database("d7"));

  auto transaction = idb.upgrade(1);
  for (std::size_t i = 0; i < kMaxIdbStores; ++i) idb.create_store(transaction, "s" + std::to_string(i));
  CHECK(idb.refused(make_store(transaction, "one more", "null")) == "TOO_LARGE");
  const auto store = idb.describe("d0").stores_size() == 0 ? 1U : 0U;
  CHECK(store == 1U);
  idb.abort(transaction);

  transaction = idb.upgrade(1);
  const auto indexed = idb.create_store(transaction, "s");
  for (std::size_t i = 0; i < kMaxIdbIndexes; ++i) idb.create_index(transaction, indexed, std::to_string(i));
  klp::IdbRequest create = within(transaction);
  create.mutable_create_index()->set_store(indexed);
  create.mutable_create_index()->mutable_index()->set_key_path_json("1");
  CHECK(idb.refused(create) == "TOO_LARGE");
  idb.commit(transaction);

  transaction = idb.upgrade(2);
  const std::string path = '"' + std::string(kMaxIdbKeyPathBytes - 2, 'p') + '"';
  std::string last = "done";
  for (std::size_t i = 0; i < kMaxIdbStores && last == "done"; ++i) {
    last = idb.refused(make_store(transaction, "p" + std::to_string(i), path));
  }
  CHECK(last == "TOO_LARGE");
  idb.commit(transaction);
  CHECK(idb.describe().ByteSizeLong() <= kMaxIdbSchemaBytes);
  CHECK(idb.describe().ByteSizeLong() > kMaxIdbSchemaBytes * 9 / 10);

  std::vector<std::uint64_t> open;
  for (std::size_t i = 0; i < kMaxIdbTransactions; ++i) open.push_back(idb.begin(klp::READONLY, {indexed}));
  CHECK(idb.refused(begin_request(klp::READONLY, "d", {})) == "BUSY");
  idb.engine().abort_all();
  for (const auto one : open) CHECK(!idb.engine().is_open(one));
}

}  // namespace
}  // namespace kai::test
