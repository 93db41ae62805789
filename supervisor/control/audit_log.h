// The audit (kLog) as control uses it: append-only records under a Merkle tree whose head is signed (audit/ has the
// formats and the proofs; this is the store below STATE/audit and what makes a record durable).
//
// A record is taken at once, in order. It is written (survives kill -9 of any process) before anything that was said in
// the same round of the loop leaves control: EventLoop calls flush() first. It is on the disk and below a signed
// checkpoint when when_durable() says so, which operator requests wait for; message records get there within 100 ms.
//
// What the disk does not take (ENOSPC, EIO) is kept in memory, bounded, and tried again every second; meanwhile
// refusal() says why nothing new may be begun.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"
#include "supervisor/control/failure.h"
#include "supervisor/control/log.h"
#include "supervisor/loop/event_loop.h"

namespace kai {

class AuditLog {
 public:
  using Durable = std::function<void(const Result<>&)>;
  /// The stored bytes of one record; the view holds during the call.
  using Observer = std::function<void(std::string_view agent, std::string_view record)>;
  using ObserverId = std::uint64_t;

  /// `directory` is STATE/audit, which is made (0700) if it is not there, with a new key and an empty log.
  static Result<std::unique_ptr<AuditLog>> open(EventLoop& loop, Log& log, const std::string& directory);
  virtual ~AuditLog() = default;

  /// `agent` empty: kaid's own. `event`: contracts.md's list. `metadata_json`: a JSON object.
  virtual void append(std::string_view agent, std::string_view event, std::string_view metadata_json = "{}") = 0;
  /// Writes what was appended. Cheap when there is nothing.
  virtual void flush() = 0;
  /// `done` is called later, never from within: everything appended so far is durable and signed, or why it is not.
  virtual void when_durable(Durable done) = 0;
  /// nullopt: the disk takes records.
  [[nodiscard]] virtual std::optional<Failure> refusal() const = 0;

  /// Called with each record once it is written, in order.
  virtual ObserverId add_observer(Observer observer) = 0;
  virtual void remove_observer(ObserverId id) = 0;
  /// Of the last record that was appended; 0: none.
  [[nodiscard]] virtual std::uint64_t last_seq() const = 0;

  /// kai.exported of an agent ("kaid": of the whole log), which closes an export: it says its own agentSeq. Returns its
  /// seq; 0: it was not taken, see refusal().
  virtual std::uint64_t append_exported(std::string_view agent) = 0;

  /// A new signing key: `done` comes when the record that says so is durable below the old one's signature, and the
  /// new one signs. BUSY-like error if one is under way.
  virtual void rotate_key(Durable done) = 0;

  /// What a check of the log starts from.
  struct Head {
    std::string directory;   ///< STATE/audit
    std::string note;        ///< the newest signed checkpoint; of size 0: empty
    std::string public_key;  ///< of what is signed from now on (audit::PublicKey::text)
  };
  [[nodiscard]] virtual Head head() const = 0;
};

/// Of a request that was carried out and whose record the disk did not take.
[[nodiscard]] inline Failure not_recorded(const Error& error) {
  return {"UNAVAILABLE",
          "it is done, but could not be recorded: " + error.message(),
          "Make space on the disk of kaid's state directory; see kaid's log",
          {},
          true};
}

}  // namespace kai
