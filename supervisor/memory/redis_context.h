// One context on redis: its queue, and the runs of the script (redis_script.h) that carry out what waits there.
// Requests are pipelined: redis carries them out one after another, in their order. What needs several runs (save,
// restore) runs alone.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "supervisor/memory/redis_link.h"
#include "supervisor/memory/store.h"

namespace kai {

inline constexpr std::size_t kMaxRedisInFlight = 64;
/// What waits or is under way, of one context; beyond it: BUSY.
inline constexpr std::size_t kMaxRedisQueue = 1'024, kMaxRedisQueueBytes = 16 << 20;

/// What one run of the script answered; views of the reply.
struct ScriptAnswer {
  std::string_view status;
  bool exists = false;
  MemoryUsage usage;
  std::uint64_t version = 0, changes = 0;
  bool due = false;
  std::span<redisReply* const> rest;  ///< strings, numbers and nils

  [[nodiscard]] std::string_view text(std::size_t i) const;  ///< empty where it is none
  [[nodiscard]] std::int64_t number(std::size_t i) const;    ///< 0 where it is none
  [[nodiscard]] bool is_text(std::size_t i) const;
};
/// A value with what it is kept with.
struct RedisRecord {
  std::uint64_t version = 0;
  std::int64_t expires_ms = 0;
  bool binary = false;
  std::string value;  ///< as the agent wrote it
};

class RedisContext final : public MemoryStore {
 public:
  RedisContext(EventLoop& loop, RedisServer::Link& link, const ExpiryClock& clock, MemoryTerms terms, RedisFile file);
  ~RedisContext() override;

  void open(Done done) override;
  void perform(klp::MemoryRequest&& request, Answer answer) override;
  void clear(Done done) override;
  void save(Fd file, std::string exported_at, Done done) override;
  void restore(Fd file, Done done) override;
  void end_session() override {}
  [[nodiscard]] MemoryUsage usage() const override { return usage_; }

 private:
  /// An agent's request, or what runs alone.
  struct Job {
    klp::MemoryRequest request;
    Answer answer;
    std::function<void()> alone;
    Done done;
    std::size_t bytes = 0;
  };
  /// A request that is under way: answers go out in the order of the requests.
  struct Flight {
    klp::MemoryAnswer result;
    Answer answer;
    std::size_t bytes = 0;
    bool ready = false;
  };
  using Words = std::vector<std::string_view>;
  using Then = std::function<void(MemoryOutcome<ScriptAnswer>&&)>;

  /// One run; `own` are the operation's own arguments, `keys` its own keys. An answer LOST is an error here.
  void run(std::string_view operation, const Words& own, Then then, std::span<const std::string> keys = {},
           std::uint64_t floor = 0);
  MemoryOutcome<ScriptAnswer> understand(MemoryOutcome<const redisReply*>&& outcome);
  klp::MemoryError lost(std::string_view what);

  void open_on_redis();
  void clear_on_redis();
  void note_generation();
  void noted(const Result<>& result);
  /// Its generation, before `then`; an error ends what runs alone.
  void forget_generation(std::function<void()> then);

  void give_alone(std::function<void()> alone, Done done);
  void end_alone(MemoryOutcome<>&& outcome);
  void schedule();
  void pump();
  void start(Job&& job);
  void start_request(const klp::MemoryRequest& request, const std::shared_ptr<Flight>& flight);
  void finish(const std::shared_ptr<Flight>& flight, const klp::MemoryError& error);
  void deliver();
  void sweep_if_due();

  void get(const klp::MemoryGet& request, const std::shared_ptr<Flight>& flight);
  void set(const klp::MemorySet& request, const std::shared_ptr<Flight>& flight);
  void remove(const klp::MemoryDelete& request, const std::shared_ptr<Flight>& flight);
  void list(const klp::MemoryList& request, const std::shared_ptr<Flight>& flight);
  /// Where a request's answer is made of the script's. `make` fills it, or says what is wrong.
  using Make = std::function<MemoryOutcome<>(const ScriptAnswer&, klp::MemoryAnswer&)>;
  Then into(std::shared_ptr<Flight> flight, Make make);

  [[nodiscard]] std::uint64_t flags_of(bool binary) const { return (binary ? 1U : 0U) | (terms_.key ? 2U : 0U); }
  [[nodiscard]] std::string sealed(std::string_view key, std::uint64_t flags, std::string_view value) const;
  [[nodiscard]] MemoryOutcome<RedisRecord> opened(std::string_view key, std::string_view record) const;

  struct Export;  // redis_transfer.cc
  struct Import;
  void save_page(const std::shared_ptr<Export>& file, const std::string& from);
  void save_entries(const std::shared_ptr<Export>& file, const ScriptAnswer& answer);
  void restore_lines(const std::shared_ptr<Import>& file);
  void stage(const std::shared_ptr<Import>& file);
  void replace(const std::shared_ptr<Import>& file);
  void give_up(klp::MemoryError error);

  EventLoop& loop_;
  RedisServer::Link& link_;
  const ExpiryClock& clock_;
  const MemoryTerms terms_;
  const std::vector<std::string> keys_, stage_keys_, aside_keys_;
  const std::string file_;  // of the generation; may be empty
  std::string generation_;
  bool noted_ = false;   // file_ has it
  bool noting_ = false;  // nothing is answered until it has
  bool clearing_ = false;
  bool known_ = false;  // redis has the context for sure
  bool opened_ = false, told_lost_ = false;
  MemoryUsage usage_;
  std::uint64_t version_ = 0, changes_ = 0;

  std::deque<Job> queue_;
  std::deque<std::shared_ptr<Flight>> flights_;
  std::size_t waiting_bytes_ = 0;
  Done alone_;                                // of what runs alone now
  std::optional<MemoryOutcome<>> alone_end_;  // not told before the generation is noted
  bool scheduled_ = false, due_ = false, sweeping_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace kai
