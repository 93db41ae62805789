// What is registered, and what it should be doing: STATE/db/registry.db (SQLite, WAL). Blocking, single-threaded.
//
// Durability. What an operator is told has happened must survive a power failure, but an fsync costs milliseconds and a
// start is measured in hundreds of microseconds. So: register and unregister wait for the disk; everything else is
// written (it survives kill -9 of any process) and waits for the disk in sync(), which the caller makes before it
// acknowledges, while the keeper already works. A write that changes nothing is none: starting an agent that is already
// desired running touches no disk.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace kai {

class Database;

enum class Desired { kStopped, kRunning };

struct RegisteredVersion {
  std::string version;             ///< the manifest's
  std::string package;             ///< name in the package store
  std::string manifest_json;       ///< Manifest::json
  std::string entry_override;      ///< what is run instead of entry: ".kai/main.mjs"; empty: entry
  std::int64_t registered_at = 0;  ///< Unix ms
  std::string signer{};            ///< minisign public key that its package is signed by; empty: it is not signed
  std::string bad{};               ///< why it was taken back (probation); empty: it was not. Of these bytes alone
};

struct RegisteredAgent {
  std::string id;
  RegisteredVersion active;
  Desired desired = Desired::kStopped;
  std::string state;  ///< lifecycle state at rest: registered, stopped, terminated, quarantined; set by set_state
  std::uint32_t uid_slot = 0;
  std::int64_t created_at = 0;       ///< Unix ms, of the first registration
  std::string last_end;              ///< contracts.md lastEnd, as JSON; empty: it has not ended yet
  std::uint64_t ended_instance = 0;  ///< whose end that was (keeper's Spawn.instance); 0: none
  std::string public_key;            ///< "INSTANCE:BASE64" of the life that had it (klp.md, Identity); empty: none
  std::string quarantine;            ///< quarantine.h's JSON; empty: it is in none
  std::string upgrade;               ///< the upgrade that is under way or on probation (upgrade_record.h); empty: none
  std::string previous_version;      ///< active before the active one; empty: none, or it is pruned
};

class Registry {
 public:
  /// Opens the database, makes it (0600) if there is none, brings an older schema up to date. A file that is damaged,
  /// empty or newer than this program is an error that says what to do; it is never replaced. `uid_slots` is how many
  /// id ranges there are for agents (keeper's Hello).
  static Result<Registry> open(const std::string& path, std::uint32_t uid_slots);

  Registry(Registry&&) noexcept;
  Registry& operator=(Registry&&) noexcept;
  ~Registry();

  /// Adds the agent (state registered, desired stopped, lowest free uid slot) or, if it is there, this version to it or
  /// in the place of the same version; it becomes the active one. Desired, state and slot of an agent that is there
  /// stay. On the disk when it returns.
  Result<RegisteredAgent> put(const std::string& id, const RegisteredVersion& version);
  /// Adds the version to an agent that is there, or puts it in the place of the same version, which must not be the
  /// active one; the active one stays. Other bytes are not bad any more. Written, not yet on the disk.
  Result<> add_version(const std::string& id, const RegisteredVersion& version);
  /// Makes a version that is there the active one, and `upgrade` the record, in one transaction. The one that was
  /// active becomes previous_version. Written, not yet on the disk.
  Result<RegisteredAgent> activate(const std::string& id, const std::string& version, std::string_view upgrade);
  Result<> set_upgrade(const std::string& id, std::string_view upgrade);
  Result<> mark_bad(const std::string& id, const std::string& version, std::string_view why);
  /// Why these bytes are not tried again, whether or not they are in the archive; empty: they may be.
  Result<std::string> bad_package(const std::string& id, const std::string& package) const;
  /// What the way back leads to from now on; empty: nowhere.
  Result<> set_previous_version(const std::string& id, const std::string& version);
  /// Out of the archive; neither the active one nor the one before it. The package stays in the store.
  Result<> remove_version(const std::string& id, const std::string& version);
  /// What saveState gave, for the next start: of an upgrade on probation, or of a restored snapshot. At most one an
  /// agent; empty: none. Gone with unregister.
  Result<> set_saved_state(const std::string& id, std::string_view json);
  Result<std::string> saved_state(const std::string& id) const;

  /// Forgets the agent and all its versions. false: not registered. On the disk when it returns. The packages stay.
  Result<bool> remove(const std::string& id);

  Result<std::optional<RegisteredAgent>> get(const std::string& id) const;
  Result<std::vector<RegisteredAgent>> list() const;                             ///< by id
  Result<std::vector<RegisteredVersion>> versions(const std::string& id) const;  ///< oldest first
  /// "ID/HASH" of each version of each agent.
  Result<std::set<std::string>> packages_in_use() const;

  // An agent that is not registered is an error in these.
  Result<> set_desired(const std::string& id, Desired desired);
  Result<> set_state(const std::string& id, std::string_view state);
  Result<> set_last_end(const std::string& id, std::string_view json);
  /// The end of this one has had all of its consequences.
  Result<> set_ended_instance(const std::string& id, std::uint64_t instance);
  Result<> set_public_key(const std::string& id, std::string_view key);
  /// The state at rest and the quarantine, together.
  Result<> set_quarantine(const std::string& id, std::string_view state, std::string_view json);

  /// Waits for the disk to have all that was written so far; does nothing when it has.
  Result<> sync();

  /// The lowest uid slot that no agent and no lease has, for `kaictl run`; in memory only, until returned.
  Result<std::uint32_t> lease_slot();
  void return_slot(std::uint32_t slot);

 private:
  Registry(std::unique_ptr<Database> database, std::uint32_t uid_slots);
  Result<std::uint32_t> lowest_free_slot() const;
  Result<> put_rows(const std::string& id, const RegisteredVersion& version);
  Result<> put_version(const std::string& id, const RegisteredVersion& version);
  Result<> make_active(const std::string& id, std::string_view version);
  /// How many rows that changed; what was written is not on the disk yet.
  Result<int> change(const char* sql, std::initializer_list<std::string_view> values);
  Result<> update(const std::string& id, const char* sql, std::string_view value);

  std::unique_ptr<Database> database_;
  std::uint32_t uid_slots_;
  std::set<std::uint32_t> leased_;
  bool unsynced_ = false;
};

}  // namespace kai
