// Every way to change what happened: each is found, and the record is named.
#include <fcntl.h>

#include <filesystem>

#include <doctest/doctest.h>

#include "audit/checkpoint.h"
#include "base/unix.h"
#include "supervisor/control/audit_store.h"
#include "tests/unit/audit/audit_fixture.h"

namespace kai::test {
namespace {

namespace fs = std::filesystem;

std::string edit_of(int seq) {
  return "UPDATE records SET body = CAST(replace(CAST(body AS TEXT), 'message_received', 'message_sentence') AS BLOB)"
         " WHERE seq = " +
         std::to_string(seq);
}

TEST_CASE("a log that nobody touched holds, open and closed") {
  AuditFixture f;
  CHECK(f.verify().valid());
  f.fill(5, 7);
  auto report = f.verify();
  CHECK_MESSAGE(report.valid(), report.text());
  CHECK(report.records == 35);
  CHECK(report.checkpoints == 5);
  f.close();
  CHECK(f.verify().valid());
  f.open();
  f.fill(2, 300);
  report = f.verify();
  CHECK_MESSAGE(report.valid(), report.text());
  CHECK(report.records == 635);
}

TEST_CASE("edit: the record is named, and only that one") {
  for (const bool running : {true, false}) {
    AuditFixture f;
    f.fill(6, 5);
    if (!running) f.close();
    f.sql(edit_of(13));
    const auto report = f.verify();
    REQUIRE_MESSAGE(report.findings.size() == 1, report.text());
    CHECK(report.findings[0].seq == 13);
    CHECK(report.findings[0].problem.find("edited") != std::string::npos);
    CHECK(report.findings[0].event == "message_sentence");
  }
}

TEST_CASE("edit of any record of a log, one after the other") {
  AuditFixture f;
  f.fill(3, 4);
  f.close();
  f.copy_to(f.temporary / "whole");
  for (std::uint64_t seq = 1; seq <= 12; ++seq) {
    f.copy_from(f.temporary / "whole");
    f.sql(edit_of(static_cast<int>(seq)));
    const auto report = f.verify();
    REQUIRE(report.findings.size() == 1);
    CHECK(report.findings[0].seq == seq);
  }
}

TEST_CASE("delete: the missing one is named") {
  AuditFixture f;
  f.fill(6, 5);
  f.sql("DELETE FROM records WHERE seq = 13");
  const auto report = f.verify();
  REQUIRE_MESSAGE(report.findings.size() == 1, report.text());
  CHECK(finds(report, 13, "missing"));
}

TEST_CASE("reorder: both are named, with whose place they are in") {
  AuditFixture f;
  f.fill(6, 5);
  f.sql(
      "UPDATE records SET seq = -1 WHERE seq = 4; UPDATE records SET seq = 4 WHERE seq = 9;"
      "UPDATE records SET seq = 9 WHERE seq = -1");
  const auto report = f.verify();
  CHECK(report.findings.size() == 2);
  CHECK(finds(report, 4, "it is record 9"));
  CHECK(finds(report, 9, "it is record 4"));
}

TEST_CASE("truncate: records alone, or with their checkpoints, running or before a start") {
  AuditFixture f;
  f.fill(6, 5);
  f.sql("DELETE FROM records WHERE seq > 28");
  CHECK(finds(f.verify(), 29, "missing"));
  f.sql("DELETE FROM records WHERE seq > 25; DELETE FROM checkpoints WHERE size > 25");
  CHECK(finds(f.verify(), 26, "missing"));
  f.close();
  f.open();
  // From now on it is known for good, also when the log has grown again.
  CHECK(finds(f.verify(), 26, "cut off or rolled back"));
  f.fill(4, 5);
  CHECK(finds(f.verify(), 26, "cut off or rolled back"));
  f.close();
  f.open();
  CHECK(finds(f.verify(), 26, "cut off or rolled back"));
  CHECK(read_file(f.temporary / "kaid.log", 1 << 20)->find("the audit was tampered with") != std::string::npos);
}

TEST_CASE("truncate records before a start, and continue: the missing are named, the log goes on behind them") {
  AuditFixture f;
  f.fill(6, 5);
  f.close();
  f.sql("DELETE FROM records WHERE seq > 28");
  f.open();
  CHECK(f.audit->last_seq() == 31);  // 30, and the record about it
  f.fill(1, 5);
  const auto report = f.verify();
  CHECK(finds(report, 29, "missing"));
  CHECK(finds(report, 30, "missing"));
}

TEST_CASE("roll back the database: kaid's own checkpoint beside it, and a remembered one, contradict") {
  AuditFixture f;
  f.fill(3, 5);
  f.close();
  fs::copy(f.directory + "/audit.db", f.temporary / "old.db");
  f.open();
  f.fill(3, 5);
  const std::string remembered = f.audit->head().note;
  f.close();
  fs::copy(f.temporary / "old.db", f.directory + "/audit.db", fs::copy_options::overwrite_existing);
  f.open();
  CHECK(finds(f.verify(), 16, "rolled back"));
  f.fill(5, 5);
  // Continued beyond the remembered size: it is another log that has that size.
  CHECK(finds(f.verify(remembered), 30, "not the one of the remembered checkpoint"));
}

TEST_CASE("roll back all of STATE/audit: only what was remembered elsewhere knows, and it does") {
  AuditFixture f;
  f.fill(3, 5);
  f.close();
  f.copy_to(f.temporary / "old");
  f.open();
  f.fill(3, 5);
  const std::string remembered = f.audit->head().note;
  f.close();
  f.copy_from(f.temporary / "old");
  f.open();
  CHECK(f.verify().valid());
  CHECK(finds(f.verify(remembered), 16, "cut off or rolled back"));
  f.fill(5, 5);
  CHECK(finds(f.verify(remembered), 30, "rolled back or replaced"));
}

TEST_CASE("put another database in the place of the one that kaid writes") {
  AuditFixture f;
  f.fill(3, 5);
  f.copy_to(f.temporary / "old");
  f.fill(3, 5);
  for (const char* name : {"/audit.db", "/audit.db-wal"}) {
    fs::remove(f.directory + name);
    fs::copy(f.temporary / ("old" + std::string(name)), f.directory + name);
  }
  fs::remove(f.directory + "/audit.db-shm");
  CHECK(finds(f.verify(), 16, "rolled back"));
}

TEST_CASE("sign again with another key: a checkpoint, all of them, or the whole log") {
  AuditFixture f;
  f.fill(4, 5);
  const audit::SecretKey other = audit::SecretKey::generate(audit::PublicKey::parse(f.key)->name);
  const auto resign = [&](int size) {
    const std::string note = f.query("SELECT CAST(note AS TEXT) FROM checkpoints WHERE size = " + std::to_string(size));
    f.sql("UPDATE checkpoints SET note = CAST('" + other.sign(audit::parse_checkpoint(note)->text()) +
          "' AS BLOB) WHERE size = " + std::to_string(size));
  };
  resign(10);
  const auto report = f.verify();
  REQUIRE(report.findings.size() == 1);
  CHECK(finds(report, 10, "not signed by the key"));
  for (const int size : {5, 15, 20}) resign(size);
  CHECK(finds(f.verify(), 20, "not signed by the key"));
  f.close();
  CHECK(finds(f.verify(), 5, "not signed by the key"));
  f.open();
  CHECK(finds(f.verify(), 20, "not ours"));
}

TEST_CASE("edit with the hashes beside it: the batch is named, and the log goes on being judged behind it") {
  AuditFixture f;
  f.fill(6, 5);
  f.sql(edit_of(13) + "; UPDATE checkpoints SET leaves = zeroblob(160) WHERE size = 15;" + edit_of(27));
  const auto report = f.verify();
  CHECK(report.findings.size() == 2);
  CHECK(finds(report, 11, "records 11 to 15"));
  CHECK(finds(report, 27, "edited"));
}

TEST_CASE("remove checkpoints: what they covered is covered by the next, and the last is missed") {
  AuditFixture f;
  f.fill(4, 5);
  f.sql("DELETE FROM checkpoints WHERE size = 10");
  CHECK(f.verify().valid());
  f.sql(edit_of(8));
  CHECK(finds(f.verify(), 6, "something was edited"));
  f.sql("DELETE FROM checkpoints");
  CHECK(finds(f.verify(), 20, "no checkpoint"));
}

TEST_CASE("put records in: behind the end, below the beginning") {
  AuditFixture f;
  f.fill(2, 5);
  f.sql("INSERT INTO records VALUES(-3, 'x'), (0, 'y')");
  CHECK(finds(f.verify(), 0, "no number above 0"));
  f.sql("DELETE FROM records WHERE seq < 1; INSERT INTO records VALUES(50, 'stray')");
  CHECK(finds(f.verify(), 11, "missing, or what follows is not of this log"));
  f.close();
  f.open();
  CHECK(f.query("SELECT seq FROM strays") == "50");
  CHECK(finds(f.verify(), 50, "moved to the table strays"));
  CHECK(f.audit->last_seq() == 11);
}

TEST_CASE("the key: lost, or another's") {
  AuditFixture f;
  f.fill(2, 5);
  f.close();
  fs::remove(f.directory + "/key");
  f.open();
  f.fill(1, 5);
  CHECK(finds(f.verify(), 0, "signing key was missing"));
  f.close();
  const std::string foreign = audit::SecretKey::generate().text();
  REQUIRE(write_file(f.directory + "/key", foreign));
  f.open();
  CHECK_FALSE(f.verify().valid());
}

TEST_CASE("the files beside the database: removed, emptied, edited") {
  AuditFixture f;
  f.fill(2, 5);
  f.close();
  f.copy_to(f.temporary / "whole");
  fs::remove(f.directory + "/checkpoint");
  f.open();
  CHECK(finds(f.verify(), 0, "checkpoint was missing"));
  f.close();
  f.copy_from(f.temporary / "whole");
  fs::resize_file(f.directory + "/checkpoint", 10);
  f.open();
  CHECK(finds(f.verify(), 0, "checkpoint cannot be read"));
  f.close();
  f.copy_from(f.temporary / "whole");
  f.open();
  REQUIRE(write_file(f.directory + "/key.pub", "x"));
  CHECK_FALSE(f.verify().valid());
}

TEST_CASE("a database that SQLite cannot read refuses the start and says what to do") {
  AuditFixture f;
  f.fill(2, 5);
  f.close();
  REQUIRE(write_file(f.directory + "/audit.db", std::string(4096, 'x')));
  auto refused = AuditLog::open(f.loop, *f.log, f.directory);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message().find("put a copy of it in its place") != std::string::npos);
  fs::resize_file(f.directory + "/audit.db", 0);
  refused = AuditLog::open(f.loop, *f.log, f.directory);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message().find("damaged") != std::string::npos);
  fs::remove(f.directory + "/audit.db");
  // Moved away: a new log begins, and kaid's checkpoint knows that there was another.
  f.open();
  CHECK(finds(f.verify(), 1, "rolled back"));
}

TEST_CASE("a database that is damaged in its middle is a finding, not an end of the check") {
  AuditFixture f;
  f.fill(4, 500);
  f.close();
  {
    const Fd file(::open((f.directory + "/audit.db").c_str(), O_WRONLY | O_CLOEXEC));
    const std::string garbage(4096, '\xAA');
    for (off_t page = 40; page < 60; ++page)
      REQUIRE(pwrite(file.get(), garbage.data(), garbage.size(), page * 4096) == 4096);
  }
  CHECK_FALSE(f.verify().valid());
}

}  // namespace
}  // namespace kai::test
