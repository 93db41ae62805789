// An audit on real files in a directory of its own, and the knife that an attacker takes to it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "audit/report.h"
#include "supervisor/control/audit_check.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/log.h"
#include "supervisor/loop/event_loop.h"
#include "tests/unit/control/temp_directory.h"

namespace kai::test {

class AuditFixture {
 public:
  explicit AuditFixture(std::string directory = {});
  ~AuditFixture() { close(); }

  void open();
  void close() { audit.reset(); }
  /// What when_durable() says of everything appended so far.
  Result<> durable();
  /// `batches` checkpoints of records of the agents a1 and b2, `each` of them.
  void fill(int batches, int each);

  /// Of the files, with or without a daemon; with it, its own last checkpoint is remembered as `audit verify` does.
  audit::Report verify(const std::string& remembered = {});
  /// With another SQLite connection, as sqlite3(1) would.
  void sql(const std::string& text) const;
  std::string query(const std::string& text) const;

  /// Everything in the directory, to be put back later.
  void copy_to(const std::string& other) const;
  void copy_from(const std::string& other);

  TempDirectory temporary;
  std::string directory;
  EventLoop loop;
  std::unique_ptr<Log> log;
  std::unique_ptr<AuditLog> audit;
  std::string key;  ///< public, of the last time that it was open
};

/// Runs the loop until `met`; fails the test if that takes longer than any machine needs.
void run_until(EventLoop& loop, const std::function<bool()>& met);

/// A finding of that record whose problem has these words; shows the report where there is none.
bool finds(const audit::Report& report, std::uint64_t seq, const std::string& words);

}  // namespace kai::test
