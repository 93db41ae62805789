#include "tests/unit/memory/indexed_db_fixture.h"

namespace kai::test {
namespace {

/// A database d with a store, a plain, a unique and a multiEntry index; committed.
struct Made {
  explicit Made(std::uint64_t max_bytes = 8 << 20, bool sealed = false) : idb(max_bytes, sealed) {
    const auto transaction = idb.upgrade(1);
    store = idb.create_store(transaction, "s", true);
    plain = idb.create_index(transaction, store, "plain");
    unique = idb.create_index(transaction, store, "unique", true);
    multi = idb.create_index(transaction, store, "multi", false, true);
    other = idb.create_store(transaction, "other");
    idb.commit(transaction);
  }
  Idb idb;
  std::uint32_t store = 0, plain = 0, unique = 0, multi = 0, other = 0;
};

klp::IdbRequest add_request(std::uint64_t transaction, std::uint32_t store, const std::string& key,
                            const std::string& value) {
  klp::IdbRequest request = put_request(transaction, store, key, value);
  request.mutable_put()->set_no_overwrite(true);
  return request;
}

klp::IdbRequest index_record(std::uint64_t transaction, std::uint32_t store, std::uint32_t index,
                             const std::string& primary_key, const std::vector<std::string>& keys) {
  klp::IdbRequest request = within(transaction);
  klp::IdbIndexRecord& record = *request.mutable_index_record();
  record.set_store(store);
  record.set_index(index);
  record.set_primary_key(primary_key);
  for (const std::string& key : keys) record.add_keys(key);
  return request;
}

klp::IdbRequest remove_request(std::uint64_t transaction, std::uint32_t store, const std::string& lower,
                               const std::string& upper, bool lower_open = false, bool upper_open = false) {
  klp::IdbRequest request = within(transaction);
  request.mutable_remove()->set_store(store);
  klp::IdbRange& range = *request.mutable_remove()->mutable_range();
  range.set_lower(lower);
  range.set_upper(upper);
  range.set_lower_open(lower_open);
  range.set_upper_open(upper_open);
  return request;
}

klp::IdbRequest clear_request(std::uint64_t transaction, std::uint32_t store) {
  klp::IdbRequest request = within(transaction);
  request.mutable_clear()->set_store(store);
  return request;
}

TEST_CASE("put replaces, add does not, and index keys are what the last put said") {
  Made made;
  Idb& idb = made.idb;
  const auto transaction = idb.begin(klp::READWRITE);
  idb.put(transaction, made.store, "k", "v1", {{made.plain, "p"}, {made.multi, "m1"}, {made.multi, "m2"}});
  CHECK(idb.refused(add_request(transaction, made.store, "k", "v2")) == "CONFLICT");
  CHECK(idb.all(transaction, made.store) == "k=v1");
  CHECK(idb.all(transaction, made.store, made.multi) == "m1/k=v1 m2/k=v1");
  idb.put(transaction, made.store, "k", "longer", {{made.multi, "m3"}});
  CHECK(idb.all(transaction, made.store, made.plain).empty());
  CHECK(idb.all(transaction, made.store, made.multi) == "m3/k=longer");
  CHECK(idb.account().used().bytes == 1 + 6 + 2);
  CHECK(idb.account().used().entries == 1);
  idb.ok(add_request(transaction, made.store, "a", ""));
  CHECK(idb.all(transaction, made.store) == "a= k=longer");
  idb.check_usage();
  idb.commit(transaction);
  idb.check_usage();
}

TEST_CASE("a unique index: taken by another record is a CONFLICT that changes nothing, by the same is none") {
  Made made;
  Idb& idb = made.idb;
  const auto transaction = idb.begin(klp::READWRITE);
  idb.put(transaction, made.store, "a", "1", {{made.unique, "u"}});
  idb.put(transaction, made.store, "a", "2", {{made.unique, "u"}});
  idb.put(transaction, made.store, "b", "3", {{made.unique, "w"}});
  const MemoryUsage before = idb.account().used();
  klp::IdbRequest taken = put_request(transaction, made.store, "b", "4", {{made.plain, "p"}, {made.unique, "u"}});
  taken.mutable_put()->set_next_key(77);
  CHECK(idb.refused(taken) == "CONFLICT");
  CHECK(idb.refused(put_request(transaction, made.store, "c", "5", {{made.unique, "u"}})) == "CONFLICT");
  CHECK(idb.all(transaction, made.store) == "a=2 b=3");
  CHECK(idb.all(transaction, made.store, made.unique) == "u/a=2 w/b=3");
  CHECK(idb.all(transaction, made.store, made.plain).empty());
  CHECK(idb.account().used().bytes == before.bytes);
  idb.commit(transaction);  // the transaction went on
  CHECK(idb.describe().stores(0).next_key() == 1);
  idb.check_usage();
}

TEST_CASE("what a put is refused for") {
  Made made;
  Idb& idb = made.idb;
  const auto reader = idb.begin(klp::READONLY);
  CHECK(idb.refused(put_request(reader, made.store, "k", "v")) == "INVALID");
  CHECK(idb.refused(clear_request(reader, made.store)) == "INVALID");
  CHECK(idb.refused(remove_request(reader, made.store, "", "")) == "INVALID");
  idb.commit(reader);

  const auto transaction = idb.begin(klp::READWRITE, {made.store});
  CHECK(idb.refused(put_request(transaction, made.store, "", "v")) == "INVALID");
  CHECK(idb.refused(put_request(transaction, made.store, std::string(kMaxIdbKeyBytes + 1, 'k'), "v")) == "TOO_LARGE");
  CHECK(idb.refused(put_request(transaction, made.store, "k", std::string(kMaxMemoryValueBytes + 1, 'v'))) ==
        "TOO_LARGE");
  CHECK(idb.refused(put_request(transaction, made.other, "k", "v")) == "INVALID");
  CHECK(idb.refused(put_request(transaction, 999, "k", "v")) == "NOT_FOUND");
  CHECK(idb.refused(put_request(transaction, made.store, "k", "v", {{999, "x"}})) == "NOT_FOUND");
  CHECK(idb.refused(put_request(transaction, made.store, "k", "v", {{made.plain, ""}})) == "INVALID");
  CHECK(idb.refused(put_request(transaction, made.store, "k", "v",
                                {{made.plain, std::string(kMaxIdbKeyBytes + 1, 'x')}})) == "TOO_LARGE");
  CHECK(idb.refused(put_request(transaction, made.store, "k", "v", {{made.plain, "x"}, {made.plain, "y"}})) ==
        "INVALID");
  CHECK(idb.refused(put_request(transaction, made.store, "k", "v", {{made.multi, "x"}, {made.multi, "x"}})) ==
        "INVALID");
  IndexKeys many;
  for (int i = 0; i <= kMaxIdbIndexKeys; ++i) many.emplace_back(made.multi, std::to_string(i));
  CHECK(idb.refused(put_request(transaction, made.store, "k", "v", many)) == "TOO_LARGE");
  klp::IdbRequest generator = put_request(transaction, made.store, "k", "v");
  generator.mutable_put()->set_next_key(kMaxIdbNextKey + 1);
  CHECK(idb.refused(generator) == "INVALID");
  CHECK(idb.refused(put_request(transaction + 1, made.store, "k", "v")) == "NOT_FOUND");
  klp::IdbRequest of_index = remove_request(transaction, made.store, "", "");
  of_index.mutable_remove()->set_index(made.plain);
  CHECK(idb.refused(of_index) == "INVALID");
  klp::IdbRequest clear_index = clear_request(transaction, made.store);
  clear_index.mutable_clear()->set_index(made.plain);
  CHECK(idb.refused(clear_index) == "INVALID");
  CHECK(idb.refused(remove_request(transaction, made.store, std::string(kMaxIdbKeyBytes + 1, 'k'), "")) == "TOO_LARGE");
  CHECK(idb.all(transaction, made.store).empty());
  CHECK(idb.account().used().bytes == 0);

  many.pop_back();
  idb.put(transaction, made.store, std::string(kMaxIdbKeyBytes, '\xff'), std::string(kMaxMemoryValueBytes, 'v'), many);
  idb.check_usage();
  idb.abort(transaction);
  const auto all = idb.begin(klp::READWRITE);
  klp::IdbRequest no_generator = put_request(all, made.other, "k", "v");
  no_generator.mutable_put()->set_next_key(2);
  CHECK(idb.refused(no_generator) == "INVALID");
}

TEST_CASE("the quota is exact, to the byte and to the record") {
  Made made(6400);  // 100 records
  Idb& idb = made.idb;
  const auto transaction = idb.begin(klp::READWRITE);
  idb.put(transaction, made.store, "k", std::string(6000, 'v'), {{made.plain, std::string(399, 'i')}});
  CHECK(idb.account().used().bytes == 6400);
  CHECK(idb.refused(put_request(transaction, made.store, "k", std::string(6001, 'v'),
                                {{made.plain, std::string(399, 'i')}})) == "QUOTA_EXCEEDED");
  CHECK(idb.refused(put_request(transaction, made.store, "l", "")) == "QUOTA_EXCEEDED");
  idb.put(transaction, made.store, "k", std::string(6001, 'v'), {{made.plain, std::string(398, 'i')}});
  idb.check_usage();
  idb.ok(remove_request(transaction, made.store, "k", "k"));
  CHECK(idb.account().used().bytes == 0);
  for (int i = 0; i < 100; ++i) idb.put(transaction, made.store, std::to_string(i), "");
  CHECK(idb.refused(put_request(transaction, made.store, "one more", "")) == "QUOTA_EXCEEDED");
  CHECK(idb.account().used().entries == 100);
  idb.check_usage();
  idb.commit(transaction);
}

TEST_CASE("remove by range and clear give back what went") {
  Made made;
  Idb& idb = made.idb;
  const auto transaction = idb.begin(klp::READWRITE);
  const auto fill = [&] {
    for (const char* key : {"a", "b", "bb", "c", "d"}) {
      idb.put(transaction, made.store, key, "v", {{made.plain, "p"}, {made.multi, std::string("m") + key}});
    }
  };
  fill();
  idb.put(transaction, made.other, "b", "stays");
  idb.ok(remove_request(transaction, made.store, "b", "c", true, false));
  CHECK(idb.all(transaction, made.store, made.plain, klp::NEXT) == "p/a=v p/b=v p/d=v");
  CHECK(idb.all(transaction, made.store, made.multi, klp::NEXT) == "ma/a=v mb/b=v md/d=v");
  idb.check_usage();
  fill();
  idb.ok(remove_request(transaction, made.store, "b", "c", false, true));
  CHECK(idb.all(transaction, made.store) == "a=v c=v d=v");
  idb.ok(remove_request(transaction, made.store, "c", ""));
  CHECK(idb.all(transaction, made.store) == "a=v");
  idb.ok(remove_request(transaction, made.store, "z", "a"));  // empty: nothing is in it
  idb.check_usage();
  fill();
  idb.ok(clear_request(transaction, made.store));
  CHECK(idb.all(transaction, made.store).empty());
  CHECK(idb.all(transaction, made.store, made.multi).empty());
  CHECK(idb.all(transaction, made.other) == "b=stays");
  CHECK(idb.account().used().bytes == 6);
  idb.check_usage();
  idb.commit(transaction);
  idb.check_usage();
}

TEST_CASE("an abort restores records, quota and key generator") {
  Made made;
  Idb& idb = made.idb;
  auto transaction = idb.begin(klp::READWRITE);
  klp::IdbRequest put = put_request(transaction, made.store, "k", "v", {{made.plain, "p"}});
  put.mutable_put()->set_next_key(5);
  idb.ok(put);
  idb.commit(transaction);
  const MemoryUsage before = idb.account().used();

  transaction = idb.begin(klp::READWRITE);
  put = put_request(transaction, made.store, "l", "w");
  put.mutable_put()->set_next_key(9);
  idb.ok(put);
  idb.put(transaction, made.store, "k", "changed", {{made.unique, "u"}});
  idb.ok(clear_request(transaction, made.other));
  CHECK(idb.describe().stores(0).next_key() == 5);  // of a transaction that is open nobody is told
  idb.abort(transaction);
  CHECK(idb.account().used().bytes == before.bytes);
  CHECK(idb.account().used().entries == before.entries);
  CHECK(idb.describe().stores(0).next_key() == 5);
  transaction = idb.begin(klp::READONLY);
  CHECK(idb.all(transaction, made.store, made.plain) == "p/k=v");
  CHECK(idb.all(transaction, made.store, made.unique).empty());
  idb.check_usage();
  idb.engine().abort_all();

  transaction = idb.begin(klp::READWRITE);
  idb.put(transaction, made.store, "x", "y");
  idb.engine().abort_all();
  CHECK(!idb.engine().writing());
  CHECK(!idb.database().in_transaction());
  idb.check_usage();
  CHECK(idb.account().used().bytes == before.bytes);
}

TEST_CASE("index_record fills a new index") {
  Made made;
  Idb& idb = made.idb;
  auto transaction = idb.begin(klp::READWRITE);
  idb.put(transaction, made.store, "a", "1");
  idb.put(transaction, made.store, "b", "2");
  CHECK(idb.refused(index_record(transaction, made.store, made.plain, "a", {"x"})) == "INVALID");
  idb.commit(transaction);

  transaction = idb.upgrade(2);
  const auto unique = idb.create_index(transaction, made.store, "u2", true);
  const auto multi = idb.create_index(transaction, made.store, "m2", true, true);
  idb.ok(index_record(transaction, made.store, unique, "a", {"x"}));
  CHECK(idb.refused(index_record(transaction, made.store, unique, "b", {"x"})) == "CONFLICT");
  CHECK(idb.refused(index_record(transaction, made.store, unique, "a", {"y"})) == "INVALID");
  CHECK(idb.refused(index_record(transaction, made.store, unique, "b", {"y", "z"})) == "INVALID");
  CHECK(idb.refused(index_record(transaction, made.store, unique, "zz", {"y"})) == "NOT_FOUND");
  CHECK(idb.refused(index_record(transaction, made.store, unique, "", {"y"})) == "INVALID");
  CHECK(idb.refused(index_record(transaction, made.store, unique, "b", {""})) == "INVALID");
  CHECK(idb.refused(index_record(transaction, made.store, 999, "b", {"y"})) == "NOT_FOUND");
  CHECK(idb.refused(index_record(transaction, made.store, 0, "b", {"y"})) == "NOT_FOUND");
  idb.ok(index_record(transaction, made.store, unique, "b", {"y"}));
  idb.ok(index_record(transaction, made.store, multi, "a", {"p", "q"}));
  CHECK(idb.refused(index_record(transaction, made.store, multi, "b", {"r", "q"})) == "CONFLICT");
  CHECK(idb.all(transaction, made.store, multi) == "p/a=1 q/a=1");
  idb.ok(index_record(transaction, made.store, multi, "b", {}));
  CHECK(idb.all(transaction, made.store, unique) == "x/a=1 y/b=2");
  idb.check_usage();
  idb.commit(transaction);
  idb.check_usage();
}

TEST_CASE("values are sealed for their place, and the quota counts what the agent wrote") {
  Made made(8 << 20, true);
  Idb& idb = made.idb;
  auto transaction = idb.begin(klp::READWRITE);
  idb.put(transaction, made.store, "a", "secret one");
  idb.put(transaction, made.store, "a", "secret");
  idb.put(transaction, made.store, "b", "other", {{made.plain, "p"}});
  idb.commit(transaction);
  CHECK(idb.account().used().bytes == 1 + 6 + 1 + 5 + 1);
  idb.check_usage();
  CHECK(*idb.database().number("SELECT count(*) FROM idb_record WHERE instr(value, 'secret') > 0") == 0);
  transaction = idb.begin(klp::READONLY);
  CHECK(idb.all(transaction, made.store) == "a=secret b=other");
  CHECK(idb.all(transaction, made.store, made.plain) == "p/b=other");
  idb.commit(transaction);

  // Moved to another record by somebody who can write the file: it does not open.
  REQUIRE(idb.database().execute("UPDATE idb_record SET value=(SELECT value FROM idb_record WHERE key=x'61')"));
  transaction = idb.begin(klp::READONLY);
  klp::IdbRequest read = within(transaction);
  read.mutable_read()->mutable_span()->set_store(made.store);
  CHECK(idb.refused(read) == "INTERNAL");
  read.mutable_read()->set_keys_only(true);
  CHECK(idb.refused(read) == "done");
}

TEST_CASE("a file that may not grow refuses what does not fit, and the transaction that SQLite ended is over") {
  Made made;
  Idb& idb = made.idb;
  auto transaction = idb.begin(klp::READWRITE);
  idb.put(transaction, made.store, "k", "v");
  idb.commit(transaction);
  const auto pages = idb.database().number("PRAGMA page_count");
  REQUIRE(pages);
  REQUIRE(idb.database().execute("PRAGMA max_page_count=" + std::to_string(*pages + 20)));
  transaction = idb.begin(klp::READWRITE);
  std::string last = "done";
  for (int i = 0; i < 1000 && last == "done"; ++i) {
    last = idb.refused(put_request(transaction, made.store, "k" + std::to_string(i), std::string(2000, 'v'),
                                   {{made.plain, "p"}, {made.multi, "m"}}));
  }
  CHECK(last == "QUOTA_EXCEEDED");
  if (idb.engine().is_open(transaction)) {
    idb.check_usage();
    idb.abort(transaction);
  }
  CHECK(!idb.engine().writing());
  CHECK(!idb.database().in_transaction());
  idb.check_usage();
  CHECK(idb.account().used().bytes == 2);
  transaction = idb.begin(klp::READONLY);
  CHECK(idb.all(transaction, made.store) == "k=v");
}

}  // namespace
}  // namespace kai::test
