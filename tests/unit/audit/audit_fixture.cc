#include "tests/unit/audit/audit_fixture.h"

#include <sqlite3.h>

#include <filesystem>

namespace kai::test {

AuditFixture::AuditFixture(std::string where) : directory(where.empty() ? temporary / "audit" : std::move(where)) {
  LogOptions options;
  options.directory = temporary.path();
  options.level = LogLevel::kDebug;
  options.stream = -1;
  log = std::move(*Log::open(options));
  open();
}

void AuditFixture::open() {
  auto opened = AuditLog::open(loop, *log, directory);
  const std::string why = opened ? "" : opened.error().message();
  REQUIRE_MESSAGE(opened, why);
  audit = std::move(*opened);
  key = audit->head().public_key;
}

Result<> AuditFixture::durable() {
  std::optional<Result<>> result;
  audit->when_durable([&](const Result<>& durable) { result = durable; });
  run_until(loop, [&] { return result.has_value(); });
  return *result;
}

void AuditFixture::fill(int batches, int each) {
  for (int batch = 0; batch < batches; ++batch) {
    for (int at = 0; at < each; ++at) {
      audit->append(at % 3 == 2 ? "b2" : "a1", "message_received", R"({"size":)" + std::to_string(at) + "}");
    }
    REQUIRE(durable());
  }
}

audit::Report AuditFixture::verify(const std::string& remembered) {
  AuditCheck check{directory, key, {}};
  if (audit && !audit->head().note.empty()) check.remembered.push_back({audit->head().note, "kaid's last checkpoint"});
  if (!remembered.empty()) check.remembered.push_back({remembered, "the remembered checkpoint"});
  std::atomic<std::uint64_t> done = 0;
  const auto result = check_stored_audit(check, done);
  const std::string why = result ? "" : result.error().message();
  REQUIRE_MESSAGE(result, why);
  CHECK(done == result->report.records);
  return result->report;
}

namespace {

int take_row(void* text, int, char** values, char**) {
  *static_cast<std::string*>(text) += values[0] == nullptr ? "" : values[0];
  return 0;
}

}  // namespace

std::string AuditFixture::query(const std::string& text) const {
  sqlite3* database = nullptr;
  REQUIRE(sqlite3_open((directory + "/audit.db").c_str(), &database) == SQLITE_OK);
  std::string rows;
  char* error = nullptr;
  const int code = sqlite3_exec(database, text.c_str(), take_row, &rows, &error);
  const std::string why = error == nullptr ? "" : error;
  sqlite3_free(error);
  sqlite3_close(database);
  REQUIRE_MESSAGE(code == SQLITE_OK, why);
  return rows;
}

void AuditFixture::sql(const std::string& text) const {
  query(text);
}

void AuditFixture::copy_to(const std::string& other) const {
  std::filesystem::remove_all(other);
  std::filesystem::copy(directory, other, std::filesystem::copy_options::recursive);
}

void AuditFixture::copy_from(const std::string& other) {
  std::filesystem::remove_all(directory);
  std::filesystem::copy(other, directory, std::filesystem::copy_options::recursive);
}

void run_until(EventLoop& loop, const std::function<bool()>& met) {
  bool late = false;
  Timer guard(loop);
  guard.start(std::chrono::seconds(60), [&late] { late = true; });
  loop.run_until([&] { return late || met(); });
  REQUIRE_FALSE(late);
}

bool finds(const audit::Report& report, std::uint64_t seq, const std::string& words) {
  for (const audit::Finding& finding : report.findings) {
    if (finding.seq == seq && finding.problem.find(words) != std::string::npos) return true;
  }
  MESSAGE(report.text());
  return false;
}

}  // namespace kai::test
