// The archive of an agent's versions: what is in it, which one serves, which one must not be tried again.
#include "supervisor/control/registry.h"
#include "supervisor/control/registry_rows.h"
#include "supervisor/database/database.h"

namespace kai {
namespace {

tl::unexpected<Error> no_version(const std::string& id, std::string_view version) {
  return failure("agent " + id + " has no version " + std::string(version));
}

}  // namespace

RegisteredVersion registry_rows::version_at(const Statement& row, int column) {
  RegisteredVersion version;
  version.version = row.text(column);
  version.package = row.text(column + 1);
  version.manifest_json = row.text(column + 2);
  version.entry_override = row.text(column + 3);
  version.registered_at = row.number(column + 4);
  version.signer = row.text(column + 5);
  version.bad = row.text(column + 6);
  return version;
}

/// The row as `version` has it, but for `bad`: that is of its bytes, and outlives their removal from the archive.
Result<> Registry::put_version(const std::string& id, const RegisteredVersion& version) {
  auto put = database_->prepare(
      "INSERT INTO versions(agent_id, version, package, manifest, entry_override, registered_at, signer, bad)"
      " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7,"
      " COALESCE((SELECT why FROM bad_packages WHERE agent_id = ?1 AND package = ?3), ''))"
      " ON CONFLICT(agent_id, version) DO UPDATE SET"
      " package = excluded.package, manifest = excluded.manifest, entry_override = excluded.entry_override,"
      " registered_at = excluded.registered_at, signer = excluded.signer, bad = excluded.bad");
  if (!put) return tl::unexpected(put.error());
  (*put)->bind(1, id).bind(2, version.version).bind(3, version.package).bind(4, version.manifest_json);
  return (*put)->bind(5, version.entry_override).bind(6, version.registered_at).bind(7, version.signer).run();
}

Result<> Registry::make_active(const std::string& id, std::string_view version) {
  auto activate = database_->prepare(
      "UPDATE agents SET previous_version = active_version, active_version = ?2"
      " WHERE id = ?1 AND active_version <> ?2");
  if (!activate) return tl::unexpected(activate.error());
  return (*activate)->bind(1, id).bind(2, version).run();
}

Result<int> Registry::change(const char* sql, std::initializer_list<std::string_view> values) {
  auto statement = database_->prepare(sql);
  if (!statement) return tl::unexpected(statement.error());
  int parameter = 0;
  for (const std::string_view value : values) (*statement)->bind(++parameter, value);
  if (auto done = (*statement)->run(); !done) return tl::unexpected(done.error());
  const int changed = database_->changes();
  if (changed > 0) unsynced_ = true;
  return changed;
}

Result<> Registry::add_version(const std::string& id, const RegisteredVersion& version) {
  const auto agent = get(id);
  if (!agent) return tl::unexpected(agent.error());
  if (!*agent) return failure("agent " + id + " is not registered");
  if ((*agent)->active.version == version.version) {
    return failure("version " + version.version + " of agent " + id + " is the active one: it stays as it is");
  }
  if (auto put = put_version(id, version); !put) return put;
  unsynced_ = true;
  return {};
}

Result<RegisteredAgent> Registry::activate(const std::string& id, const std::string& version,
                                           std::string_view upgrade) {
  Transaction transaction(*database_);
  if (auto begun = transaction.begin(); !begun) return tl::unexpected(begun.error());
  const auto there = change(
      "UPDATE agents SET upgrade = ?3 WHERE id = ?1 AND EXISTS"
      " (SELECT 1 FROM versions WHERE agent_id = ?1 AND version = ?2)",
      {id, version, upgrade});
  if (!there) return tl::unexpected(there.error());
  if (*there == 0) return no_version(id, version);
  if (auto made = make_active(id, version); !made) return tl::unexpected(made.error());
  if (auto committed = transaction.commit(); !committed) return tl::unexpected(committed.error());
  auto agent = get(id);
  if (!agent) return tl::unexpected(agent.error());
  return std::move(**agent);
}

Result<> Registry::set_upgrade(const std::string& id, std::string_view upgrade) {
  return update(id, "UPDATE agents SET upgrade = ?2 WHERE id = ?1 AND upgrade <> ?2", upgrade);
}

Result<> Registry::mark_bad(const std::string& id, const std::string& version, std::string_view why) {
  Transaction transaction(*database_);
  if (auto begun = transaction.begin(); !begun) return begun;
  const auto marked = change("UPDATE versions SET bad = ?3 WHERE agent_id = ?1 AND version = ?2", {id, version, why});
  if (!marked) return tl::unexpected(marked.error());
  if (*marked == 0) return no_version(id, version);
  const auto kept = change(
      "INSERT OR REPLACE INTO bad_packages SELECT agent_id, package, bad FROM versions"
      " WHERE agent_id = ?1 AND version = ?2",
      {id, version});
  if (!kept) return tl::unexpected(kept.error());
  return transaction.commit();
}

Result<std::string> Registry::bad_package(const std::string& id, const std::string& package) const {
  auto select = database_->prepare("SELECT why FROM bad_packages WHERE agent_id = ?1 AND package = ?2");
  if (!select) return tl::unexpected(select.error());
  const auto row = (*select)->bind(1, id).bind(2, package).step();
  if (!row) return tl::unexpected(row.error());
  return *row ? (*select)->text(0) : std::string();
}

Result<> Registry::set_previous_version(const std::string& id, const std::string& version) {
  const auto set = change("UPDATE agents SET previous_version = ?2 WHERE id = ?1", {id, version});
  return set ? Result<>() : tl::unexpected(set.error());
}

Result<> Registry::remove_version(const std::string& id, const std::string& version) {
  const auto removed = change(
      "DELETE FROM versions WHERE agent_id = ?1 AND version = ?2 AND NOT EXISTS"
      " (SELECT 1 FROM agents WHERE id = ?1 AND (active_version = ?2 OR previous_version = ?2))",
      {id, version});
  if (!removed) return tl::unexpected(removed.error());
  if (*removed > 0) return {};
  const auto agent = get(id);
  if (!agent) return tl::unexpected(agent.error());
  if (*agent && ((*agent)->active.version == version || (*agent)->previous_version == version)) {
    return failure("version " + version + " of agent " + id + " is the active one or the one before it: it stays");
  }
  return no_version(id, version);
}

Result<> Registry::set_saved_state(const std::string& id, std::string_view json) {
  if (json.empty()) {
    const auto removed = change("DELETE FROM saved_states WHERE agent_id = ?1", {id});
    return removed ? Result<>() : tl::unexpected(removed.error());
  }
  const auto put = change(
      "INSERT INTO saved_states SELECT id, ?2 FROM agents WHERE id = ?1"
      " ON CONFLICT(agent_id) DO UPDATE SET state = excluded.state",
      {id, json});
  if (!put) return tl::unexpected(put.error());
  if (*put == 0) return failure("agent " + id + " is not registered");
  return {};
}

Result<std::string> Registry::saved_state(const std::string& id) const {
  auto select = database_->prepare("SELECT state FROM saved_states WHERE agent_id = ?1");
  if (!select) return tl::unexpected(select.error());
  const auto row = (*select)->bind(1, id).step();
  if (!row) return tl::unexpected(row.error());
  return *row ? (*select)->text(0) : std::string();
}

Result<std::vector<RegisteredVersion>> Registry::versions(const std::string& id) const {
  auto select = database_->prepare("SELECT " KAI_VERSION_COLUMNS
                                   " FROM versions v WHERE v.agent_id = ?1 ORDER BY v.registered_at, v.rowid");
  if (!select) return tl::unexpected(select.error());
  (*select)->bind(1, id);
  std::vector<RegisteredVersion> versions;
  for (;;) {
    const auto row = (*select)->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) return versions;
    versions.push_back(registry_rows::version_at(**select, 0));
  }
}

Result<std::set<std::string>> Registry::packages_in_use() const {
  auto select = database_->prepare("SELECT DISTINCT agent_id || '/' || package FROM versions");
  if (!select) return tl::unexpected(select.error());
  std::set<std::string> packages;
  for (;;) {
    const auto row = (*select)->step();
    if (!row) return tl::unexpected(row.error());
    if (!*row) return packages;
    packages.insert((*select)->text(0));
  }
}

}  // namespace kai
