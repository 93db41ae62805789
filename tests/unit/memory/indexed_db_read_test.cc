#include "tests/unit/memory/indexed_db_fixture.h"

namespace kai::test {
namespace {

klp::IdbRequest read_request(std::uint64_t transaction, std::uint32_t store, std::uint32_t index = 0) {
  klp::IdbRequest request = within(transaction);
  request.mutable_read()->mutable_span()->set_store(store);
  request.mutable_read()->mutable_span()->set_index(index);
  return request;
}

std::string keys_of(const klp::IdbRecords& records) {
  std::string text;
  for (const klp::IdbRecord& record : records.records()) {
    if (!text.empty()) text += ' ';
    text += record.key();
    if (!record.primary_key().empty()) text += '/' + record.primary_key();
  }
  return records.more() ? text + " …" : text;
}

struct Made {
  Made() {
    transaction = idb.upgrade(1);
    store = idb.create_store(transaction, "s");
    index = idb.create_index(transaction, store, "i");
    for (const char* key : {"1", "2", "3", "4", "5", "6"}) {
      idb.put(transaction, store, key, "v", {{index, key < std::string("4") ? "a" : "b"}});
    }
  }
  std::string keys(const klp::IdbRequest& request) { return keys_of(idb.ok(request).records()); }
  Idb idb;
  std::uint64_t transaction = 0;
  std::uint32_t store = 0, index = 0;
};

TEST_CASE("directions, of a store and of an index") {
  Made made;
  const auto read = [&](std::uint32_t index, klp::IdbDirection direction) {
    klp::IdbRequest request = read_request(made.transaction, made.store, index);
    request.mutable_read()->set_direction(direction);
    return made.keys(request);
  };
  CHECK(read(0, klp::NEXT) == "1 2 3 4 5 6");
  CHECK(read(0, klp::NEXT_UNIQUE) == "1 2 3 4 5 6");
  CHECK(read(0, klp::PREV) == "6 5 4 3 2 1");
  CHECK(read(0, klp::PREV_UNIQUE) == "6 5 4 3 2 1");
  CHECK(read(made.index, klp::NEXT) == "a/1 a/2 a/3 b/4 b/5 b/6");
  CHECK(read(made.index, klp::NEXT_UNIQUE) == "a/1 b/4");
  CHECK(read(made.index, klp::PREV) == "b/6 b/5 b/4 a/3 a/2 a/1");
  CHECK(read(made.index, klp::PREV_UNIQUE) == "b/4 a/1");
}

TEST_CASE("positions: beyond or from, of a key or of a pair") {
  Made made;
  const auto read = [&](klp::IdbDirection direction, const std::string& key, const std::string& primary,
                        bool inclusive) {
    klp::IdbRequest request = read_request(made.transaction, made.store, made.index);
    request.mutable_read()->set_direction(direction);
    request.mutable_read()->set_has_position(true);
    request.mutable_read()->set_key(key);
    request.mutable_read()->set_primary_key(primary);
    request.mutable_read()->set_inclusive(inclusive);
    return made.keys(request);
  };
  CHECK(read(klp::NEXT, "a", "", false) == "b/4 b/5 b/6");
  CHECK(read(klp::NEXT, "a", "", true) == "a/1 a/2 a/3 b/4 b/5 b/6");
  CHECK(read(klp::NEXT, "a", "2", false) == "a/3 b/4 b/5 b/6");
  CHECK(read(klp::NEXT, "a", "2", true) == "a/2 a/3 b/4 b/5 b/6");
  CHECK(read(klp::PREV, "b", "", false) == "a/3 a/2 a/1");
  CHECK(read(klp::PREV, "b", "", true) == "b/6 b/5 b/4 a/3 a/2 a/1");
  CHECK(read(klp::PREV, "b", "5", false) == "b/4 a/3 a/2 a/1");
  CHECK(read(klp::PREV, "b", "5", true) == "b/5 b/4 a/3 a/2 a/1");
  CHECK(read(klp::NEXT_UNIQUE, "a", "1", false) == "b/4");
  CHECK(read(klp::NEXT_UNIQUE, "a", "2", true) == "b/4");
  CHECK(read(klp::NEXT_UNIQUE, "a", "1", true) == "a/1 b/4");
  CHECK(read(klp::PREV_UNIQUE, "b", "4", false) == "a/1");
  CHECK(read(klp::PREV_UNIQUE, "b", "6", false) == "b/4 a/1");
}

TEST_CASE("skip, limit, keys only, count") {
  Made made;
  klp::IdbRequest request = read_request(made.transaction, made.store);
  request.mutable_read()->set_skip(2);
  request.mutable_read()->set_limit(3);
  CHECK(made.keys(request) == "3 4 5 …");
  request.mutable_read()->set_limit(4);
  CHECK(made.keys(request) == "3 4 5 6");
  request.mutable_read()->set_skip(6);
  CHECK(made.keys(request).empty());
  request.mutable_read()->set_skip(0xFFFFFFFF);
  CHECK(made.keys(request).empty());
  request = read_request(made.transaction, made.store, made.index);
  request.mutable_read()->set_keys_only(true);
  const auto without_values = made.idb.ok(request);
  for (const auto& record : without_values.records().records()) CHECK(record.value().empty());

  klp::IdbRequest count = within(made.transaction);
  count.mutable_count()->set_store(made.store);
  CHECK(made.idb.ok(count).count().count() == 6);
  count.mutable_count()->mutable_range()->set_lower("2");
  count.mutable_count()->mutable_range()->set_lower_open(true);
  CHECK(made.idb.ok(count).count().count() == 4);
  count.mutable_count()->set_index(made.index);
  count.mutable_count()->mutable_range()->set_lower("a");
  CHECK(made.idb.ok(count).count().count() == 3);
}

TEST_CASE("an answer holds what a frame holds, and one record always") {
  Made made;
  for (const char* key : {"1", "2"}) {
    made.idb.put(made.transaction, made.store, key, std::string(kMaxMemoryValueBytes, 'v'));
  }
  klp::IdbRequest request = read_request(made.transaction, made.store);
  CHECK(made.keys(request) == "1 …");
  request.mutable_read()->set_skip(1);
  CHECK(made.keys(request) == "2 …");
  request.mutable_read()->set_skip(2);
  CHECK(made.keys(request) == "3 4 5 6");
  request.mutable_read()->set_skip(0);
  request.mutable_read()->set_keys_only(true);
  CHECK(made.keys(request) == "1 2 3 4 5 6");
  for (int i = 0; i < 2000; ++i)
    made.idb.put(made.transaction, made.store, "x" + std::to_string(i), std::string(1000, 'v'));
  request = read_request(made.transaction, made.store);
  request.mutable_read()->set_skip(6);
  const auto records = made.idb.ok(request).records();
  CHECK(records.more());
  CHECK(records.ByteSizeLong() <= kMaxMemoryAnswerBytes);
  CHECK(records.ByteSizeLong() > kMaxMemoryAnswerBytes - 20'000);
}

TEST_CASE("what a read is refused for") {
  Made made;
  const auto refused = [&](const auto& change) {
    klp::IdbRequest request = read_request(made.transaction, made.store);
    change(*request.mutable_read());
    return made.idb.refused(request);
  };
  const std::string long_key(kMaxIdbKeyBytes + 1, 'k');
  CHECK(refused([](klp::IdbRead& read) { read.mutable_span()->set_store(99); }) == "NOT_FOUND");
  CHECK(refused([](klp::IdbRead& read) { read.mutable_span()->set_index(99); }) == "NOT_FOUND");
  CHECK(refused([](klp::IdbRead& read) { read.set_direction(static_cast<klp::IdbDirection>(4)); }) == "INVALID");
  CHECK(refused([](klp::IdbRead& read) { read.set_has_position(true); }) == "INVALID");
  CHECK(refused([&](klp::IdbRead& read) { read.mutable_span()->mutable_range()->set_lower(long_key); }) == "TOO_LARGE");
  CHECK(refused([&](klp::IdbRead& read) { read.mutable_span()->mutable_range()->set_upper(long_key); }) == "TOO_LARGE");
  CHECK(refused([&](klp::IdbRead& read) {
          read.set_has_position(true);
          read.set_key(long_key);
        }) == "TOO_LARGE");
  CHECK(refused([](klp::IdbRead& read) {
          read.set_has_position(true);
          read.set_key("1");
          read.set_primary_key("1");
        }) == "INVALID");
  klp::IdbRequest count = within(made.transaction);
  count.mutable_count()->set_store(made.store);
  count.mutable_count()->mutable_range()->set_upper(long_key);
  CHECK(made.idb.refused(count) == "TOO_LARGE");
}

// SQLite's own count of what its statements went through (the virtual table sqlite_stmt, which Debian's has).
TEST_CASE("no statement on records goes through a whole table, or sorts") {
  Made made;
  for (const std::uint32_t index : {0U, made.index}) {
    for (const auto direction : {klp::NEXT, klp::NEXT_UNIQUE, klp::PREV, klp::PREV_UNIQUE}) {
      klp::IdbRequest read = read_request(made.transaction, made.store, index);
      read.mutable_read()->set_direction(direction);
      read.mutable_read()->set_has_position(true);
      read.mutable_read()->set_key("2");
      if (index != 0) read.mutable_read()->set_primary_key("2");
      made.idb.ok(read);
    }
    klp::IdbRequest count = within(made.transaction);
    count.mutable_count()->set_store(made.store);
    count.mutable_count()->set_index(index);
    count.mutable_count()->mutable_range()->set_lower("2");
    made.idb.ok(count);
  }
  made.idb.put(made.transaction, made.store, "1", "again", {{made.index, "c"}});
  klp::IdbRequest remove = within(made.transaction);
  remove.mutable_remove()->set_store(made.store);
  remove.mutable_remove()->mutable_range()->set_lower("5");
  made.idb.ok(remove);
  klp::IdbRequest drop = within(made.transaction);
  drop.mutable_delete_index()->set_store(made.store);
  drop.mutable_delete_index()->set_index(made.index);
  made.idb.ok(drop);
  drop.mutable_delete_store()->set_store(made.store);
  made.idb.ok(drop);

  auto statements = made.idb.database().prepare("SELECT sql, nscan, nsort FROM sqlite_stmt WHERE sql LIKE '%_record%'");
  REQUIRE(statements);
  int seen = 0;
  for (auto row = (*statements)->step(); row && *row; row = (*statements)->step()) {
    if ((*statements)->text(0).find("sqlite_stmt") != std::string::npos) continue;
    ++seen;
    CHECK_MESSAGE((*statements)->number(1) == 0, (*statements)->text(0));
    CHECK_MESSAGE((*statements)->number(2) == 0, (*statements)->text(0));
  }
  CHECK(seen > 15);
}

}  // namespace
}  // namespace kai::test
