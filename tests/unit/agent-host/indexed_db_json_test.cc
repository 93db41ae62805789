// memory.indexedDb, between JSON and proto/memory.proto.
#include "agent-host/indexed_db_json.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "agent-host/limits.h"

namespace kai {
namespace {

using Json = nlohmann::json;

klp::IdbRequest request(const std::string& params) {
  const auto view = JsonView::parse(params);
  REQUIRE(view);
  auto made = indexed_db_request(*view);
  REQUIRE_MESSAGE(made, params << ": " << made.error().message);
  return *made;
}

std::string refused(const std::string& params) {
  const auto view = JsonView::parse(params);
  REQUIRE_MESSAGE(view, params);
  const auto made = indexed_db_request(*view);
  REQUIRE_MESSAGE(!made, params);
  CHECK(made.error().code == "INVALID");
  return made.error().message;
}

/// One of `op` in transaction 4, with these members.
klp::IdbRequest within(const std::string& op, const std::string& members) {
  const auto made = request(R"({"op":")" + op + R"(","transaction":4,)" + members + "}");
  CHECK(made.transaction() == 4);
  return made;
}

std::string result(const klp::IdbAnswer& answer) {
  const auto made = indexed_db_result(answer);
  REQUIRE_MESSAGE(made, made.error().message);
  CHECK(made->find('\n') == std::string::npos);
  CHECK(Json::accept(*made));
  return *made;
}

}  // namespace

TEST_CASE("indexedDb: databases and transactions") {
  CHECK(request(R"({"op":"databases"})").has_databases());
  CHECK(request(R"({"op":"describe","name":"calendar"})").describe().name() == "calendar");
  CHECK(request(R"({"op":"deleteDatabase","name":""})").has_delete_database());
  const auto begin =
      request(R"({"op":"begin","database":"d","mode":"versionchange","version":3,"scope":[1,2]})").begin();
  CHECK(begin.database() == "d");
  CHECK(begin.mode() == klp::VERSIONCHANGE);
  CHECK(begin.version() == 3);
  REQUIRE(begin.scope_size() == 2);
  CHECK(begin.scope(1) == 2);
  CHECK(request(R"({"op":"begin","database":"d","mode":"readwrite"})").begin().mode() == klp::READWRITE);
  CHECK(request(R"({"op":"begin","database":"d","mode":"readonly"})").begin().mode() == klp::READONLY);
  CHECK(request(R"({"op":"begin","database":"d"})").begin().mode() == klp::READONLY);
  CHECK(request(R"({"op":"commit","transaction":4})").has_commit());
  CHECK(request(R"({"op":"abort","transaction":18446744073709551615})").transaction() == UINT64_MAX);
}

TEST_CASE("indexedDb: stores and indexes") {
  const auto store = within("createStore", R"("name":"s","keyPath":["a", "b.c"],"autoIncrement":true)").create_store();
  CHECK(store.name() == "s");
  CHECK(store.key_path_json() == R"(["a", "b.c"])");
  CHECK(store.auto_increment());
  CHECK(within("createStore", R"("name":"")").create_store().key_path_json() == "null");
  CHECK(within("createStore", R"("name":"s","keyPath":"")").create_store().key_path_json() == R"("")");
  CHECK(within("deleteStore", R"("store":7)").delete_store().store() == 7);
  CHECK(within("renameStore", R"("store":7,"name":"n")").rename_store().name() == "n");
  const auto index =
      within("createIndex", R"("store":7,"name":"i","keyPath":"p","unique":true,"multiEntry":true)").create_index();
  CHECK(index.store() == 7);
  CHECK(index.index().name() == "i");
  CHECK(index.index().key_path_json() == R"("p")");
  CHECK(index.index().unique());
  CHECK(index.index().multi_entry());
  CHECK(within("deleteIndex", R"("store":7,"index":8)").delete_index().index() == 8);
  const auto renamed = within("renameIndex", R"("store":7,"index":8,"name":"n")").rename_index();
  CHECK(renamed.index() == 8);
  CHECK(renamed.name() == "n");
  const auto record = within("indexRecord", R"("store":7,"index":8,"primaryKey":"AQ==","keys":["Ag==","Aw=="])");
  CHECK(record.index_record().primary_key() == "\x01");
  REQUIRE(record.index_record().keys_size() == 2);
  CHECK(record.index_record().keys(1) == "\x03");
}

TEST_CASE("indexedDb: records") {
  const auto put = within("put", R"("store":7,"key":"AQ==","value":"AP8=","noOverwrite":true,"nextKey":9007199254740992,
    "indexKeys":[{"index":8,"key":"Ag=="},{"index":9,"key":"Aw=="}])")
                       .put();
  CHECK(put.store() == 7);
  CHECK(put.key() == "\x01");
  CHECK(put.value() == std::string("\0\xFF", 2));
  CHECK(put.no_overwrite());
  CHECK(put.next_key() == 9'007'199'254'740'992);
  REQUIRE(put.index_keys_size() == 2);
  CHECK(put.index_keys(1).index() == 9);
  CHECK(put.index_keys(1).key() == "\x03");
  const auto read = within("read", R"("store":7,"index":8,"lower":"AQ==","upper":"Ag==","lowerOpen":true,
    "upperOpen":true,"direction":"prevunique","key":"Aw==","primaryKey":"BA==","inclusive":true,"skip":2,"limit":3,
    "keysOnly":true)")
                        .read();
  CHECK(read.span().store() == 7);
  CHECK(read.span().index() == 8);
  CHECK(read.span().range().lower() == "\x01");
  CHECK(read.span().range().upper() == "\x02");
  CHECK(read.span().range().lower_open());
  CHECK(read.span().range().upper_open());
  CHECK(read.direction() == klp::PREV_UNIQUE);
  CHECK(read.has_position());
  CHECK(read.key() == "\x03");
  CHECK(read.primary_key() == "\x04");
  CHECK(read.inclusive());
  CHECK(read.skip() == 2);
  CHECK(read.limit() == 3);
  CHECK(read.keys_only());
  const auto plain = within("read", R"("store":7)").read();
  CHECK(plain.direction() == klp::NEXT);
  CHECK_FALSE(plain.has_position());
  CHECK(within("read", R"("store":7,"direction":"nextunique")").read().direction() == klp::NEXT_UNIQUE);
  CHECK(within("read", R"("store":7,"direction":"prev")").read().direction() == klp::PREV);
  CHECK(within("count", R"("store":7,"index":8,"lower":"AQ==")").count().range().lower() == "\x01");
  CHECK(within("remove", R"("store":7,"upper":"AQ==","upperOpen":true)").remove().range().upper_open());
  CHECK(within("clear", R"("store":7)").clear().store() == 7);
}

TEST_CASE("indexedDb: params of the wrong shape, by the name of the member") {
  struct Case {
    const char* params;
    const char* member;
  };
  const Case cases[] = {
      {"{}", "`op`"},
      {R"({"op":5})", "`op`"},
      {R"({"op":"drop"})", "`op`"},
      {R"({"op":"describe"})", "`name`"},
      {R"({"op":"describe","name":1})", "`name`"},
      {R"({"op":"describe","name":"\ud800"})", "`name`"},
      {R"({"op":"begin"})", "`database`"},
      {R"({"op":"begin","database":"d","mode":"rw"})", "`mode`"},
      {R"({"op":"begin","database":"d","mode":1})", "`mode`"},
      {R"({"op":"begin","database":"d","version":-1})", "`version`"},
      {R"({"op":"begin","database":"d","scope":1})", "`scope`"},
      {R"({"op":"begin","database":"d","scope":["s"]})", "`scope`"},
      {R"({"op":"begin","database":"d","scope":[4294967296]})", "`scope`"},
      {R"({"op":"commit"})", "`transaction`"},
      {R"({"op":"commit","transaction":"1"})", "`transaction`"},
      {R"({"op":"clear","transaction":1})", "`store`"},
      {R"({"op":"clear","transaction":1,"store":4294967296})", "`store`"},
      {R"({"op":"deleteIndex","transaction":1,"store":1})", "`index`"},
      {R"({"op":"createStore","transaction":1,"name":"s","autoIncrement":1})", "`autoIncrement`"},
      {R"({"op":"put","transaction":1,"store":1,"value":""})", "`key`"},
      {R"({"op":"put","transaction":1,"store":1,"key":"AQ=="})", "`value`"},
      {R"({"op":"put","transaction":1,"store":1,"key":"AQ","value":""})", "`key`"},
      {R"({"op":"put","transaction":1,"store":1,"key":"AQ==","value":"","nextKey":1.5})", "`nextKey`"},
      {R"({"op":"put","transaction":1,"store":1,"key":"AQ==","value":"","indexKeys":{}})", "`indexKeys`"},
      {R"({"op":"put","transaction":1,"store":1,"key":"AQ==","value":"","indexKeys":[1]})", "`indexKeys`"},
      {R"({"op":"put","transaction":1,"store":1,"key":"AQ==","value":"","indexKeys":[{"index":1}]})", "`indexKeys`"},
      {R"({"op":"indexRecord","transaction":1,"store":1,"index":2,"primaryKey":"AQ=="})", "`keys`"},
      {R"({"op":"indexRecord","transaction":1,"store":1,"index":2,"primaryKey":"AQ==","keys":["?"]})", "`keys`"},
      {R"({"op":"read","transaction":1,"store":1,"direction":"up"})", "`direction`"},
      {R"({"op":"read","transaction":1,"store":1,"lower":1})", "`lower`"},
      {R"({"op":"read","transaction":1,"store":1,"limit":-1})", "`limit`"},
      {R"({"op":"read","transaction":1,"store":1,"keysOnly":"yes"})", "`keysOnly`"}};
  for (const Case& one : cases) {
    const std::string message = refused(one.params);
    CHECK_MESSAGE(message.find(one.member) != std::string::npos, one.params << ": " << message);
  }
}

TEST_CASE("indexedDb: answers as results") {
  klp::IdbAnswer answer;
  answer.mutable_done();
  CHECK(result(answer) == "{}");
  answer.mutable_names();
  CHECK(result(answer) == R"({"databases":[]})");
  for (const char* name : {"a", "b"}) answer.mutable_names()->add_databases()->set_name(name);
  answer.mutable_names()->mutable_databases(1)->set_version(2);
  CHECK(result(answer) == R"({"databases":[{"name":"a","version":0},{"name":"b","version":2}]})");
  klp::IdbDatabase database;
  database.set_name("d");
  database.set_version(3);
  klp::IdbStore& store = *database.add_stores();
  store.set_id(1);
  store.set_name("s");
  store.set_key_path_json("[\n\"a\"]");
  store.set_auto_increment(true);
  store.set_next_key(5);
  klp::IdbIndex& index = *store.add_indexes();
  index.set_id(2);
  index.set_name("i");
  index.set_key_path_json(R"("p")");
  index.set_unique(true);
  const std::string text = R"("database":{"name":"d","version":3,"stores":[{"id":1,"name":"s","keyPath":[ "a"],)"
                           R"("autoIncrement":true,"nextKey":5,"indexes":[{"id":2,"name":"i","keyPath":"p",)"
                           R"("unique":true,"multiEntry":false}]}]}})";
  *answer.mutable_database() = database;
  CHECK(result(answer) == "{" + text);
  answer.mutable_begun()->set_transaction(6);
  *answer.mutable_begun()->mutable_database() = database;
  CHECK(result(answer) == R"({"transaction":6,)" + text);
  answer.mutable_id()->set_id(7);
  CHECK(result(answer) == R"({"id":7})");
  answer.mutable_count()->set_count(8);
  CHECK(result(answer) == R"({"count":8})");
  answer.mutable_records();
  CHECK(result(answer) == R"({"records":[],"more":false})");
  klp::IdbRecord& record = *answer.mutable_records()->add_records();
  record.set_key("\x01");
  CHECK(result(answer) == R"({"records":[{"key":"AQ=="}],"more":false})");
  record.set_primary_key("\x02");
  record.set_value("\x03");
  answer.mutable_records()->set_more(true);
  CHECK(result(answer) == R"({"records":[{"key":"AQ==","primaryKey":"Ag==","value":"Aw=="}],"more":true})");
}

TEST_CASE("indexedDb: what control answers is not believed either") {
  klp::IdbAnswer answer;
  CHECK(indexed_db_result(answer).error().code == "INTERNAL");
  for (const char* path : {"", "x", "1,\"id\":5", "\"a"}) {
    klp::IdbStore& store = *answer.mutable_database()->add_stores();
    store.set_key_path_json(path);
    CHECK(indexed_db_result(answer).error().code == "INTERNAL");
    store.set_key_path_json("null");
    store.add_indexes()->set_key_path_json(path);
    CHECK(indexed_db_result(answer).error().code == "INTERNAL");
    answer.Clear();
  }
}

TEST_CASE("indexedDb: records end where the line does") {
  klp::IdbAnswer answer;
  for (int at = 0; at < 64; ++at) {
    klp::IdbRecord& record = *answer.mutable_records()->add_records();
    record.set_key(std::string(4, static_cast<char>(at)));
    record.set_value(std::string(16 << 10, 'x'));
  }
  const std::string text = result(answer);
  CHECK(text.size() <= kMaxResultBytes);
  const Json cut = Json::parse(text);
  CHECK(cut["more"] == true);
  CHECK(cut["records"].size() > 45);
  CHECK(cut["records"].size() < 64);
  answer.mutable_records()->mutable_records(0)->set_value(std::string(1 << 20, 'x'));
  CHECK(indexed_db_result(answer).error().code == "TOO_LARGE");
}

}  // namespace kai
