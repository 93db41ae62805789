#include "supervisor/control/registry.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "base/fd.h"
#include "base/text.h"
#include "supervisor/control/registry_rows.h"
#include "supervisor/database/database.h"

namespace kai {
namespace {

// Step N brings a database of user_version N to N+1. Steps that were published are never changed, only added to.
constexpr std::array kMigrations = {
    R"sql(
    CREATE TABLE agents(
      id TEXT PRIMARY KEY NOT NULL,
      active_version TEXT NOT NULL,
      desired TEXT NOT NULL CHECK(desired IN ('stopped', 'running')),
      state TEXT NOT NULL,
      uid_slot INTEGER NOT NULL UNIQUE,
      created_at INTEGER NOT NULL,
      last_end TEXT NOT NULL,
      FOREIGN KEY(id, active_version) REFERENCES versions(agent_id, version) DEFERRABLE INITIALLY DEFERRED
    ) STRICT;
    CREATE TABLE versions(
      agent_id TEXT NOT NULL REFERENCES agents(id) ON DELETE CASCADE,
      version TEXT NOT NULL,
      package TEXT NOT NULL,
      manifest TEXT NOT NULL,
      entry_override TEXT NOT NULL,
      registered_at INTEGER NOT NULL,
      PRIMARY KEY(agent_id, version)
    ) STRICT;
    CREATE TABLE synced(row INTEGER PRIMARY KEY CHECK(row = 1), count INTEGER NOT NULL) STRICT;
    INSERT INTO synced VALUES(1, 0);
    )sql",
    "ALTER TABLE agents ADD COLUMN quarantine TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE agents ADD COLUMN ended_instance INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE agents ADD COLUMN public_key TEXT NOT NULL DEFAULT ''",
    R"sql(
    ALTER TABLE versions ADD COLUMN signer TEXT NOT NULL DEFAULT '';
    ALTER TABLE versions ADD COLUMN bad TEXT NOT NULL DEFAULT '';
    ALTER TABLE agents ADD COLUMN upgrade TEXT NOT NULL DEFAULT '';
    ALTER TABLE agents ADD COLUMN previous_version TEXT NOT NULL DEFAULT '';
    CREATE TABLE saved_states(
      agent_id TEXT PRIMARY KEY NOT NULL REFERENCES agents(id) ON DELETE CASCADE,
      state TEXT NOT NULL
    ) STRICT;
    CREATE TABLE bad_packages(
      agent_id TEXT NOT NULL REFERENCES agents(id) ON DELETE CASCADE,
      package TEXT NOT NULL,
      why TEXT NOT NULL,
      PRIMARY KEY(agent_id, package)
    ) STRICT;
    )sql",
};

constexpr const char* kSelectAgents =
    "SELECT a.id, a.desired, a.state, a.uid_slot, a.created_at, a.last_end, a.quarantine, a.ended_instance, "
    "a.public_key, a.upgrade, a.previous_version, " KAI_VERSION_COLUMNS
    " FROM agents a JOIN versions v ON v.agent_id = a.id AND v.version = a.active_version ORDER BY a.id";
constexpr const char* kSelectAgent =
    "SELECT a.id, a.desired, a.state, a.uid_slot, a.created_at, a.last_end, a.quarantine, a.ended_instance, "
    "a.public_key, a.upgrade, a.previous_version, " KAI_VERSION_COLUMNS
    " FROM agents a JOIN versions v ON v.agent_id = a.id AND v.version = a.active_version WHERE a.id = ?1";

std::string_view name_of(Desired desired) {
  return desired == Desired::kRunning ? "running" : "stopped";
}

RegisteredAgent agent_at(const Statement& row) {
  RegisteredAgent agent;
  agent.id = row.text(0);
  agent.desired = row.text(1) == "running" ? Desired::kRunning : Desired::kStopped;
  agent.state = row.text(2);
  agent.uid_slot = static_cast<std::uint32_t>(row.number(3));
  agent.created_at = row.number(4);
  agent.last_end = row.text(5);
  agent.quarantine = row.text(6);
  agent.ended_instance = static_cast<std::uint64_t>(row.number(7));
  agent.public_key = row.text(8);
  agent.upgrade = row.text(9);
  agent.previous_version = row.text(10);
  agent.active = registry_rows::version_at(row, 11);
  return agent;
}

Result<> migrate(Database& database, const std::string& path) {
  const auto version = database.number("PRAGMA user_version");
  if (!version) return tl::unexpected(version.error());
  constexpr auto kNewest = static_cast<std::int64_t>(kMigrations.size());
  if (*version > kNewest) {
    return failure("open the registry", path + ": it was written by a newer kaid (schema " + std::to_string(*version) +
                                            ", this one knows " + std::to_string(kNewest) +
                                            "); run that version, or restore the copy from before the upgrade");
  }
  for (auto step = static_cast<std::size_t>(*version); step < kMigrations.size(); ++step) {
    Transaction transaction(database);
    if (auto begun = transaction.begin(); !begun) return begun;
    if (auto done = database.execute(kMigrations[step]); !done) return done;
    if (auto set = database.execute("PRAGMA user_version=" + std::to_string(step + 1)); !set) return set;
    if (auto committed = transaction.commit(); !committed) return committed;
  }
  return {};
}

Result<std::unique_ptr<Database>> open_database(const std::string& path) {
  auto database = Database::open(path);
  if (!database) return database;
  for (const char* pragma :
       {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON", "PRAGMA trusted_schema=OFF"}) {
    if (auto set = (*database)->execute(pragma); !set) return tl::unexpected(set.error());
  }
  if (auto migrated = migrate(**database, path); !migrated) return tl::unexpected(migrated.error());
  if (auto set = (*database)->set_durable(false); !set) return tl::unexpected(set.error());
  return database;
}

/// Makes a new database beside its place and moves it there when it is whole: a file of that name always is a registry,
/// and an empty one is a damaged one.
Result<> create(const std::string& path) {
  const std::string fresh = path + ".new";
  for (const char* suffix : {"", "-wal", "-shm"}) unlink((fresh + suffix).c_str());
  // SQLite gives its other files the mode of this one.
  const Fd file(::open(fresh.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file) return errno_failure("make the registry", fresh);
  // Closing it puts the write-ahead log into the file.
  if (auto database = open_database(fresh); !database) return tl::unexpected(database.error());
  if (fsync(file.get()) < 0) return errno_failure("fsync", fresh);
  if (rename(fresh.c_str(), path.c_str()) < 0) return errno_failure("rename", fresh);
  const std::string directory = path.substr(0, path.rfind('/') + 1);
  const Fd parent(::open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!parent || fsync(parent.get()) < 0) return errno_failure("fsync", directory);
  return {};
}

}  // namespace

Registry::Registry(std::unique_ptr<Database> database, std::uint32_t uid_slots)
    : database_(std::move(database)), uid_slots_(uid_slots) {}
Registry::Registry(Registry&&) noexcept = default;
Registry& Registry::operator=(Registry&&) noexcept = default;
Registry::~Registry() = default;

Result<Registry> Registry::open(const std::string& path, std::uint32_t uid_slots) {
  struct stat status {};
  if (lstat(path.c_str(), &status) < 0) {
    if (errno != ENOENT) return errno_failure("open the registry", path);
    if (auto created = create(path); !created) return tl::unexpected(created.error());
  } else if (!S_ISREG(status.st_mode)) {
    return failure("open the registry", path + ": is not a regular file; move it away");
  } else if (status.st_size == 0) {
    return failure("open the registry",
                   path +
                       ": is empty, so it is damaged: put a copy of it in its place, or remove it to "
                       "begin with no agents");
  }
  auto database = open_database(path);
  if (!database) return tl::unexpected(database.error());
  return Registry(std::move(*database), uid_slots);
}

Result<RegisteredAgent> Registry::put(const std::string& id, const RegisteredVersion& version) {
  if (auto durable = database_->set_durable(true); !durable) return tl::unexpected(durable.error());
  const auto written = put_rows(id, version);
  if (auto durable = database_->set_durable(false); !durable) return tl::unexpected(durable.error());
  if (!written) return tl::unexpected(written.error());
  unsynced_ = false;
  auto agent = get(id);
  if (!agent) return tl::unexpected(agent.error());
  return std::move(**agent);
}

Result<> Registry::put_rows(const std::string& id, const RegisteredVersion& version) {
  Transaction transaction(*database_);
  if (auto begun = transaction.begin(); !begun) return begun;
  const auto known = get(id);
  if (!known) return tl::unexpected(known.error());
  if (!*known) {
    const auto slot = lowest_free_slot();
    if (!slot) return tl::unexpected(slot.error());
    auto insert =
        database_->prepare("INSERT INTO agents VALUES(?1, ?2, 'stopped', 'registered', ?3, ?4, '', '', 0, '', '', '')");
    if (!insert) return tl::unexpected(insert.error());
    auto inserted = (*insert)->bind(1, id).bind(2, version.version).bind(3, *slot).bind(4, unix_ms()).run();
    if (!inserted) return inserted;
  }
  if (auto put = put_version(id, version); !put) return put;
  if (auto activated = make_active(id, version.version); !activated) return activated;
  return transaction.commit();
}

Result<bool> Registry::remove(const std::string& id) {
  if (auto durable = database_->set_durable(true); !durable) return tl::unexpected(durable.error());
  Result<> removed;
  {
    auto statement = database_->prepare("DELETE FROM agents WHERE id = ?1");
    removed = statement ? (*statement)->bind(1, id).run() : Result<>(tl::unexpected(statement.error()));
  }
  const bool known = removed && database_->changes() > 0;
  if (auto durable = database_->set_durable(false); !durable) return tl::unexpected(durable.error());
  if (!removed) return tl::unexpected(removed.error());
  if (known) unsynced_ = false;
  return known;
}

Result<std::optional<RegisteredAgent>> Registry::get(const std::string& id) const {
  auto select = database_->prepare(kSelectAgent);
  if (!select) return tl::unexpected(select.error());
  const auto row = (*select)->bind(1, id).step();
  if (!row) return tl::unexpected(row.error());
  if (!*row) return std::nullopt;
  return agent_at(**select);
}

Result<std::vector<RegisteredAgent>> Registry::list() const {
  auto select = database_->prepare(kSelectAgents);
  if (!select) return tl::unexpected(select.error());
  std::vector<RegisteredAgent> agents;
  for (;;) {
    const auto row = (*select)->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) return agents;
    agents.push_back(agent_at(**select));
  }
}

Result<> Registry::set_desired(const std::string& id, Desired desired) {
  return update(id, "UPDATE agents SET desired = ?2 WHERE id = ?1 AND desired <> ?2", name_of(desired));
}

Result<> Registry::set_state(const std::string& id, std::string_view state) {
  return update(id, "UPDATE agents SET state = ?2 WHERE id = ?1 AND state <> ?2", state);
}

Result<> Registry::set_last_end(const std::string& id, std::string_view json) {
  return update(id, "UPDATE agents SET last_end = ?2 WHERE id = ?1 AND last_end <> ?2", json);
}

Result<> Registry::set_ended_instance(const std::string& id, std::uint64_t instance) {
  auto statement = database_->prepare("UPDATE agents SET ended_instance = ?2 WHERE id = ?1");
  if (!statement) return tl::unexpected(statement.error());
  return (*statement)->bind(1, id).bind(2, static_cast<std::int64_t>(instance)).run();
}

Result<> Registry::set_public_key(const std::string& id, std::string_view key) {
  return update(id, "UPDATE agents SET public_key = ?2 WHERE id = ?1 AND public_key <> ?2", key);
}

Result<> Registry::set_quarantine(const std::string& id, std::string_view state, std::string_view json) {
  auto statement = database_->prepare("UPDATE agents SET state = ?2, quarantine = ?3 WHERE id = ?1");
  if (!statement) return tl::unexpected(statement.error());
  if (auto updated = (*statement)->bind(1, id).bind(2, state).bind(3, json).run(); !updated) return updated;
  unsynced_ = true;
  return {};
}

/// An update that matches no row writes nothing at all: neither a page nor the write-ahead log.
Result<> Registry::update(const std::string& id, const char* sql, std::string_view value) {
  {
    auto statement = database_->prepare(sql);
    if (!statement) return tl::unexpected(statement.error());
    if (auto updated = (*statement)->bind(1, id).bind(2, value).run(); !updated) return updated;
  }
  if (database_->changes() > 0) {
    unsynced_ = true;
    return {};
  }
  const auto known = get(id);
  if (!known) return tl::unexpected(known.error());
  if (!*known) return failure("agent " + id + " is not registered");
  return {};
}

/// The fsync of one durable commit takes the write-ahead log whole, with everything that earlier commits put there.
Result<> Registry::sync() {
  if (!unsynced_) return {};
  if (auto durable = database_->set_durable(true); !durable) return durable;
  auto written = database_->execute("UPDATE synced SET count = count + 1");
  if (auto durable = database_->set_durable(false); !durable) return durable;
  if (written) unsynced_ = false;
  return written;
}

Result<std::uint32_t> Registry::lowest_free_slot() const {
  auto select = database_->prepare("SELECT uid_slot FROM agents");
  if (!select) return tl::unexpected(select.error());
  std::set<std::uint32_t> taken = leased_;
  for (;;) {
    const auto row = (*select)->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) break;
    taken.insert(static_cast<std::uint32_t>((*select)->number(0)));
  }
  std::uint32_t slot = 0;
  while (taken.contains(slot)) ++slot;
  if (slot >= uid_slots_) {
    return failure("all " + std::to_string(uid_slots_) +
                   " id ranges for agents are in use: unregister an agent or wait for a `kaictl run` to end");
  }
  return slot;
}

Result<std::uint32_t> Registry::lease_slot() {
  auto slot = lowest_free_slot();
  if (slot) leased_.insert(*slot);
  return slot;
}

void Registry::return_slot(std::uint32_t slot) {
  leased_.erase(slot);
}

}  // namespace kai
