// What agents' memories have in common: where they lie, the clock that keys expire by, the node's key, the operator's
// redis. Each agent has one MemoryContext (memory_context.h), which has its store made here.
#pragma once

#include <memory>
#include <string>

#include "policies/policy.h"
#include "supervisor/loop/event_loop.h"
#include "supervisor/memory/expiry_clock.h"
#include "supervisor/memory/redis_store.h"
#include "supervisor/memory/store.h"

namespace kai {

class KeeperClient;
class Log;

struct MemoryPlaces {
  std::string state_dir;       ///< persistent and hybrid: STATE/memory/ID.db
  std::string runtime_dir;     ///< volatile: RUNTIME/memory/ID.db, gone when kaid begins
  std::string redis_url;       ///< of kaid.yaml; empty: there is none
  bool keep_volatile = false;  ///< agents outlived the control before: so does what they keep
};

class MemoryManager {
 public:
  /// `keeper` must outlive it.
  static Result<std::unique_ptr<MemoryManager>> open(EventLoop& loop, KeeperClient& keeper, Log& log,
                                                     MemoryPlaces places);
  ~MemoryManager();
  MemoryManager(const MemoryManager&) = delete;
  MemoryManager& operator=(const MemoryManager&) = delete;

  /// What a context may keep: keys and values, bytes.
  static std::uint64_t quota(const MemoryConfig& memory, const Policy& policy);
  /// An error is the operator's to mend: no redis in kaid.yaml, a node key that cannot be read.
  MemoryOutcome<std::unique_ptr<MemoryStore>> make_store(const std::string& agent_id, const MemoryConfig& memory,
                                                         const Policy& policy);
  /// Of the backends that are files: where the agent's is.
  [[nodiscard]] std::string file_of(const std::string& agent_id, const MemoryConfig& memory) const;
  /// Files of the agent that no open store has. What other backends left (of a version before) goes too, and what was
  /// set aside as damaged.
  Result<> remove_files(const std::string& agent_id) const;
  /// What an agent is told: where things lie on the host is not its business.
  [[nodiscard]] std::string without_paths(std::string message) const;
  /// What was set aside of this agent's as damaged; empty: nothing.
  [[nodiscard]] std::string damaged_file(const std::string& agent_id) const;
  [[nodiscard]] bool has_redis() const { return redis_ != nullptr; }
  /// What is volatile and lies where nobody has cleared it yet: on redis, from before kaid began.
  [[nodiscard]] bool keeps_volatile() const { return places_.keep_volatile; }

  [[nodiscard]] EventLoop& loop() const { return loop_; }
  [[nodiscard]] Log& log() const { return log_; }
  [[nodiscard]] const ExpiryClock& clock() const { return clock_; }

 private:
  MemoryManager(EventLoop& loop, Log& log, MemoryPlaces places, ExpiryClock clock);
  void keep_clock();
  Result<std::optional<SealKey>> key_of(const std::string& agent_id, bool make) const;

  EventLoop& loop_;
  Log& log_;
  MemoryPlaces places_;
  ExpiryClock clock_;
  std::unique_ptr<RedisServer> redis_;
  Timer clock_timer_;
};

}  // namespace kai
