#include "supervisor/memory/memory_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "supervisor/memory/request_check.h"

namespace kai {
namespace {

// Entries that have expired and are deleted with one transaction, so that no agent waits long for another's.
constexpr std::int64_t kSweptAtOnce = 1'000;

klp::MemoryAnswer refusal(klp::MemoryError error) {
  klp::MemoryAnswer answer;
  *answer.mutable_error() = std::move(error);
  return answer;
}

}  // namespace

MemoryFile::MemoryFile(const ExpiryClock& clock, MemoryTerms terms, SqliteFile file)
    : clock_(clock),
      terms_(std::move(terms)),
      file_(std::move(file)),
      account_(terms_.max_bytes, {}),
      unusable_(memory_error("UNAVAILABLE", "the agent's memory is not open yet: try again")) {}

void MemoryFile::reset_counts(const Entries::Counters& counters, const MemoryUsage& used) {
  if (entries_) entries_->reset(counters);
  account_.reset(used);
}

std::vector<klp::MemoryAnswer> MemoryFile::perform(const std::vector<const klp::MemoryRequest*>& requests) {
  std::vector<klp::MemoryAnswer> answers;
  if (unusable_) return std::vector(requests.size(), refusal(*unusable_));
  const Entries::Counters counters = entries_->counters();
  const MemoryUsage used = account_.used();
  if (auto done = write_batch(requests, answers); !done) {
    reset_counts(counters, used);
    return std::vector(requests.size(), refusal(fail(done.error())));
  }
  return answers;
}

Result<> MemoryFile::write_batch(const std::vector<const klp::MemoryRequest*>& requests,
                                 std::vector<klp::MemoryAnswer>& answers) {
  const std::int64_t now = clock_.now_ms();
  const auto expired = entries_->has_expired(now);
  if (!expired) return tl::unexpected(expired.error());
  const bool writes = *expired || std::any_of(requests.begin(), requests.end(), [](const klp::MemoryRequest* request) {
    return Entries::writes(*request);
  });
  // What only reads needs none: nobody else writes.
  Transaction transaction(*database_);
  if (writes) {
    if (auto begun = transaction.begin(); !begun) return begun;
  }
  if (*expired) {
    if (auto swept = entries_->sweep(now, kSweptAtOnce); !swept) return tl::unexpected(swept.error());
  }
  for (const klp::MemoryRequest* request : requests) {
    auto answer = entries_->perform(*request, now);
    if (!answer) return tl::unexpected(answer.error());
    answers.push_back(*std::move(answer));
  }
  if (!writes) return {};
  if (auto written = entries_->write_counters(); !written) return written;
  return transaction.commit();
}

klp::MemoryAnswer MemoryFile::perform(const klp::IdbRequest& request) {
  if (unusable_) return refusal(*unusable_);
  if (!indexed_db_) {
    return refusal(indexed_db_not_here());
  }
  auto outcome = indexed_db_->perform(request);
  if (!outcome) return refusal(as_storage_error(std::move(outcome.error())));
  klp::MemoryAnswer answer;
  *answer.mutable_indexed_db() = *std::move(outcome);
  return answer;
}

// What the file itself did not allow is told as for keys and values.
klp::MemoryError MemoryFile::as_storage_error(klp::MemoryError error) {
  if (error.code() != "INTERNAL") return error;
  return fail({std::move(*error.mutable_message()), 0, {}});
}

void MemoryFile::end_session() {
  if (indexed_db_) indexed_db_->abort_all();
}

// The files go, and new ones come in their place: nothing of what was written stays in free pages or in the log.
MemoryOutcome<> MemoryFile::clear() {
  end_session();
  // Versions are not used again, by nobody.
  const std::uint64_t version = entries_ ? entries_->counters().version : 0;
  close();
  unusable_ = memory_error("UNAVAILABLE", "the agent's memory was being cleared, and could not be made again");
  for (const char* part : {"-wal", "-shm", ""}) {
    const std::string path = file_.path + part;
    if (::unlink(path.c_str()) < 0 && errno != ENOENT) {
      const auto failed = errno_failure("unlink", path);
      unusable_->set_message(unusable_->message() + ": " + failed.value().message());
      return tl::unexpected(*unusable_);
    }
  }
  if (auto opened = open(); !opened) return opened;
  entries_->reset({version, {}});
  if (auto written = entries_->write_counters(); !written) return tl::unexpected(fail(written.error()));
  return {};
}

}  // namespace kai
