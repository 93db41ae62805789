#include "supervisor/control/audit_log.h"

#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "audit/record.h"
#include "base/fault_point.h"
#include "base/text.h"
#include "supervisor/control/audit_store.h"

namespace kai {
namespace {

// What nobody waits for is signed and on the disk within 100 ms: this, and the time that a disk takes.
constexpr std::chrono::milliseconds kSealAfter{60};
constexpr std::chrono::milliseconds kRetryAfter{1000};
// Kept in memory while the disk takes nothing.
constexpr std::size_t kMaxPending = 65536;
constexpr std::size_t kMaxPendingBytes = 16 << 20;
// Agents whose last number is remembered; more are looked up again.
constexpr std::size_t kMaxCounters = 4096;
// Pages of 4 KiB: from here on the write-ahead log is moved into the database, by a thread of the pool; and from there
// on what is left is moved by this one, so that the log does not grow without end under a load that never pauses.
constexpr int kMoveAt = 1024;
constexpr int kMoveRestAt = 8192;

class StoredAudit : public AuditLog {
 public:
  StoredAudit(EventLoop& loop, Log& log, std::unique_ptr<AuditStore> store)
      : loop_(loop), log_(log), store_(std::move(store)), seq_(store_->size()), seal_timer_(loop), retry_timer_(loop) {
    tell_problems();
    if (store_->size() > store_->sealed_size()) seal_soon();
  }
  ~StoredAudit() override;

  void append(std::string_view agent, std::string_view event, std::string_view metadata_json) override;
  std::uint64_t append_exported(std::string_view agent) override;
  void flush() override;
  void when_durable(Durable done) override;
  std::optional<Failure> refusal() const override;
  void rotate_key(Durable done) override;

  ObserverId add_observer(Observer observer) override {
    observers_.emplace(++last_observer_, std::move(observer));
    return last_observer_;
  }
  void remove_observer(ObserverId id) override { observers_.erase(id); }
  std::uint64_t last_seq() const override { return seq_; }
  Head head() const override { return {store_->directory(), store_->note(), store_->public_key().text()}; }

 private:
  void tell_problems();
  Result<std::uint64_t> next_agent_seq(std::string_view agent);
  Result<> write();
  void notify(const std::deque<NewRecord>& written);
  void seal_soon();
  void sync();
  void synced(const Result<>& result);
  void answer(std::vector<Durable> waiting, const Result<>& result);
  void finish_rotation();
  void move_log();
  void fail(const Error& error);
  void retry();
  void later(std::function<void()> task);

  EventLoop& loop_;
  Log& log_;
  std::unique_ptr<AuditStore> store_;
  std::uint64_t seq_;
  std::map<std::string, std::uint64_t, std::less<>> agent_seqs_;  // the last that was given
  std::deque<NewRecord> pending_;
  std::size_t pending_bytes_ = 0;
  std::map<ObserverId, Observer> observers_;
  ObserverId last_observer_ = 0;

  std::vector<Durable> waiting_, syncing_for_;
  bool seal_wanted_ = false;  // somebody waits, or the time is over
  bool syncing_ = false;
  bool moving_ = false;
  Timer seal_timer_, retry_timer_;

  std::optional<Error> failing_;
  bool rewrite_ = false;    // a sync failed: the kernel may have dropped what it had
  std::uint64_t lost_ = 0;  // records that memory had no room for

  std::uint64_t rotation_seq_ = 0;  // of the record of a rotation under way
  Durable rotated_;

  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for tasks that the loop still holds
};

StoredAudit::~StoredAudit() {
  alive_.reset();
  loop_.finish_work();
  // The next start finds everything signed; what the disk does not take now is lost with this process, and its
  // callers were told.
  if (store_->write(pending_, true)) static_cast<void>(store_->sync(store_->note()));
}

void StoredAudit::later(std::function<void()> task) {
  loop_.defer([weak = std::weak_ptr<bool>(alive_), task = std::move(task)] {
    if (weak.lock()) task();
  });
}

void StoredAudit::tell_problems() {
  for (const audit::Finding& problem : store_->problems()) {
    std::string metadata = R"({"component":"audit","seq":)" + std::to_string(problem.seq) + R"(,"problem":)";
    append_json_string(metadata, problem.problem);
    append("", "error", metadata + "}");
    log_.write(
        LogLevel::kError, "", "error",
        "the audit was tampered with: " + audit::describe(problem) +
            "; agents go on, 'kaictl audit verify' goes on failing. Compare with a checkpoint or export that you "
            "kept elsewhere, then see docs/audit.md",
        {{"directory", store_->directory()}});
  }
}

Result<std::uint64_t> StoredAudit::next_agent_seq(std::string_view agent) {
  if (const auto found = agent_seqs_.find(agent); found != agent_seqs_.end()) return ++found->second;
  // What is in the database tells all that this one forgets, unless something waits to be written.
  if (agent_seqs_.size() >= kMaxCounters && pending_.empty()) agent_seqs_.clear();
  const auto stored = store_->last_agent_seq(agent);
  if (!stored) return stored;
  return agent_seqs_[std::string(agent)] = *stored + 1;
}

void StoredAudit::append(std::string_view agent, std::string_view event, std::string_view metadata_json) {
  if (agent.empty()) agent = "kaid";
  // Half is for what happens to agents: messages under way when the disk filled up may not push it out.
  const std::size_t share = event.starts_with("message_") ? 2 : 1;
  if (pending_.size() >= kMaxPending / share || pending_bytes_ >= kMaxPendingBytes / share) {
    ++lost_;
    return;
  }
  const auto agent_seq = next_agent_seq(agent);
  if (!agent_seq) {
    ++lost_;
    return fail(agent_seq.error());
  }
  NewRecord record{++seq_, *agent_seq, std::string(agent), {}};
  const std::string id = new_uuid();
  const std::string now = iso_now();
  record.body = audit::format_record({record.seq, record.agent_seq, id, agent, event, now, metadata_json});
  pending_bytes_ += record.body.size();
  pending_.push_back(std::move(record));
  // Somebody may append outside of any round that ends with a flush.
  if (pending_.size() == 1) later([this] { flush(); });
}

std::uint64_t StoredAudit::append_exported(std::string_view agent) {
  const auto agent_seq = next_agent_seq(agent);
  if (!agent_seq) {
    fail(agent_seq.error());
    return 0;
  }
  // append() counts on from what is asked here.
  --agent_seqs_[std::string(agent)];
  const std::uint64_t before = seq_;
  append(agent, "kai.exported", R"({"agentSeq":)" + std::to_string(*agent_seq) + "}");
  return seq_ == before ? 0 : seq_;
}

void StoredAudit::flush() {
  if (failing_ || (pending_.empty() && (!seal_wanted_ || syncing_))) return;
  if (auto written = write(); !written) fail(written.error());
}

/// One transaction for all of the round; with the checkpoint, if one is due.
Result<> StoredAudit::write() {
  const bool seal = seal_wanted_ && !syncing_;
  fault_point("before commit");
  if (auto written = store_->write(pending_, seal); !written) return written;
  fault_point("after commit");
  const std::deque<NewRecord> written = std::exchange(pending_, {});
  pending_bytes_ = 0;
  if (seal) {
    sync();
  } else {
    seal_soon();
  }
  notify(written);
  return {};
}

void StoredAudit::notify(const std::deque<NewRecord>& written) {
  if (observers_.empty()) return;
  for (const NewRecord& record : written) {
    for (const auto& [id, observer] : std::map(observers_)) {
      if (observers_.contains(id)) observer(record.agent, record.body);
    }
  }
}

void StoredAudit::seal_soon() {
  if (seal_timer_.active()) return;
  seal_timer_.start(kSealAfter, [this] {
    seal_wanted_ = true;
    flush();
  });
}

/// Everybody who came while the last one was under way shares the next.
void StoredAudit::sync() {
  syncing_ = true;
  seal_wanted_ = false;
  seal_timer_.stop();
  syncing_for_ = std::exchange(waiting_, {});
  const auto result = std::make_shared<Result<>>();
  loop_.work([store = store_.get(), note = store_->note(), result] { *result = store->sync(note); },
             [this, result, weak = std::weak_ptr<bool>(alive_)] {
               if (weak.lock()) synced(*result);
             });
}

void StoredAudit::synced(const Result<>& result) {
  syncing_ = false;
  answer(std::exchange(syncing_for_, {}), result);
  if (!result) {
    rewrite_ = true;
    return fail(result.error());
  }
  if (rotation_seq_ != 0 && store_->sealed_size() >= rotation_seq_) finish_rotation();
  if (!waiting_.empty()) seal_wanted_ = true;
  if (store_->size() > store_->sealed_size()) seal_soon();
  move_log();
  flush();
}

void StoredAudit::answer(std::vector<Durable> waiting, const Result<>& result) {
  if (waiting.empty()) return;
  later([waiting = std::move(waiting), result] {
    for (const Durable& done : waiting) done(result);
  });
}

void StoredAudit::when_durable(Durable done) {
  if (failing_) return answer({std::move(done)}, tl::unexpected(*failing_));
  waiting_.push_back(std::move(done));
  seal_wanted_ = true;
  later([this] { flush(); });
}

std::optional<Failure> StoredAudit::refusal() const {
  if (!failing_) return std::nullopt;
  return Failure{"UNAVAILABLE",
                 "the audit cannot be written: " + failing_->message(),
                 "Make room on the disk that holds " + store_->directory() + "; kaid tries again every second",
                 {},
                 true};
}

void StoredAudit::fail(const Error& error) {
  if (!failing_) {
    log_.write(LogLevel::kError, "", "error",
               "the audit cannot be written: " + error.message() +
                   "; nothing new is begun until it can, and records are kept in memory meanwhile");
  }
  failing_ = error;
  answer(std::exchange(waiting_, {}), tl::unexpected(error));
  if (!retry_timer_.active()) retry_timer_.start(kRetryAfter, [this] { retry(); });
}

void StoredAudit::retry() {
  if (syncing_) return retry_timer_.start(kRetryAfter, [this] { retry(); });
  if (rewrite_) {
    if (auto done = store_->rewrite(); !done) return fail(done.error());
    rewrite_ = false;
  }
  seal_wanted_ = true;
  if (auto written = write(); !written) return fail(written.error());
  failing_.reset();
  const std::uint64_t lost = std::exchange(lost_, 0);
  log_.write(LogLevel::kInfo, "", "audit", "the audit is written again", {{"lost", lost}});
  if (lost > 0) append("", "error", R"({"component":"audit","lostRecords":)" + std::to_string(lost) + "}");
}

void StoredAudit::move_log() {
  if (moving_ || store_->log_pages() < kMoveAt) return;
  moving_ = true;
  const auto result = std::make_shared<Result<>>();
  loop_.work([store = store_.get(), result] { *result = store->move_log(); },
             [this, result, weak = std::weak_ptr<bool>(alive_)] {
               if (!weak.lock()) return;
               moving_ = false;
               if (*result && store_->log_pages() >= kMoveRestAt) *result = store_->move_rest();
               if (!*result) {
                 log_.write(LogLevel::kWarn, "", "audit",
                            "the audit's write-ahead log cannot be moved into its database: " +
                                result->error().message() + "; tried again with the next records");
               }
             });
}

void StoredAudit::rotate_key(Durable done) {
  if (failing_) return answer({std::move(done)}, tl::unexpected(*failing_));
  if (rotation_seq_ != 0)
    return answer({std::move(done)}, failure("rotate the audit's key", "a rotation is under way"));
  const auto metadata = store_->begin_rotation();
  if (!metadata) return answer({std::move(done)}, tl::unexpected(metadata.error()));
  const std::uint64_t before = seq_;
  append("", "kai.key_rotated", *metadata);
  if (seq_ == before) return answer({std::move(done)}, failure("rotate the audit's key", "the audit is not written"));
  rotation_seq_ = seq_;
  rotated_ = std::move(done);
  when_durable([](const Result<>&) {});  // finish_rotation() comes with it, or with the next one that succeeds
}

void StoredAudit::finish_rotation() {
  rotation_seq_ = 0;
  answer({std::exchange(rotated_, nullptr)}, store_->finish_rotation());
}

}  // namespace

Result<std::unique_ptr<AuditLog>> AuditLog::open(EventLoop& loop, Log& log, const std::string& directory) {
  auto store = AuditStore::open(directory);
  if (!store) return tl::unexpected(store.error());
  return std::make_unique<StoredAudit>(loop, log, std::move(*store));
}

}  // namespace kai
