// Writes a log with the real code into a directory, and everything about it that independent.py then checks: the
// records, key.pub, checkpoints, proofs, and an export.
#include <cstdio>
#include <fstream>

#include "audit/export.h"
#include "audit/record.h"
#include "base/base64.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/audit_reader.h"

namespace kai {
namespace {

constexpr std::uint64_t kBatches = 40;

void must(const Result<>& result) {
  if (result) return;
  std::fprintf(stderr, "make-log: %s\n", result.error().message().c_str());
  std::exit(1);
}

template <typename T>
T must(Result<T> result) {
  if (!result) must(Result<>(tl::unexpected(result.error())));
  return std::move(*result);
}

void put(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

void wait(EventLoop& loop, AuditLog& audit, bool rotate = false) {
  bool done = false;
  const auto finish = [&done](const Result<>& result) {
    must(result);
    done = true;
  };
  if (rotate) {
    audit.rotate_key(finish);
  } else {
    audit.when_durable(finish);
  }
  loop.run_until([&done] { return done; });
}

void write_export(AuditReader& reader, const std::string& path, const std::string& agent, const std::string& note) {
  const std::uint64_t size = must(audit::parse_checkpoint(note)).size;
  const auto records = must(reader.records(agent, 0, size, 100'000));
  const auto closing = audit::parse_record(records.back().body);
  audit::ExportSum sum;
  std::string text =
      audit::format_export_header({agent, std::string(closing->timestamp), note, must(reader.rotations(size))}) + "\n";
  for (const auto& record : records) {
    if (&record != &records.front()) text.append(audit::kExportSeparator).append("\n");
    const std::string line = must(reader.listed(record, note, size));
    sum.add(line);
    text += line + "\n";
  }
  put(path, text + audit::format_export_footer(sum.hex()) + "\n");
}

int run(const std::string& directory) {
  LogOptions options;
  options.stream = -1;
  auto log = must(Log::open(options));
  EventLoop loop;
  auto audit = must(AuditLog::open(loop, *log, directory + "/audit"));
  put(directory + "/first-key.pub", audit->head().public_key);
  std::string notes;
  for (std::uint64_t batch = 0; batch < kBatches; ++batch) {
    for (std::uint64_t at = 0; at <= batch; ++at) {
      audit->append(at % 2 == 0 ? "a1" : "b2", "message_received", R"({"from":"caf\u00e9","size":3})");
    }
    if (batch == kBatches / 2) wait(loop, *audit, true);
    wait(loop, *audit);
    notes += audit->head().note + "--\n";
  }
  audit->append_exported("a1");
  wait(loop, *audit);
  const std::string note = audit->head().note;
  put(directory + "/notes", notes + note);
  auto reader = must(AuditReader::open(directory + "/audit"));
  const std::uint64_t size = must(audit::parse_checkpoint(note)).size;
  std::string proofs;
  for (std::uint64_t old_size = 1; old_size <= size; old_size += 7) {
    proofs += std::to_string(old_size);
    for (const audit::Hash& hash : must(audit::consistency_path(*reader, old_size, size))) {
      proofs += ' ';
      append_base64(proofs, audit::bytes_of(hash));
    }
    proofs += '\n';
  }
  put(directory + "/consistency", proofs);
  write_export(*reader, directory + "/export.json", "a1", note);
  return 0;
}

}  // namespace
}  // namespace kai

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make-log DIRECTORY\n");
    return 2;
  }
  return kai::run(argv[1]);
}
