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

std::vector<klp::MemoryAnswer> MemoryFile::perform(const std::vector<const klp::MemoryRequest*>& requests,
                                                   std::size_t most_bytes) {
  std::vector<klp::MemoryAnswer> answers;
  if (unusable_) return std::vector(requests.size(), refusal(*unusable_));
  forget_errors();
  const bool writes = std::any_of(requests.begin(), requests.end(),
                                  [](const klp::MemoryRequest* request) { return Entries::writes(*request); });
  const Entries::Counters counters = entries_->counters();
  const MemoryUsage used = account_.used();
  const auto done = writes ? write_batch(requests, most_bytes, answers) : read_batch(requests, most_bytes, answers);
  if (!done) {
    reset_counts(counters, used);
    return std::vector(requests.size(), refusal(fail(done.error())));
  }
  return answers;
}

Result<> MemoryFile::write_batch(const std::vector<const klp::MemoryRequest*>& requests, std::size_t most_bytes,
                                 std::vector<klp::MemoryAnswer>& answers) {
  const std::int64_t now = clock_.now_ms();
  Transaction transaction(*database_);
  if (auto begun = transaction.begin(); !begun) return begun;
  if (auto swept = entries_->sweep(now, kSweptAtOnce); !swept) return tl::unexpected(swept.error());
  if (auto done = answer_all(requests, now, most_bytes, answers); !done) return done;
  if (auto written = entries_->write_counters(); !written) return written;
  auto committed = transaction.commit();
  if (committed) sweeps_ = true;
  return committed;
}

// It needs no transaction: nobody else writes.
Result<> MemoryFile::read_batch(const std::vector<const klp::MemoryRequest*>& requests, std::size_t most_bytes,
                                std::vector<klp::MemoryAnswer>& answers) {
  const std::int64_t now = clock_.now_ms();
  if (sweeps_) {
    if (auto swept = sweep_alone(now); !swept) return swept;
  }
  return answer_all(requests, now, most_bytes, answers);
}

Result<> MemoryFile::answer_all(const std::vector<const klp::MemoryRequest*>& requests, std::int64_t now_ms,
                                std::size_t most_bytes, std::vector<klp::MemoryAnswer>& answers) {
  std::size_t bytes = 0;
  for (const klp::MemoryRequest* request : requests) {
    if (bytes >= most_bytes) return {};
    auto answer = entries_->perform(*request, now_ms);
    if (!answer) return tl::unexpected(answer.error());
    bytes += answer->ByteSizeLong();
    answers.push_back(*std::move(answer));
  }
  return {};
}

// Who reads does not see what has expired, swept or not: where nothing can be written now (a full disk, a file that
// somebody holds), it waits for the next write that can.
Result<> MemoryFile::sweep_alone(std::int64_t now_ms) {
  const auto expired = entries_->has_expired(now_ms);
  if (!expired) return tl::unexpected(expired.error());
  if (!*expired) return {};
  const Entries::Counters counters = entries_->counters();
  const MemoryUsage used = account_.used();
  const auto sweep = [&]() -> Result<> {
    Transaction transaction(*database_);
    if (auto begun = transaction.begin(); !begun) return begun;
    if (auto swept = entries_->sweep(now_ms, kSweptAtOnce); !swept) return tl::unexpected(swept.error());
    if (auto written = entries_->write_counters(); !written) return written;
    return transaction.commit();
  };
  const auto swept = sweep();
  if (swept) return {};
  const int code = database_->error_code();
  if (code != SQLITE_FULL && code != SQLITE_BUSY && code != SQLITE_READONLY) return swept;
  reset_counts(counters, used);
  forget_errors();
  sweeps_ = false;
  return {};
}

// What a request is told is of its own error, not of one before.
void MemoryFile::forget_errors() {
  if (database_) static_cast<void>(database_->take_error_code());
}

klp::MemoryAnswer MemoryFile::perform(const klp::IdbRequest& request) {
  if (unusable_) return refusal(*unusable_);
  if (!indexed_db_) {
    return refusal(indexed_db_not_here());
  }
  forget_errors();
  auto outcome = indexed_db_->perform(request);
  if (!outcome) return refusal(as_storage_error(std::move(outcome.error())));
  klp::MemoryAnswer answer;
  *answer.mutable_indexed_db() = *std::move(outcome);
  return answer;
}

// What the file itself did not allow is told as for keys and values.
klp::MemoryError MemoryFile::as_storage_error(klp::MemoryError error) {
  if (error.code() != "INTERNAL" || database_->error_code() == SQLITE_OK) return error;
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
      unusable_ = memory_error("UNAVAILABLE", unusable_->message() + ": " + failed.value().message());
      return tl::unexpected(*unusable_);
    }
  }
  if (auto opened = open(); !opened) return opened;
  entries_->reset({version, {}});
  if (auto written = entries_->write_counters(); !written) return tl::unexpected(fail(written.error()));
  return {};
}

}  // namespace kai
