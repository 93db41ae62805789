// What sqlite_store gives to a worker thread at once, and how it is carried out there.
#pragma once

#include <atomic>
#include <cstdint>
#include <latch>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "supervisor/memory/memory_file.h"
#include "supervisor/memory/schedule.h"
#include "supervisor/memory/store.h"

namespace kai::sqlite {

struct SaveTo {
  Fd file;
  std::string exported_at;
};
struct RestoreFrom {
  Fd file;
};
// `after`: a store before this one closes the same file until then; or nullptr.
struct Open {
  std::shared_ptr<std::latch> after;
};
struct Clear {
  std::shared_ptr<std::latch> after;
};
struct EndSession {};

// One thing to do, and who waits for it.
struct Task {
  std::variant<klp::MemoryRequest, Open, Clear, SaveTo, RestoreFrom, EndSession> work;
  MemoryStore::Answer answer;
  MemoryStore::Done done;
  std::size_t bytes = 0;        ///< of a request; 0: it does not count among what waits
  Schedule::Ticket ticket = 0;  ///< of the IndexedDB transaction that it belongs to, if any
  klp::MemoryAnswer said;       ///< what a job made of a request
  MemoryOutcome<> outcome;

  [[nodiscard]] const klp::MemoryRequest* request() const { return std::get_if<klp::MemoryRequest>(&work); }
  [[nodiscard]] bool is_key_value() const { return request() != nullptr && !request()->has_indexed_db(); }
  void refuse(const klp::MemoryError& error) {
    *said.mutable_error() = error;
    outcome = tl::unexpected(error);
  }
  void deliver() {
    if (request() != nullptr) {
      said.set_id(request()->id());
      if (answer) answer(std::move(said));
    } else if (done) {
      done(std::move(outcome));
    }
  }
};

// What a job and the store have in common. The store's end waits for no job: what a job has not begun then is left out,
// and another job closes the file (close_file). Of a task, `answer` and `done` are the loop's thread's alone.
struct Shared {
  Shared(const ExpiryClock& clock, MemoryTerms terms, SqliteFile file)
      : context(std::make_unique<MemoryFile>(clock, std::move(terms), std::move(file))) {}
  std::mutex running;  // held by the job; the worker threads' alone
  std::unique_ptr<MemoryFile> context;
  std::vector<Task> batch;
  std::atomic<bool> ended = false;  // the store's end: no further task is begun
  std::atomic<bool> done = false;   // the job was carried out; what follows is as of its end
  std::size_t performed = 0;        // so many tasks of the batch, from its front: the answers were large
  MemoryUsage usage;
  std::set<std::uint64_t> asked;  // transactions that were open before, or begin with the job
  std::set<std::uint64_t> over;   // those of them that are not open any more
  bool store_lives = true;        // the loop's thread alone
};

/// The IndexedDB transaction that a request began, or 0.
std::uint64_t begun_by(const Task& task);

/// The batch, on the worker thread.
void perform_batch(Shared& shared);
/// After the store's end, on a worker thread: once the job that runs is over and `after` was counted down.
void close_file(Shared& shared, const std::latch* after);

}  // namespace kai::sqlite
