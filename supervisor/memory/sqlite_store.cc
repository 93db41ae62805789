#include "supervisor/memory/sqlite_store.h"

#include <deque>
#include <latch>
#include <map>

#include "supervisor/memory/request_check.h"
#include "supervisor/memory/schedule.h"
#include "supervisor/memory/sqlite_job.h"

namespace kai {
namespace {

// What waits of one context, beyond which it is BUSY; and what one job takes of it.
constexpr std::size_t kMaxWaiting = 1'024;
constexpr std::size_t kMaxWaitingBytes = 16 << 20;
constexpr std::size_t kBatch = 256;
constexpr std::size_t kBatchBytes = 4 << 20;
// One turn is kept for keys and values.
constexpr std::size_t kMaxIdbTurns = kMaxIdbTransactions - 1;

using Ticket = Schedule::Ticket;

using sqlite::Clear;
using sqlite::close_file;
using sqlite::EndSession;
using sqlite::Open;
using sqlite::RestoreFrom;
using sqlite::SaveTo;
using sqlite::Shared;
using sqlite::Task;

// Files whose store has ended and which a worker thread still has to close, by path, and when that is done. Of the
// whole process, as files are; the loop's thread alone.
std::map<std::string, std::shared_ptr<std::latch>>& closing_files() {
  static std::map<std::string, std::shared_ptr<std::latch>> files;
  return files;
}

// Whoever waits for the batch is answered, though a job may run: that uses neither `answer` nor `done` of a task.
void end_batch(Shared& shared, const klp::MemoryError& ended) {
  const std::size_t performed = shared.done ? shared.performed : 0;
  for (std::size_t i = 0; i < shared.batch.size(); ++i) {
    Task& task = shared.batch[i];
    if (i < performed) {
      task.deliver();
      continue;
    }
    if (task.answer) {
      klp::MemoryAnswer answer;
      answer.set_id(task.request()->id());
      *answer.mutable_error() = ended;
      std::exchange(task.answer, {})(std::move(answer));
    } else if (task.done) {
      std::exchange(task.done, {})(tl::unexpected(ended));
    }
  }
}

class SqliteStore : public MemoryStore {
 public:
  SqliteStore(EventLoop& loop, const ExpiryClock& clock, MemoryTerms terms, SqliteFile file)
      : loop_(loop),
        has_indexed_db_(file.indexed_db),
        path_(file.path),
        patience_(loop),
        shared_(std::make_shared<Shared>(clock, std::move(terms), std::move(file))) {}
  ~SqliteStore() override;

  void open(Done done) override { put(keys_, {Open{take_file()}, {}, std::move(done)}); }
  void perform(klp::MemoryRequest&& request, Answer answer) override;
  void clear(Done done) override { put(keys_, {Clear{take_file()}, {}, std::move(done)}); }
  void save(Fd file, std::string exported_at, Done done) override {
    put(keys_, {SaveTo{std::move(file), std::move(exported_at)}, {}, std::move(done)});
  }
  void restore(Fd file, Done done) override { put(keys_, {RestoreFrom{std::move(file)}, {}, std::move(done)}); }
  void end_session() override;
  [[nodiscard]] MemoryUsage usage() const override { return usage_; }

 private:
  std::shared_ptr<std::latch> take_file();
  void close_later();
  void put(std::deque<Task>& queue, Task&& task);
  void refuse(Task&& task, klp::MemoryError error);
  void perform_indexed_db(Task&& task);
  void wait_for_turn(Task&& task, klp::IdbMode mode);
  void wake();
  void pump();
  void abort_overdue();
  void take_turns();
  void ask_turn_for_keys();
  std::vector<Task> next_batch();
  void take(std::deque<Task>& queue, std::vector<Task>& batch, std::size_t& bytes);
  void finish_job();
  void follow(const Task& task);
  void deliver();

  EventLoop& loop_;
  const bool has_indexed_db_;
  const std::string path_;
  bool file_taken_ = false;             // it may be open
  std::shared_ptr<std::latch> before_;  // when the store before this one has closed it
  std::deque<Task> keys_;               // keys and values, and what concerns the whole context
  std::deque<Task> ready_;              // IndexedDB's whose turn it is
  std::map<Ticket, Task> turnless_;     // IndexedDB's that wait for their turn
  std::deque<Task> finished_;           // to be answered
  std::size_t waiting_ = 0, waiting_bytes_ = 0;

  Schedule schedule_;
  Ticket last_ticket_ = 0;
  Ticket keys_ticket_ = 0;                        // of keys_, where it asked for a turn; or 0
  std::map<std::uint64_t, Ticket> transactions_;  // those that are open
  std::size_t idb_turns_ = 0;                     // asked for, and not over
  Timer patience_;

  bool woken_ = false, delivering_ = false, working_ = false;
  std::size_t idb_in_job_ = 0;  // so many of its tasks, from the front, are of ready_
  MemoryUsage usage_;
  std::shared_ptr<Shared> shared_;
};

SqliteStore::~SqliteStore() {
  shared_->store_lives = false;
  shared_->ended = true;
  close_later();  // first: whoever is answered may open another on the same file
  const klp::MemoryError ended =
      memory_error("UNAVAILABLE", "the agent's memory was closed before this was done: try again");
  const auto drop = [&](Task& task) {
    task.refuse(ended);
    task.deliver();
  };
  for (Task& task : std::exchange(finished_, {})) task.deliver();
  if (working_) end_batch(*shared_, ended);
  for (Task& task : std::exchange(ready_, {})) drop(task);
  for (auto& [ticket, task] : std::exchange(turnless_, {})) drop(task);
  for (Task& task : std::exchange(keys_, {})) drop(task);
}

// What open() and clear() wait for, on the worker thread.
std::shared_ptr<std::latch> SqliteStore::take_file() {
  if (file_taken_) return before_;
  file_taken_ = true;
  const auto found = closing_files().find(path_);
  if (found != closing_files().end()) before_ = found->second;
  return before_;
}

// Not here: SQLite writes its log into the file then.
void SqliteStore::close_later() {
  if (!file_taken_) return;
  auto closed = std::make_shared<std::latch>(1);
  closing_files()[path_] = closed;
  loop_.work(
      [shared = shared_, before = before_, closed] {
        close_file(*shared, before.get());
        closed->count_down();
      },
      [path = path_, closed] {
        const auto found = closing_files().find(path);
        if (found != closing_files().end() && found->second == closed) closing_files().erase(found);
      });
}

void SqliteStore::put(std::deque<Task>& queue, Task&& task) {
  queue.push_back(std::move(task));
  ask_turn_for_keys();
  wake();
}

void SqliteStore::refuse(Task&& task, klp::MemoryError error) {
  task.refuse(error);
  task.bytes = 0;
  finished_.push_back(std::move(task));
  wake();
}

void SqliteStore::perform(klp::MemoryRequest&& request, Answer answer) {
  const std::size_t bytes = request.ByteSizeLong() + sizeof(Task);
  auto refused = check_memory_request(request);
  Task task{std::move(request), std::move(answer), {}, bytes};
  if (waiting_ >= kMaxWaiting || waiting_bytes_ + bytes > kMaxWaitingBytes) {
    refused = memory_error("BUSY", "too many requests of this agent's memory wait already: wait for answers first");
  } else if (task.request()->has_indexed_db() && !has_indexed_db_) {
    refused = indexed_db_not_here();
  }
  if (refused) {
    refuse(std::move(task), *std::move(refused));
    return;
  }
  ++waiting_;
  waiting_bytes_ += bytes;
  if (task.is_key_value()) {
    put(keys_, std::move(task));
  } else {
    perform_indexed_db(std::move(task));
  }
}

void SqliteStore::perform_indexed_db(Task&& task) {
  const klp::IdbRequest& request = task.request()->indexed_db();
  if (request.has_begin()) {
    const klp::IdbMode mode = request.begin().mode();
    wait_for_turn(std::move(task), mode);
  } else if (request.has_delete_database()) {
    wait_for_turn(std::move(task), klp::VERSIONCHANGE);
  } else {
    if (const auto found = transactions_.find(request.transaction()); found != transactions_.end()) {
      task.ticket = found->second;
      schedule_.touch(task.ticket, loop_.now_ms());
    }
    put(ready_, std::move(task));
  }
}

void SqliteStore::wait_for_turn(Task&& task, klp::IdbMode mode) {
  if (idb_turns_ >= kMaxIdbTurns || !schedule_.ask(last_ticket_ + 1, mode, loop_.now_ms())) {
    --waiting_;
    waiting_bytes_ -= task.bytes;
    refuse(std::move(task),
           memory_error("BUSY", std::to_string(kMaxIdbTurns) + " IndexedDB transactions are open or wait already"));
    return;
  }
  ++idb_turns_;
  task.ticket = ++last_ticket_;
  turnless_.emplace(task.ticket, std::move(task));
  wake();
}

void SqliteStore::end_session() {
  for (auto& [ticket, task] : turnless_) {
    schedule_.end(ticket);
    --idb_turns_;
    --waiting_;
    waiting_bytes_ -= task.bytes;
    refuse(std::move(task), memory_error("UNAVAILABLE", "the agent's process ended before this was its turn"));
  }
  turnless_.clear();
  put(ready_, {EndSession{}, {}, {}});
}

// After the callbacks of this round, so that what comes together is carried out together.
void SqliteStore::wake() {
  if (woken_) return;
  woken_ = true;
  loop_.defer([shared = shared_, this] {
    if (!shared->store_lives) return;
    woken_ = false;
    pump();
    deliver();  // the last: whoever is answered may end the store
  });
}

void SqliteStore::pump() {
  if (working_) return;
  abort_overdue();
  take_turns();
  if (const auto deadline = schedule_.deadline()) {
    patience_.start(std::chrono::milliseconds(*deadline - loop_.now_ms()), [this] { pump(); });
  } else {
    patience_.stop();
  }
  std::vector<Task> batch = next_batch();
  if (batch.empty()) return;
  working_ = true;
  shared_->batch = std::move(batch);
  shared_->done = false;
  shared_->asked.clear();
  for (const auto& [transaction, ticket] : transactions_) shared_->asked.insert(transaction);
  loop_.work([shared = shared_] { sqlite::perform_batch(*shared); },
             [shared = shared_, this] {
               if (shared->store_lives) finish_job();
             });
}

void SqliteStore::abort_overdue() {
  for (const Ticket ticket : schedule_.overdue(loop_.now_ms())) {
    for (const auto& [transaction, of] : transactions_) {
      if (of != ticket) continue;
      klp::MemoryRequest request;
      request.mutable_indexed_db()->set_transaction(transaction);
      request.mutable_indexed_db()->mutable_abort();
      schedule_.touch(ticket, loop_.now_ms());
      ready_.push_back({std::move(request), {}, {}, 0, ticket});
    }
  }
}

// One for all of them.
void SqliteStore::ask_turn_for_keys() {
  if (keys_.empty() || keys_ticket_ != 0) return;
  if (schedule_.ask(last_ticket_ + 1, klp::READONLY, loop_.now_ms())) keys_ticket_ = ++last_ticket_;
}

void SqliteStore::take_turns() {
  ask_turn_for_keys();
  for (const Ticket ticket : schedule_.start(loop_.now_ms())) {
    const auto found = turnless_.find(ticket);
    if (found == turnless_.end()) continue;  // it is that of keys_
    ready_.push_back(std::move(found->second));
    turnless_.erase(found);
  }
}

void SqliteStore::take(std::deque<Task>& queue, std::vector<Task>& batch, std::size_t& bytes) {
  while (!queue.empty() && batch.size() < kBatch && (bytes == 0 || bytes + queue.front().bytes <= kBatchBytes)) {
    bytes += queue.front().bytes;
    batch.push_back(std::move(queue.front()));
    queue.pop_front();
  }
}

std::vector<Task> SqliteStore::next_batch() {
  std::vector<Task> batch;
  std::size_t bytes = 0;
  take(ready_, batch, bytes);
  idb_in_job_ = batch.size();
  if (keys_ticket_ != 0 && schedule_.runs(keys_ticket_)) take(keys_, batch, bytes);
  return batch;
}

void SqliteStore::finish_job() {
  working_ = false;
  usage_ = shared_->usage;
  std::vector<Task> batch = std::exchange(shared_->batch, {});
  if (batch.size() > idb_in_job_) {
    // The rest asks for another turn: an IndexedDB writer that waits goes first.
    schedule_.end(keys_ticket_);
    keys_ticket_ = 0;
  }
  // What was not carried out comes first the next time.
  for (; batch.size() > shared_->performed; batch.pop_back()) {
    (batch.size() > idb_in_job_ ? keys_ : ready_).push_front(std::move(batch.back()));
  }
  for (Task& task : batch) {
    follow(task);
    if (task.bytes > 0) {
      --waiting_;
      waiting_bytes_ -= task.bytes;
    }
    finished_.push_back(std::move(task));
  }
  for (const std::uint64_t transaction : shared_->over) {
    const auto found = transactions_.find(transaction);
    schedule_.end(found->second);
    --idb_turns_;
    transactions_.erase(found);
  }
  wake();
}

// Keeps the turns of IndexedDB's transactions.
void SqliteStore::follow(const Task& task) {
  if (task.request() == nullptr || !task.request()->has_indexed_db() || task.ticket == 0) return;
  const klp::IdbRequest& request = task.request()->indexed_db();
  if (!request.has_begin() && !request.has_delete_database()) {
    schedule_.touch(task.ticket, loop_.now_ms());
  } else if (const std::uint64_t begun = sqlite::begun_by(task); begun != 0) {
    transactions_[begun] = task.ticket;
    schedule_.touch(task.ticket, loop_.now_ms());
  } else {
    schedule_.end(task.ticket);
    --idb_turns_;
  }
}

void SqliteStore::deliver() {
  if (delivering_) return;
  delivering_ = true;
  const std::shared_ptr<Shared> shared = shared_;
  while (!finished_.empty()) {
    Task task = std::move(finished_.front());
    finished_.pop_front();
    task.deliver();
    if (!shared->store_lives) return;  // whoever was answered ended the store, which answered the rest
  }
  delivering_ = false;
}

}  // namespace

std::unique_ptr<MemoryStore> make_sqlite_store(EventLoop& loop, const ExpiryClock& clock, MemoryTerms terms,
                                               SqliteFile file) {
  return std::make_unique<SqliteStore>(loop, clock, std::move(terms), std::move(file));
}

}  // namespace kai
