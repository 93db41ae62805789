// kai-audit-bench DIRECTORY: how fast records become durable and signed, in batches and one at a time, and how fast a
// log is verified. By the code that kaid runs, without a daemon around it. DIRECTORY must not be there; its disk is
// what is measured.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "bench/report.h"
#include "supervisor/control/audit_check.h"
#include "supervisor/control/audit_log.h"

namespace kai::bench {
namespace {

constexpr int kBatch = 1000;
constexpr int kBatches = 300;
constexpr int kSingles = 2000;
constexpr int kVerifications = 3;

[[noreturn]] void give_up(const Error& error) {
  std::fprintf(stderr, "kai-audit-bench: %s\n", error.message().c_str());
  std::exit(1);
}

/// What a message's record is like.
void append(AuditLog& audit) {
  audit.append(
      "calendarAgent", "message_received",
      R"({"messageId":"01890a5d-ac96-774b-bcce-b302099a8057","from":"operator","capability":"echo","size":200})");
}

void wait(EventLoop& loop, AuditLog& audit) {
  bool done = false;
  audit.when_durable([&done](const Result<>& durable) {
    if (!durable) give_up(durable.error());
    done = true;
  });
  loop.run_until([&done] { return done; });
}

void measure_appending(EventLoop& loop, AuditLog& audit) {
  auto begin = Clock::now();
  for (int batch = 0; batch < kBatches; ++batch) {
    for (int at = 0; at < kBatch; ++at) append(audit);
    wait(loop, audit);
  }
  std::printf("%-36s %9.0f records/s in batches of %d   n %d\n", "audit durable and signed",
              kBatch * kBatches / (microseconds_since(begin) / 1e6), kBatch, kBatch * kBatches);
  Figure single{"audit durable and signed, one", {}};
  begin = Clock::now();
  for (int at = 0; at < kSingles; ++at) {
    const auto one = Clock::now();
    append(audit);
    wait(loop, audit);
    single.samples.push_back(microseconds_since(one));
  }
  std::printf("%-36s %9.0f records/s one at a time   n %d\n", "audit durable and signed",
              kSingles / (microseconds_since(begin) / 1e6), kSingles);
  print_figure(single);
}

void measure_verifying(const AuditLog::Head& head) {
  double best = 0;
  std::uint64_t records = 0;
  for (int round = 0; round < kVerifications; ++round) {
    std::atomic<std::uint64_t> done = 0;
    const auto begin = Clock::now();
    const auto result = check_stored_audit({head.directory, head.public_key, {}}, done);
    if (!result) give_up(result.error());
    if (!result->report.valid()) give_up({"the audit does not hold", 0, result->report.text()});
    records = result->report.records;
    best = std::max(best, static_cast<double>(records) / (microseconds_since(begin) / 1e6));
  }
  std::printf("%-36s %9.0f records/s   n %llu\n", "audit verified", best, static_cast<unsigned long long>(records));
}

int run(const std::string& directory) {
  LogOptions options;
  options.stream = -1;
  auto log = Log::open(options);
  if (!log) give_up(log.error());
  EventLoop loop;
  {
    auto audit = AuditLog::open(loop, **log, directory);
    if (!audit) give_up(audit.error());
    measure_appending(loop, **audit);
    measure_verifying((*audit)->head());
  }
  std::filesystem::remove_all(directory);
  return 0;
}

}  // namespace
}  // namespace kai::bench

int main(int argc, char** argv) {
  if (argc != 2 || std::filesystem::exists(argv[1])) {
    std::fprintf(stderr, "usage: kai-audit-bench DIRECTORY (which is made, and removed at the end)\n");
    return 2;
  }
  return kai::bench::run(argv[1]);
}
