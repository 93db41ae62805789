#include "supervisor/memory/indexed_db.h"

#include <sys/random.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "supervisor/memory/indexed_db_engine.h"
#include "supervisor/memory/schedule.h"
#include "supervisor/memory/storage_error.h"

namespace kai {
namespace idb {
namespace {

MemoryOutcome<klp::IdbAnswer> done() {
  klp::IdbAnswer answer;
  answer.mutable_done();
  return answer;
}

MemoryOutcome<klp::IdbAnswer> as_answer(const MemoryOutcome<>& outcome) {
  if (!outcome) return pass(outcome);
  return done();
}

MemoryOutcome<klp::IdbAnswer> as_answer(const MemoryOutcome<std::uint32_t>& id) {
  if (!id) return pass(id);
  klp::IdbAnswer answer;
  answer.mutable_id()->set_id(*id);
  return answer;
}

// Ids of transactions go on from a random one: what an agent still sends of a transaction that ended with an earlier
// control must not hit one of this. They are exact in JavaScript's numbers.
std::uint64_t random_start() {
  std::uint64_t start = 0;
  // It never fails for so few bytes (getrandom(2)); without randomness nothing may go on.
  if (getrandom(&start, sizeof start, 0) != static_cast<ssize_t>(sizeof start)) std::abort();
  return start >> 13U;
}

}  // namespace

tl::unexpected<klp::MemoryError> refuse(std::string_view code, std::string message) {
  return tl::unexpected(memory_error(code, std::move(message)));
}

klp::MemoryError Engine::storage_error(const Error& error) const {
  return kai::storage_error(&database_, error);
}

Savepoint::~Savepoint() {
  if (!set_) return;
  // After some errors SQLite has rolled back all; then these find nothing, and perform() sees it.
  static_cast<void>(database_.execute("ROLLBACK TO idb; RELEASE idb"));
}

Result<> Savepoint::set() {
  auto statement = database_.prepare("SAVEPOINT idb");
  if (!statement) return tl::unexpected(statement.error());
  auto ran = (*statement)->run();
  set_ = ran.has_value();
  return ran;
}

Result<> Savepoint::release() {
  auto statement = database_.prepare("RELEASE idb");
  if (!statement) return tl::unexpected(statement.error());
  auto ran = (*statement)->run();
  if (ran) set_ = false;
  return ran;
}

Engine::Engine(Database& database, const MemoryTerms& terms, Account& account)
    : database_(database), terms_(terms), account_(account), last_transaction_(random_start()) {}

Engine::Answer Engine::perform(const klp::IdbRequest& request) {
  switch (request.op_case()) {
    case klp::IdbRequest::OP_NOT_SET:
      return refuse("INVALID", "the request names nothing to do");
    case klp::IdbRequest::kDatabases:
    case klp::IdbRequest::kDescribe:
    case klp::IdbRequest::kDeleteDatabase:
    case klp::IdbRequest::kBegin:
      return perform_alone(request);
    default:
      break;
  }
  const auto found = open_.find(request.transaction());
  if (found == open_.end()) {
    return refuse("NOT_FOUND", "transaction " + std::to_string(request.transaction()) +
                                   " is not open: it was committed or aborted; begin another");
  }
  const std::uint64_t id = found->first;
  auto answer = perform_within(id, found->second, request);
  if (!answer && writer_ == id && !database_.in_transaction()) {
    abort(id);
    answer.error().set_message(answer.error().message() + "; the transaction is over and nothing of it was kept");
  }
  return answer;
}

Engine::Answer Engine::perform_alone(const klp::IdbRequest& request) {
  switch (request.op_case()) {
    case klp::IdbRequest::kDatabases:
      return databases();
    case klp::IdbRequest::kDescribe:
      return describe(request.describe().name());
    case klp::IdbRequest::kDeleteDatabase:
      return delete_database(request.delete_database().name());
    default:
      return begin(request.begin());
  }
}

Engine::Answer Engine::perform_within(std::uint64_t id, OpenTransaction& transaction, const klp::IdbRequest& request) {
  klp::IdbAnswer answer;
  switch (request.op_case()) {
    case klp::IdbRequest::kCommit:
      return commit(id);
    case klp::IdbRequest::kAbort:
      abort(id);
      return done();
    case klp::IdbRequest::kRead: {
      const auto target = find(transaction, request.read().span().store(), request.read().span().index());
      if (!target) return pass(target);
      auto records = read(*target, request.read());
      if (!records) return pass(records);
      *answer.mutable_records() = std::move(*records);
      return answer;
    }
    case klp::IdbRequest::kCount: {
      const auto target = find(transaction, request.count().store(), request.count().index());
      if (!target) return pass(target);
      const auto number = count(*target, request.count().range());
      if (!number) return pass(number);
      answer.mutable_count()->set_count(*number);
      return answer;
    }
    case klp::IdbRequest::kPut:
    case klp::IdbRequest::kRemove:
    case klp::IdbRequest::kClear:
      if (transaction.mode == klp::READONLY) return refuse("INVALID", "a READONLY transaction changes no records");
      return change_records(transaction, request);
    default:
      if (transaction.mode != klp::VERSIONCHANGE) {
        return refuse("INVALID", "stores and indexes are changed in a VERSIONCHANGE transaction alone");
      }
      return change_schema(transaction, request);
  }
}

Engine::Answer Engine::change_records(OpenTransaction& transaction, const klp::IdbRequest& request) {
  const auto within = [&](std::uint32_t store, std::uint32_t index, const auto& action) -> Answer {
    const auto target = find(transaction, store, index);
    return target ? as_answer(action(*target)) : pass(target);
  };
  switch (request.op_case()) {
    case klp::IdbRequest::kPut:
      return within(request.put().store(), 0, [&](Target target) { return put(target, request.put()); });
    case klp::IdbRequest::kRemove:
      if (request.remove().index() != 0)
        return refuse("INVALID", "records are removed by primary key, not by an index");
      return within(request.remove().store(), 0,
                    [&](Target target) { return remove(target, request.remove().range()); });
    default:
      if (request.clear().index() != 0) return refuse("INVALID", "a store is cleared, not an index");
      return within(request.clear().store(), 0, [&](Target target) { return clear(target); });
  }
}

Engine::Answer Engine::change_schema(OpenTransaction& transaction, const klp::IdbRequest& request) {
  const auto within = [&](std::uint32_t store, std::uint32_t index, const auto& action) -> Answer {
    const auto target = find(transaction, store, index);
    return target ? as_answer(action(*target)) : pass(target);
  };
  // find() takes index 0 as none; these are about one.
  const auto within_index = [&](const auto& named, const auto& action) -> Answer {
    if (named.index() == 0) return refuse("NOT_FOUND", "there is no index 0");
    return within(named.store(), named.index(), action);
  };
  switch (request.op_case()) {
    case klp::IdbRequest::kCreateStore:
      return as_answer(create_store(*transaction.schema, request.create_store()));
    case klp::IdbRequest::kDeleteStore:
      return as_answer(delete_store(*transaction.schema, request.delete_store().store()));
    case klp::IdbRequest::kRenameStore:
      return within(request.rename_store().store(), 0,
                    [&](Target target) { return rename_store(target, request.rename_store().name()); });
    case klp::IdbRequest::kCreateIndex:
      return within(request.create_index().store(), 0,
                    [&](Target target) { return create_index(target, request.create_index().index()); });
    case klp::IdbRequest::kDeleteIndex:
      return within_index(request.delete_index(), [&](Target target) { return delete_index(target); });
    case klp::IdbRequest::kRenameIndex:
      return within_index(request.rename_index(),
                          [&](Target target) { return rename_index(target, request.rename_index().name()); });
    default:
      return within_index(request.index_record(),
                          [&](Target target) { return index_record(target, request.index_record()); });
  }
}

MemoryOutcome<Target> Engine::find(OpenTransaction& transaction, std::uint32_t store, std::uint32_t index) {
  const auto found = transaction.schema->stores.find(store);
  if (found == transaction.schema->stores.end()) {
    return refuse("NOT_FOUND", "the database has no object store " + std::to_string(store));
  }
  if (transaction.mode != klp::VERSIONCHANGE &&
      !std::binary_search(transaction.scope.begin(), transaction.scope.end(), store)) {
    return refuse("INVALID", "object store " + std::to_string(store) + " is not in the transaction's scope");
  }
  Target target{*transaction.schema, found->second};
  if (index == 0) return target;
  const auto indexed = found->second.indexes.find(index);
  if (indexed == found->second.indexes.end()) {
    return refuse("NOT_FOUND", "the object store has no index " + std::to_string(index));
  }
  target.index = &indexed->second;
  return target;
}

Engine::Answer Engine::begin(const klp::IdbBegin& request) {
  if (const auto named = check_name(request.database()); !named) return pass(named);
  if (!klp::IdbMode_IsValid(request.mode())) return refuse("INVALID", "there is no such mode of a transaction");
  if (open_.size() >= kMaxIdbTransactions) {
    return refuse("BUSY", std::to_string(kMaxIdbTransactions) + " transactions are open, which is the most; end some");
  }
  // The schedule lets nobody begin then; what it holds is not left to it alone.
  const bool writes = request.mode() != klp::READONLY;
  if (writer_ != 0 || (writes && !open_.empty())) return refuse("BUSY", "another transaction is open");

  auto found = schema_for(request.database(), writes);
  if (!found) return pass(found);
  OpenTransaction transaction;
  transaction.mode = request.mode();
  transaction.used_before = account_.used();
  klp::IdbDatabase database_now;
  database_now.set_name(request.database());
  if (*found) database_now = (*found)->shape();
  if (request.mode() == klp::VERSIONCHANGE) {
    auto schema = begin_version_change(request, *found ? std::optional(std::move(**found)) : std::nullopt);
    if (!schema) return pass(schema);
    transaction.schema = std::make_shared<Schema>(std::move(*schema));
  } else {
    if (!*found) return refuse("NOT_FOUND", "there is no such database");
    auto scope = scope_of(request, **found);
    if (!scope) return pass(scope);
    transaction.scope = std::move(*scope);
    transaction.schema = std::move(*found);
    if (writes) {
      if (auto begun = database_.execute("BEGIN IMMEDIATE"); !begun) return failed(begun);
    }
  }
  if (writes) transaction.database_before = database_now;

  const std::uint64_t id = ++last_transaction_;
  if (writes) writer_ = id;
  klp::IdbAnswer answer;
  answer.mutable_begun()->set_transaction(id);
  *answer.mutable_begun()->mutable_database() = std::move(database_now);
  open_.emplace(id, std::move(transaction));
  return answer;
}

// nullptr: there is no such database. Readers change nothing in it, and hundreds may be open: they share one.
MemoryOutcome<std::shared_ptr<Schema>> Engine::schema_for(const std::string& name, bool writes) const {
  for (const auto& [id, reader] : open_) {
    if (!writes && reader.schema->name == name) return reader.schema;
  }
  auto found = find_schema(name);
  if (!found) return pass(found);
  return *found ? std::make_shared<Schema>(std::move(**found)) : nullptr;
}

MemoryOutcome<std::vector<std::uint32_t>> Engine::scope_of(const klp::IdbBegin& request, const Schema& schema) const {
  std::vector<std::uint32_t> scope(request.scope().begin(), request.scope().end());
  std::sort(scope.begin(), scope.end());
  scope.erase(std::unique(scope.begin(), scope.end()), scope.end());
  for (const std::uint32_t store : scope) {
    if (!schema.stores.contains(store)) {
      return refuse("NOT_FOUND", "the database has no object store " + std::to_string(store));
    }
  }
  scope.shrink_to_fit();
  return scope;
}

MemoryOutcome<Schema> Engine::begin_version_change(const klp::IdbBegin& request, std::optional<Schema> found) {
  const std::uint64_t version_now = found ? found->version : 0;
  if (request.version() <= version_now || request.version() > kMaxIdbVersion) {
    return refuse("INVALID", "the new version must be greater than that of now, " + std::to_string(version_now) +
                                 ", and at most 2^53 - 1");
  }
  if (auto begun = database_.execute("BEGIN IMMEDIATE"); !begun) return failed(begun);
  MemoryOutcome<Schema> schema;
  if (!found) {
    schema = create_database(request.database(), request.version());
  } else {
    schema = std::move(*found);
    if (const auto set = set_version(*schema, request.version()); !set) schema = pass(set);
  }
  if (!schema) static_cast<void>(database_.execute("ROLLBACK"));  // what failed before may have done it
  return schema;
}

Engine::Answer Engine::commit(std::uint64_t id) {
  OpenTransaction& transaction = open_.at(id);
  if (transaction.mode != klp::READONLY) {
    auto written = write_counters(*transaction.schema);
    if (written) {
      if (auto committed = database_.execute("COMMIT"); !committed) written = failed(committed);
    }
    if (!written) {
      abort(id);
      auto error = written.error();
      error.set_message(error.message() + "; the transaction is over and nothing of it was kept");
      return tl::unexpected(std::move(error));
    }
    writer_ = 0;
  }
  open_.erase(id);
  return done();
}

void Engine::abort(std::uint64_t id) {
  if (writer_ == id) {
    // Without one, SQLite has rolled back already.
    if (database_.in_transaction()) static_cast<void>(database_.execute("ROLLBACK"));
    account_.reset(open_.at(id).used_before);
    writer_ = 0;
  }
  open_.erase(id);
}

void Engine::abort_all() {
  while (!open_.empty()) abort(open_.begin()->first);
}

}  // namespace idb

IndexedDb::IndexedDb(std::unique_ptr<idb::Engine> engine) : engine_(std::move(engine)) {}

IndexedDb::~IndexedDb() {
  engine_->abort_all();
}

Result<std::unique_ptr<IndexedDb>> IndexedDb::open(Database& database, const MemoryTerms& terms, Account& account) {
  auto engine = std::make_unique<idb::Engine>(database, terms, account);
  if (const auto made = engine->make_tables(); !made) return tl::unexpected(made.error());
  return std::unique_ptr<IndexedDb>(new IndexedDb(std::move(engine)));
}

MemoryOutcome<klp::IdbAnswer> IndexedDb::perform(const klp::IdbRequest& request) {
  return engine_->perform(request);
}
bool IndexedDb::is_open(std::uint64_t transaction) const {
  return engine_->is_open(transaction);
}
void IndexedDb::abort_all() {
  engine_->abort_all();
}
bool IndexedDb::writing() const {
  return engine_->writing();
}
Result<MemoryUsage> IndexedDb::stored() const {
  return engine_->stored();
}
MemoryOutcome<> IndexedDb::clear() {
  return engine_->delete_all();
}
Result<> IndexedDb::dump(const Visit& visit) const {
  return engine_->dump(visit);
}
MemoryOutcome<> IndexedDb::load(const DumpLine& line) {
  return engine_->load(line);
}
MemoryOutcome<> IndexedDb::finish_load() {
  return engine_->finish_load();
}
Result<> IndexedDb::reseal() {
  return engine_->reseal_all();
}

}  // namespace kai
