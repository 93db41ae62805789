// What keeps the memory of one agent: a context of the spec's MemoryManager, whichever its backend. What is asked and
// answered are the words of proto/memory.proto, from agent-host to here.
//
//   sqlite_store    memory, sqlite and indexeddb: a file of SQLite, one for each agent
//   redis_store     redis: an operator's server
//
// A store carries out what it was given in the order in which it was given, one context's requests never at once: so
// conditions and the quota are exact, whoever asks at the same time. It answers from the loop, never from within a
// call.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "proto/memory.pb.h"
#include "supervisor/memory/seal.h"

namespace kai {

// Hard limits of every backend.
inline constexpr std::size_t kMaxMemoryKeyBytes = 512;
inline constexpr std::size_t kMaxMemoryValueBytes = 1 << 20;
inline constexpr std::size_t kMaxMemoryKeys = 1'000;  ///< of one get or set, and answered by one list
/// What all keys and values of one answer may have together, unless it is one alone: it travels in one frame.
inline constexpr std::size_t kMaxMemoryAnswerBytes = 1 << 20;
/// Entries are bounded too, as each costs more than its bytes: one for each 64 bytes of the quota.
inline constexpr std::uint64_t kQuotaBytesPerEntry = 64;

/// Of one context, for as long as its store lives.
struct MemoryTerms {
  std::string agent_id;
  std::uint64_t max_bytes = 0;       ///< of keys and values together, as the agent wrote them
  std::uint64_t default_ttl_ms = 0;  ///< of a key that was set without one; 0: never
  std::optional<SealKey> key;        ///< encryption at rest is on: what is written is sealed with it
  std::optional<SealKey> old_key;    ///< it is off now; what was sealed before opens with this one
  std::string key_path = {};         ///< of the node's key, for messages
};

struct MemoryUsage {
  std::uint64_t bytes = 0;  ///< of keys and values
  std::uint64_t entries = 0;
};

template <typename T = void>
using MemoryOutcome = tl::expected<T, klp::MemoryError>;

class MemoryStore {
 public:
  using Answer = std::function<void(klp::MemoryAnswer&&)>;  ///< `id` is the request's
  using Done = std::function<void(MemoryOutcome<>&&)>;

  MemoryStore() = default;
  MemoryStore(const MemoryStore&) = delete;
  MemoryStore& operator=(const MemoryStore&) = delete;
  /// Whoever still waits is answered UNAVAILABLE first (what was under way may have been done, or not). Nobody is
  /// called afterwards. It waits for nothing: what is to be closed is closed later.
  virtual ~MemoryStore() = default;

  /// Makes it ready, or says why it cannot be. Called once, first. What is damaged is set aside (the error says where)
  /// and refused; the next store that is opened in its place begins empty.
  virtual void open(Done done) = 0;
  /// `request.agent` is not looked at. An error has changed nothing, but for UNAVAILABLE from a server that was lost
  /// meanwhile: then nobody knows.
  virtual void perform(klp::MemoryRequest&& request, Answer answer) = 0;
  /// Everything in it goes, IndexedDB's databases too.
  virtual void clear(Done done) = 0;
  /// All of it at one moment, as lines (memory_export.h) at the file's own position; the store keeps the descriptor.
  virtual void save(Fd file, std::string exported_at, Done done) = 0;
  /// The content of such a file in the place of all that was, or nothing is changed. Checked whole before.
  virtual void restore(Fd file, Done done) = 0;
  /// The agent's process is gone: its open IndexedDB transactions never were.
  virtual void end_session() = 0;

  /// As of the last answer.
  [[nodiscard]] virtual MemoryUsage usage() const = 0;
};

/// `message` is escaped for a terminal; `details_json` is taken as it is.
[[nodiscard]] klp::MemoryError memory_error(std::string_view code, const std::string& message,
                                            std::string details_json = {});

}  // namespace kai
