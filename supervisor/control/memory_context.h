// The memory of one agent: the spec's MemoryContext. It opens its store when it is first needed, keeps the cache of a
// hybrid one, and is what operators and other agents are told about.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/control/memory_cache.h"
#include "supervisor/control/memory_manager.h"
#include "supervisor/control/policies.h"

namespace kai {

class MemoryContext {
 public:
  using Done = MemoryStore::Done;
  using Answer = MemoryStore::Answer;
  using Cleared = std::function<void(MemoryOutcome<MemoryUsage>&&)>;  ///< how much went

  MemoryContext(MemoryManager& manager, std::string agent_id, const MemoryConfig& memory, PolicyRef policy);
  ~MemoryContext();
  MemoryContext(const MemoryContext&) = delete;
  MemoryContext& operator=(const MemoryContext&) = delete;

  /// What the manifest asks and the policy gives, from the next opening on. What differs closes it: nothing may be
  /// under way.
  void configure(const MemoryConfig& memory, PolicyRef policy);

  /// An operator starts the agent. Damage that the operator was told of before is let go: its memory begins empty.
  void start_by_operator();
  /// The operator was told why it could not be opened.
  void fault_told() { damage_told_ = true; }
  /// Volatile memory that should have gone and could not: it goes before anything is answered.
  void clear_at_opening() { must_clear_ = true; }
  /// A snapshot was restored before this context was made: what is volatile and lies on a server is of this kaid.
  void keep_what_is_there() { cleared_ = true; }
  /// The agent, or one that shares its memory, uses it now.
  void touch();
  /// Nobody needs it open: its agent is at rest.
  void release();

  /// Open now, without waiting.
  [[nodiscard]] bool ready() const { return phase_ == Phase::kOpen; }
  /// `done` when it is open, or why it cannot be.
  void prepare(Done done);
  /// `answer` once, never from within.
  void perform(klp::MemoryRequest&& request, Answer answer);
  /// The agent's process is gone: its IndexedDB transactions never were. What nobody waits for is closed: an open store
  /// costs three descriptors.
  void end_session();

  /// Another process of the agent takes over: what the one before had begun and not ended never was.
  void new_session();

  /// Volatile memory goes; other memory stays.
  void terminate(Cleared cleared);
  /// All of it goes, with its files.
  void purge(Cleared purged);
  /// kaictl memory export and import.
  void save(Fd file, Done done);
  void restore(Fd file, Done done);

  [[nodiscard]] const MemoryConfig& config() const { return memory_; }
  /// Whether there is anything of it to look at; true where only opening it can tell.
  [[nodiscard]] bool exists() const;
  /// Of an open one, else nothing.
  [[nodiscard]] MemoryUsage usage() const;
  [[nodiscard]] std::uint64_t max_bytes() const { return max_bytes_; }
  [[nodiscard]] bool encrypted() const { return policy_->memory_encryption; }
  /// Unix ms; 0: never.
  [[nodiscard]] std::int64_t last_accessed() const;
  /// Why it could not be opened the last time; empty: it could.
  [[nodiscard]] const std::string& fault() const { return fault_; }

 private:
  enum class Phase { kClosed, kOpening, kOpen };

  void opened(MemoryOutcome<>&& outcome);
  void note(const klp::MemoryAnswer& said);
  void look_for_damage();
  [[nodiscard]] bool store_file_exists() const;
  void open_store();
  void settle(const MemoryOutcome<>& outcome);
  Answer counted(Answer answer);
  Done counted_done(Done done);
  void carry_out(klp::MemoryRequest&& request, Answer answer);
  void close();
  void clear(Cleared cleared);
  [[nodiscard]] MemoryOutcome<MemoryUsage> remove_files(const MemoryUsage& had) const;
  [[nodiscard]] std::int64_t expires(const klp::MemoryWrite& write) const;

  MemoryManager& manager_;
  const std::string agent_id_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  MemoryConfig memory_;
  PolicyRef policy_;
  std::uint64_t max_bytes_ = 0;
  Phase phase_ = Phase::kClosed;
  std::optional<klp::MemoryError> damage_;  // found, and no operator has started the agent since
  bool damage_told_ = false;
  bool accepted_ = false;  // an operator has let go of what was damaged
  bool must_clear_ = false;
  bool cleared_ = false;  // what kaid before had left volatile on a server is gone
  std::vector<Done> waiting_;
  std::string fault_;
  std::int64_t last_accessed_ = 0;
  std::size_t under_way_ = 0;           // requests that the store has
  std::unique_ptr<MemoryCache> cache_;  // of a hybrid one
  std::unique_ptr<MemoryStore> store_;
};

/// The spec's MemoryUsageStats and MemoryContextStats.
std::string memory_stats_document(const std::vector<std::pair<std::string, const MemoryContext*>>& contexts);

}  // namespace kai
