#include <filesystem>

#include <doctest/doctest.h>

#include "audit/checkpoint.h"
#include "audit/record.h"
#include "base/unix.h"
#include "supervisor/control/audit_store.h"
#include "tests/unit/audit/audit_fixture.h"

namespace kai::test {
namespace {

Result<> rotate(AuditFixture& f) {
  std::optional<Result<>> result;
  f.audit->rotate_key([&](const Result<>& rotated) { result = rotated; });
  run_until(f.loop, [&] { return result.has_value(); });
  f.key = f.audit->head().public_key;
  return *result;
}

TEST_CASE("a key is rotated by a record that the old one signs; any of the keys verifies all of the log") {
  AuditFixture f;
  f.fill(2, 5);
  const std::string first = f.key;
  REQUIRE(rotate(f));
  const std::string second = f.key;
  CHECK(first != second);
  CHECK(audit::PublicKey::parse(first)->name == audit::PublicKey::parse(second)->name);
  CHECK(*read_file(f.directory + "/key.pub") == second + "\n");
  f.fill(2, 5);
  REQUIRE(rotate(f));
  f.fill(1, 5);
  f.close();
  f.open();
  f.fill(1, 5);
  for (const std::string& key : {first, second, f.key}) {
    AuditCheck check{f.directory, key, {}};
    std::atomic<std::uint64_t> done = 0;
    auto report = check_stored_audit(check, done)->report;
    // key.pub is the newest; whoever has an older one sees that, and nothing else.
    std::erase_if(report.findings,
                  [](const audit::Finding& finding) { return finding.problem.starts_with("key.pub"); });
    CHECK_MESSAGE(report.valid(), report.text());
    CHECK(report.records == 32);
  }
}

TEST_CASE("sign an old part anew with the newer key: found") {
  AuditFixture f;
  f.fill(2, 5);
  REQUIRE(rotate(f));
  f.fill(1, 5);
  const auto newer = audit::SecretKey::parse(*read_file(f.directory + "/key"));
  REQUIRE(newer);
  const std::string note = f.query("SELECT CAST(note AS TEXT) FROM checkpoints WHERE size = 5");
  f.sql("UPDATE checkpoints SET note = CAST('" + newer->sign(audit::parse_checkpoint(note)->text()) +
        "' AS BLOB) WHERE size = 5");
  CHECK(finds(f.verify(), 5, "not in force then"));
}

TEST_CASE("a rotation without its record, or with another's key in it, is found") {
  AuditFixture f;
  f.fill(1, 5);
  REQUIRE(rotate(f));
  f.fill(1, 5);
  f.sql("DELETE FROM rotations");
  CHECK_FALSE(f.verify().valid());
  f.sql("INSERT INTO rotations VALUES(3)");
  CHECK_FALSE(f.verify().valid());
}

TEST_CASE("a rotation that a crash interrupted is finished where its record is in the log, else forgotten") {
  AuditFixture f;
  f.fill(1, 5);
  const std::string before = f.key;
  f.close();
  {
    auto store = std::move(*AuditStore::open(f.directory));
    REQUIRE(store->begin_rotation());
  }
  f.open();
  CHECK(f.key == before);
  CHECK_FALSE(std::filesystem::exists(f.directory + "/key.next"));
  f.close();
  {
    auto store = std::move(*AuditStore::open(f.directory));
    const std::string metadata = *store->begin_rotation();
    const std::string body = audit::format_record({6, 1, "01890a5d-ac96-774b-bcce-b302099a8057", "kaid",
                                                   "kai.key_rotated", "2026-05-04T13:00:00.000Z", metadata});
    REQUIRE(store->write({{6, 1, "kaid", body}}, false));
  }
  f.open();
  CHECK(f.key != before);
  f.fill(1, 5);
  const auto report = f.verify();
  CHECK_MESSAGE(report.valid(), report.text());
}

}  // namespace
}  // namespace kai::test
