// What becomes of a context's file: damaged, somebody else's, encrypted, decrypted, cleared.
#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "supervisor/database/database.h"
#include "tests/unit/memory/sqlite_backend.h"

namespace kai {
namespace {

constexpr std::size_t kMostBytes = 64 << 20;

// As control does it when kaid is started again; the client's own open() would want it to succeed.
class Contexts {
 public:
  explicit Contexts(const SqliteBackend& sqlite, SqliteFile like = {}) : sqlite_(sqlite), file_(std::move(like)) {
    file_.path = sqlite.path();
  }
  MemoryOutcome<> open() {
    MemoryTerms terms{"conformer", 1 << 20, 0, sqlite_.key, sqlite_.old_key, "/state/node.key"};
    store_ = make_sqlite_store(loop_, clock_.get(), terms, file_);
    std::optional<MemoryOutcome<>> outcome;
    store_->open([&](MemoryOutcome<>&& opened) { outcome = std::move(opened); });
    loop_.run_until([&] { return outcome.has_value(); });
    return *outcome;
  }
  klp::MemoryAnswer ask(klp::MemoryRequest request) {
    std::optional<klp::MemoryAnswer> answer;
    store_->perform(std::move(request), [&](klp::MemoryAnswer&& said) { answer = std::move(said); });
    loop_.run_until([&] { return answer.has_value(); });
    return *answer;
  }
  std::string value(const std::string& key) {
    klp::MemoryRequest request;
    request.mutable_get()->add_keys(key);
    const klp::MemoryAnswer answer = ask(std::move(request));
    if (answer.has_error()) return answer.error().code();
    return answer.got().entries().empty() ? "(none)" : answer.got().entries(0).value();
  }
  void close() {
    store_.reset();
    loop_.finish_work();
  }

 private:
  const SqliteBackend& sqlite_;
  SqliteFile file_;
  TestClock clock_;
  EventLoop loop_;
  std::unique_ptr<MemoryStore> store_;
};

std::vector<std::string> files_of(const SqliteBackend& sqlite) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(sqlite.directory.path())) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool stands_in_a_file(const SqliteBackend& sqlite, const std::string& text) {
  for (const std::string& name : files_of(sqlite)) {
    if (read_file(sqlite.directory / name, kMostBytes).value().find(text) != std::string::npos) return true;
  }
  return false;
}

void fill(const SqliteBackend& sqlite) {
  Contexts contexts(sqlite);
  REQUIRE(contexts.open());
  for (int i = 0; i < 200; ++i) {
    const std::string value = '"' + std::string(500, 'x') + "plaintext marker\"";
    REQUIRE(code_of(contexts.ask(set_request("key" + std::to_string(i), value))).empty());
  }
}

// Refused with the cause; the file is set aside as it is, and the next open begins empty.
void check_set_aside(const SqliteBackend& sqlite, const std::string& cause) {
  CAPTURE(cause);
  const std::string before = read_file(sqlite.path(), kMostBytes).value();
  Contexts contexts(sqlite);
  const MemoryOutcome<> refused = contexts.open();
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code() == "INTERNAL");
  CHECK_FALSE(refused.error().retryable());
  CHECK_MESSAGE(refused.error().message().find(cause) != std::string::npos, refused.error().message());
  CHECK(contexts.value("key1") == "INTERNAL");

  std::string aside;
  for (const std::string& name : files_of(sqlite)) {
    if (name.starts_with("conformer.damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")) aside = name;
  }
  REQUIRE_FALSE(aside.empty());
  CHECK(refused.error().message().find(sqlite.directory / aside) != std::string::npos);
  CHECK(read_file(sqlite.directory / aside, kMostBytes).value() == before);
  CHECK_FALSE(std::filesystem::exists(sqlite.path()));

  REQUIRE(contexts.open());
  CHECK(contexts.value("key1") == "(none)");
  CHECK(code_of(contexts.ask(set_request("key1", "1"))).empty());
}

void overwrite(const std::string& path, std::size_t offset, const std::string& bytes) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(offset));
  file << bytes;
}

void change_with_sqlite(const std::string& path, const std::string& sql) {
  constexpr DatabaseNames kNames = {"the test's database", ""};
  std::ofstream(path, std::ios::app).flush();
  REQUIRE(Database::open_unchecked(path, kNames, false).value()->execute(sql));
}

}  // namespace

TEST_CASE("a damaged file is set aside, and the agent told why") {
  const SqliteBackend sqlite;
  SUBCASE("pages in its midst") {
    fill(sqlite);
    overwrite(sqlite.path(), 5 * 4096, std::string(3 * 4096, '\x5a'));
    check_set_aside(sqlite, "damaged");
  }
  SUBCASE("its header") {
    fill(sqlite);
    overwrite(sqlite.path(), 0, std::string(100, 'z'));
    check_set_aside(sqlite, "file is not a database");
  }
  SUBCASE("cut off") {
    fill(sqlite);
    std::filesystem::resize_file(sqlite.path(), 6 * 4096 + 100);
    check_set_aside(sqlite, "damaged");
  }
  SUBCASE("it never was one") {
    std::ofstream(sqlite.path()) << std::string(10'000, 'a');
    check_set_aside(sqlite, "file is not a database");
  }
  SUBCASE("another program's") {
    change_with_sqlite(sqlite.path(), "CREATE TABLE t(a)");
    check_set_aside(sqlite, "another program's database");
  }
  SUBCASE("another agent's") {
    fill(sqlite);
    change_with_sqlite(sqlite.path(), "UPDATE meta SET agent = 'somebody'; PRAGMA wal_checkpoint(TRUNCATE)");
    check_set_aside(sqlite, "memory of another agent");
  }
}

TEST_CASE("damage that shows while it is open ends that context alone") {
  const SqliteBackend sqlite;
  fill(sqlite);
  Contexts contexts(sqlite);
  Contexts others(sqlite);
  REQUIRE(contexts.open());
  // More than SQLite keeps of it in memory.
  klp::MemoryRequest request;
  for (int i = 200; i < 1'200; ++i) add_write(request, "key" + std::to_string(i), '"' + std::string(500, 'x') + '"');
  REQUIRE(code_of(contexts.ask(request)).empty());
  contexts.close();
  REQUIRE(contexts.open());
  overwrite(sqlite.path(), 2 * 4096, std::string(std::filesystem::file_size(sqlite.path()) - 2 * 4096, '\x5a'));
  std::string seen;
  for (int i = 0; i < 1'200 && seen != "INTERNAL"; ++i) seen = contexts.value("key" + std::to_string(i));
  CHECK(seen == "INTERNAL");
  CHECK(code_of(contexts.ask(set_request("k", "1"))) == "INTERNAL");
  CHECK_FALSE(std::filesystem::exists(sqlite.path()));
  contexts.close();
  REQUIRE(others.open());
  CHECK(others.value("key1") == "(none)");
}

TEST_CASE("damage that an IndexedDB request meets is set aside too") {
  const SqliteBackend sqlite({.indexed_db = true});
  Contexts contexts(sqlite, {.indexed_db = true});
  REQUIRE(contexts.open());
  const auto ask = [&](std::uint64_t transaction, const std::function<void(klp::IdbRequest&)>& fill) {
    klp::MemoryRequest request;
    request.mutable_indexed_db()->set_transaction(transaction);
    fill(*request.mutable_indexed_db());
    return contexts.ask(std::move(request));
  };
  const auto begin = [&](klp::IdbMode mode, std::uint64_t version) {
    const auto answer = ask(0, [&](klp::IdbRequest& request) {
      request.mutable_begin()->set_database("db");
      request.mutable_begin()->set_mode(mode);
      request.mutable_begin()->set_version(version);
      if (mode != klp::VERSIONCHANGE) request.mutable_begin()->add_scope(1);
    });
    REQUIRE_MESSAGE(answer.has_indexed_db(), answer.error().message());
    return answer.indexed_db().begun().transaction();
  };
  const std::uint64_t writer = begin(klp::VERSIONCHANGE, 1);
  REQUIRE(code_of(ask(writer, [](klp::IdbRequest& request) {
            request.mutable_create_store()->set_name("events");
            request.mutable_create_store()->set_key_path_json("null");
          })).empty());
  constexpr int kRecords = 600;
  for (int i = 0; i < kRecords; ++i) {
    REQUIRE(code_of(ask(writer, [&](klp::IdbRequest& request) {
              request.mutable_put()->set_store(1);
              request.mutable_put()->set_key("k" + std::to_string(1'000 + i));
              request.mutable_put()->set_value(std::string(1'000, 'x'));
            })).empty());
  }
  REQUIRE(code_of(ask(writer, [](klp::IdbRequest& request) { request.mutable_commit(); })).empty());
  contexts.close();
  REQUIRE(contexts.open());
  const std::uint64_t reader = begin(klp::READONLY, 0);
  const std::size_t whole = 20 * 4096;  // the schema's tables
  overwrite(sqlite.path(), whole, std::string(std::filesystem::file_size(sqlite.path()) - whole, '\x5a'));
  const auto read = ask(reader, [](klp::IdbRequest& request) { request.mutable_read()->mutable_span()->set_store(1); });
  CHECK(code_of(read) == "INTERNAL");
  CHECK_MESSAGE(read.error().message().find(".damaged-") != std::string::npos, read.error().message());
  CHECK_FALSE(std::filesystem::exists(sqlite.path()));
  REQUIRE(contexts.open());
}

TEST_CASE("a file that cannot be opened now stays where it is") {
  const SqliteBackend sqlite;
  fill(sqlite);
  Contexts contexts(sqlite);
  SUBCASE("of a newer kaid") {
    change_with_sqlite(sqlite.path(), "PRAGMA user_version = 2");
    const auto refused = contexts.open();
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message().find("newer kaid") != std::string::npos);
    change_with_sqlite(sqlite.path(), "PRAGMA user_version = 1");
  }
  SUBCASE("its directory is away") {
    const std::string away = sqlite.directory.path() + ".away";
    std::filesystem::rename(sqlite.directory.path(), away);
    const auto refused = contexts.open();
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code() == "UNAVAILABLE");
    CHECK(refused.error().retryable());
    std::filesystem::rename(away, sqlite.directory.path());
  }
  REQUIRE(contexts.open());
  CHECK(contexts.value("key1") != "(none)");
}

TEST_CASE("a file follows the policy on encryption, and keeps no plain text") {
  SqliteBackend sqlite;
  const SealKey key{7, 7, 7};
  fill(sqlite);
  REQUIRE(stands_in_a_file(sqlite, "plaintext marker"));

  sqlite.key = key;
  Contexts contexts(sqlite);
  REQUIRE(contexts.open());
  CHECK_FALSE(stands_in_a_file(sqlite, "plaintext marker"));
  CHECK(contexts.value("key199").find("plaintext marker") != std::string::npos);
  CHECK(code_of(contexts.ask(set_request("more", "\"another marker\""))).empty());
  CHECK_FALSE(stands_in_a_file(sqlite, "another marker"));  // not in the log either
  CHECK(stands_in_a_file(sqlite, "key199"));                // keys are not encrypted
  contexts.close();

  SUBCASE("off again") {
    sqlite.key.reset();
    sqlite.old_key = key;
    REQUIRE(contexts.open());
    CHECK(contexts.value("more") == "\"another marker\"");
    CHECK(stands_in_a_file(sqlite, "plaintext marker"));
  }
  SUBCASE("off, and the node's key is gone: nothing is touched") {
    sqlite.key.reset();
    const auto refused = contexts.open();
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code() == "DENIED");
    CHECK(refused.error().message().find("the node's key is not there") != std::string::npos);
    sqlite.key = key;
    REQUIRE(contexts.open());
    CHECK(contexts.value("more") == "\"another marker\"");
  }
  SUBCASE("another node's key: refused each time, and nothing is set aside") {
    const auto before = files_of(sqlite);
    for (const bool on : {true, false, true}) {
      sqlite.key = on ? std::optional(SealKey{8}) : std::nullopt;
      sqlite.old_key = on ? std::nullopt : std::optional(SealKey{8});
      const auto refused = contexts.open();
      REQUIRE_FALSE(refused);
      CHECK(refused.error().code() == "DENIED");
      CHECK_FALSE(refused.error().retryable());
      CHECK(refused.error().message().find("encrypted with another node's key") != std::string::npos);
      CHECK(refused.error().message().find("/state/node.key") != std::string::npos);
      CHECK(contexts.value("more") == "DENIED");
      contexts.close();
      for (const std::string& name : files_of(sqlite)) CHECK(name.find("damaged") == std::string::npos);
    }
    sqlite.key = key;
    sqlite.old_key.reset();
    REQUIRE(contexts.open());
    CHECK(contexts.value("more") == "\"another marker\"");
  }
  SUBCASE("a value that was moved to another key does not open") {
    change_with_sqlite(sqlite.path(),
                       "UPDATE entries SET value = (SELECT value FROM entries WHERE key = CAST('more' AS BLOB)) WHERE "
                       "key = CAST('key1' AS BLOB)");
    REQUIRE(contexts.open());
    CHECK(contexts.value("key1") == "INTERNAL");
    CHECK(contexts.value("more") == "\"another marker\"");
  }
}

TEST_CASE("who only reads needs no room to sweep what has expired") {
  const SqliteBackend sqlite;
  MemoryClient memory(sqlite.backend);
  REQUIRE(memory.set("stays", "1").has_written());
  REQUIRE(memory.set_for("short", "1", 1'000).has_written());
  memory.clock().advance(std::chrono::seconds(2));
  constexpr DatabaseNames kNames = {"the test's database", ""};
  const auto other = Database::open_unchecked(sqlite.path(), kNames, false).value();
  REQUIRE(other->execute("BEGIN IMMEDIATE"));  // no write of ours until its end
  CHECK(memory.value("stays") == "1");
  CHECK(memory.value("short") == "(none)");
  CHECK(memory.store().usage().entries == 2);
  CHECK(code_of(memory.set("k", "1")) == "UNAVAILABLE");
  REQUIRE(other->execute("ROLLBACK"));
  CHECK(code_of(memory.set("k", "1")).empty());
  CHECK(memory.store().usage().entries == 2);  // and what had expired is gone
}

TEST_CASE("IndexedDB's records follow the policy on encryption, whichever backend opens the file") {
  SqliteBackend indexed_db({.indexed_db = true});
  const auto ask = [](MemoryClient& memory, const std::function<void(klp::IdbRequest&)>& fill) {
    klp::MemoryRequest request;
    fill(*request.mutable_indexed_db());
    const klp::MemoryAnswer answer = memory.ask(std::move(request));
    REQUIRE_MESSAGE(answer.has_indexed_db(), answer.error().message());
    return answer.indexed_db();
  };
  {
    MemoryClient memory(indexed_db.backend);
    const auto begun = ask(memory, [](klp::IdbRequest& request) {
      request.mutable_begin()->set_database("db");
      request.mutable_begin()->set_mode(klp::VERSIONCHANGE);
      request.mutable_begin()->set_version(1);
    });
    const std::uint64_t id = begun.begun().transaction();
    ask(memory, [&](klp::IdbRequest& request) {
      request.set_transaction(id);
      request.mutable_create_store()->set_name("events");
      request.mutable_create_store()->set_key_path_json("null");
    });
    ask(memory, [&](klp::IdbRequest& request) {
      request.set_transaction(id);
      request.mutable_put()->set_store(1);
      request.mutable_put()->set_key("a");
      request.mutable_put()->set_value("plaintext marker");
    });
    ask(memory, [&](klp::IdbRequest& request) {
      request.set_transaction(id);
      request.mutable_commit();
    });
  }
  REQUIRE(stands_in_a_file(indexed_db, "plaintext marker"));
  indexed_db.key = SealKey{7};
  Contexts plain(indexed_db);
  REQUIRE(plain.open());
  CHECK_FALSE(stands_in_a_file(indexed_db, "plaintext marker"));
  plain.close();
  indexed_db.old_key = indexed_db.key;
  indexed_db.key.reset();
  REQUIRE(plain.open());
  CHECK(stands_in_a_file(indexed_db, "plaintext marker"));
}

TEST_CASE("what was cleared stands in no file") {
  const SqliteBackend sqlite;
  fill(sqlite);
  Contexts contexts(sqlite);
  REQUIRE(contexts.open());
  contexts.close();
  MemoryClient client(sqlite.backend);  // begins with clear()
  CHECK_FALSE(stands_in_a_file(sqlite, "plaintext marker"));
  CHECK_FALSE(stands_in_a_file(sqlite, "key199"));
}

}  // namespace kai
