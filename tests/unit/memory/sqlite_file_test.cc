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
    MemoryTerms terms{"conformer", 1 << 20, 0, sqlite_.key, sqlite_.old_key};
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
  void close() { store_.reset(); }

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
    CHECK(refused.error().message().find("the node's key is not there") != std::string::npos);
    sqlite.key = key;
    REQUIRE(contexts.open());
    CHECK(contexts.value("more") == "\"another marker\"");
  }
  SUBCASE("another node's key") {
    sqlite.key = SealKey{8};
    check_set_aside(sqlite, "encrypted with another node's key");
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

TEST_CASE("what was cleared stands in no file") {
  const SqliteBackend sqlite;
  fill(sqlite);
  Contexts contexts(sqlite);
  REQUIRE(contexts.open());
  MemoryClient client(sqlite.backend);  // begins with clear()
  CHECK_FALSE(stands_in_a_file(sqlite, "plaintext marker"));
  CHECK_FALSE(stands_in_a_file(sqlite, "key199"));
}

}  // namespace kai
