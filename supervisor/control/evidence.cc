#include "supervisor/control/evidence.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"
#include "base/unix.h"
#include "supervisor/control/log_file.h"

namespace kai {
namespace {

constexpr std::size_t kLogLines = 200;

void append_list(std::string& json, std::string_view name, const std::vector<std::string>& objects) {
  json.append(",\"").append(name).append("\":[");
  for (std::size_t at = 0; at < objects.size(); ++at) json.append(at == 0 ? "" : ",").append(objects[at]);
  json += ']';
}

void append_text(std::string& json, std::string_view name, std::string_view text) {
  json.append(",\"").append(name).append("\":");
  append_json_string(json, text);
}

Result<std::vector<std::string>> last_records(const std::string& directory, const std::string& agent) {
  LogFilter filter;
  filter.agent = agent;
  filter.last = kLogLines;
  auto reader = LogReader::open(directory, filter);
  if (!reader) return tl::unexpected(reader.error());
  std::vector<std::string> records;
  for (bool done = false; !done;) {
    auto batch = reader->next(kLogLines);
    if (!batch) return tl::unexpected(batch.error());
    for (std::string& record : batch->records) records.push_back(std::move(record));
    done = batch->done;
  }
  return records;
}

}  // namespace

Result<> write_evidence(const Evidence& evidence, const std::string& log_directory, const std::string& path) {
  const auto records = last_records(log_directory, evidence.agent);
  if (!records) return tl::unexpected(records.error());
  std::string json = R"({"agentId":)";
  append_json_string(json, evidence.agent);
  append_text(json, "takenAt", evidence.taken_at);
  json.append(R"(,"quarantine":)").append(evidence.reason_json);
  if (!evidence.last_end_json.empty()) json.append(R"(,"lastEnd":)").append(evidence.last_end_json);
  append_list(json, "log", *records);
  append_list(json, "denials", evidence.denials);
  append_list(json, "messages", evidence.messages);
  if (!evidence.processes.empty()) append_text(json, "processes", evidence.processes);
  if (!evidence.processes_missing.empty()) append_text(json, "processesMissing", evidence.processes_missing);
  json += "}\n";

  const std::string fresh = path + ".new";
  unlink(fresh.c_str());
  const Fd file(open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return errno_failure("open", fresh);
  if (auto written = write_all(file.get(), json); !written) return written;
  if (fsync(file.get()) < 0) return errno_failure("fsync", fresh);
  if (rename(fresh.c_str(), path.c_str()) < 0) return errno_failure("rename", path);
  return {};
}

}  // namespace kai
