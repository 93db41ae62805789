#include "tests/unit/memory/indexed_db_fixture.h"

#include <fstream>

namespace kai::test {
namespace {

constexpr DatabaseNames kNames = {"the agent's memory", "to begin with an empty one"};

std::int64_t number(Database& database, const char* sql) {
  const auto answer = database.number(sql);
  REQUIRE(answer);
  return *answer;
}

}  // namespace

std::unique_ptr<Database> open_file(const std::string& path, bool durable) {
  std::ofstream(path, std::ios::app).close();
  auto database = Database::open_unchecked(path, kNames, false);
  REQUIRE(database);
  REQUIRE((*database)->number("PRAGMA journal_mode=WAL"));
  REQUIRE((*database)->execute(durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=OFF"));
  return std::move(*database);
}

Idb::Idb(std::uint64_t max_bytes, bool sealed) {
  terms_.agent_id = "a1";
  terms_.max_bytes = max_bytes;
  if (sealed) terms_.key = SealKey{1, 2, 3};
  reopen();
}

Idb::Idb(std::string path) : path_(std::move(path)), durable_(true) {
  terms_.agent_id = "a1";
  terms_.max_bytes = 64 << 20;
  reopen();
}

void Idb::reopen() {
  engine_.reset();
  database_.reset();
  database_ = open_file(path_, durable_);
  account_ = std::make_unique<Account>(terms_.max_bytes, MemoryUsage{});
  auto opened = IndexedDb::open(*database_, terms_, *account_);
  REQUIRE(opened);
  engine_ = std::move(*opened);
  const auto stored = engine_->stored();
  REQUIRE(stored);
  account_->reset(*stored);
}

klp::IdbAnswer Idb::ok(const klp::IdbRequest& request) {
  auto answer = engine_->perform(request);
  if (!answer) FAIL(request.ShortDebugString(), ": ", answer.error().code(), ": ", answer.error().message());
  return std::move(*answer);
}

std::string Idb::refused(const klp::IdbRequest& request) {
  const auto answer = engine_->perform(request);
  if (answer) return "done";
  CHECK(!answer.error().message().empty());
  return answer.error().code();
}

klp::IdbRequest within(std::uint64_t transaction) {
  klp::IdbRequest request;
  request.set_transaction(transaction);
  return request;
}

klp::IdbRequest begin_request(klp::IdbMode mode, const std::string& database, std::vector<std::uint32_t> scope) {
  klp::IdbRequest request;
  request.mutable_begin()->set_database(database);
  request.mutable_begin()->set_mode(mode);
  for (const std::uint32_t store : scope) request.mutable_begin()->add_scope(store);
  return request;
}

klp::IdbRequest upgrade_request(const std::string& database, std::uint64_t version) {
  klp::IdbRequest request = begin_request(klp::VERSIONCHANGE, database, {});
  request.mutable_begin()->set_version(version);
  return request;
}

klp::IdbRequest put_request(std::uint64_t transaction, std::uint32_t store, const std::string& key,
                            const std::string& value, const IndexKeys& index_keys) {
  klp::IdbRequest request = within(transaction);
  request.mutable_put()->set_store(store);
  request.mutable_put()->set_key(key);
  request.mutable_put()->set_value(value);
  for (const auto& [index, index_key] : index_keys) {
    klp::IdbIndexKey& one = *request.mutable_put()->add_index_keys();
    one.set_index(index);
    one.set_key(index_key);
  }
  return request;
}

std::uint64_t Idb::begin(klp::IdbMode mode, std::vector<std::uint32_t> scope, const std::string& database) {
  if (scope.empty()) {
    const auto described = describe(database);
    for (const klp::IdbStore& store : described.stores()) scope.push_back(store.id());
  }
  return ok(begin_request(mode, database, scope)).begun().transaction();
}

std::uint64_t Idb::upgrade(std::uint64_t version, const std::string& database) {
  return ok(upgrade_request(database, version)).begun().transaction();
}

void Idb::commit(std::uint64_t transaction) {
  klp::IdbRequest request = within(transaction);
  request.mutable_commit();
  ok(request);
}

void Idb::abort(std::uint64_t transaction) {
  klp::IdbRequest request = within(transaction);
  request.mutable_abort();
  ok(request);
}

std::uint32_t Idb::create_store(std::uint64_t transaction, const std::string& name, bool auto_increment) {
  klp::IdbRequest request = within(transaction);
  request.mutable_create_store()->set_name(name);
  request.mutable_create_store()->set_key_path_json("null");
  request.mutable_create_store()->set_auto_increment(auto_increment);
  return ok(request).id().id();
}

std::uint32_t Idb::create_index(std::uint64_t transaction, std::uint32_t store, const std::string& name, bool unique,
                                bool multi_entry) {
  klp::IdbRequest request = within(transaction);
  request.mutable_create_index()->set_store(store);
  klp::IdbIndex& index = *request.mutable_create_index()->mutable_index();
  index.set_name(name);
  index.set_key_path_json("\"k\"");
  index.set_unique(unique);
  index.set_multi_entry(multi_entry);
  return ok(request).id().id();
}

void Idb::put(std::uint64_t transaction, std::uint32_t store, const std::string& key, const std::string& value,
              const IndexKeys& index_keys) {
  ok(put_request(transaction, store, key, value, index_keys));
}

std::string Idb::all(std::uint64_t transaction, std::uint32_t store, std::uint32_t index, klp::IdbDirection direction) {
  klp::IdbRequest request = within(transaction);
  request.mutable_read()->mutable_span()->set_store(store);
  request.mutable_read()->mutable_span()->set_index(index);
  request.mutable_read()->set_direction(direction);
  std::string text;
  const auto answer = ok(request);
  for (const klp::IdbRecord& record : answer.records().records()) {
    if (!text.empty()) text += ' ';
    text += record.key();
    if (index != 0) text += '/' + record.primary_key();
    text += '=' + record.value();
  }
  return text;
}

klp::IdbDatabase Idb::describe(const std::string& database) {
  klp::IdbRequest request;
  request.mutable_describe()->set_name(database);
  return ok(request).database();
}

std::string Idb::databases() {
  klp::IdbRequest request;
  request.mutable_databases();
  std::string text;
  const auto answer = ok(request);
  for (const klp::IdbDatabase& database : answer.names().databases()) {
    if (!text.empty()) text += ' ';
    text += database.name() + ':' + std::to_string(database.version());
    CHECK(database.stores_size() == 0);
  }
  return text;
}

MemoryUsage Idb::counted() {
  static_assert(kSealOverheadBytes == 40);
  const std::int64_t bytes =
      number(*database_, "SELECT ifnull(sum(length(key) + length(value) - 40 * sealed), 0) FROM idb_record") +
      number(*database_, "SELECT ifnull(sum(length(key)), 0) FROM idb_index_record");
  const std::int64_t entries = number(*database_, "SELECT count(*) FROM idb_record");
  return {static_cast<std::uint64_t>(bytes), static_cast<std::uint64_t>(entries)};
}

void Idb::check_usage() {
  const MemoryUsage rows = counted();
  CHECK(account_->used().bytes == rows.bytes);
  CHECK(account_->used().entries == rows.entries);
  if (engine_->writing()) return;  // stored() is what was committed
  const auto stored = engine_->stored();
  REQUIRE(stored);
  CHECK(stored->bytes == rows.bytes);
  CHECK(stored->entries == rows.entries);
}

}  // namespace kai::test
