#include "supervisor/control/registry.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/control/temp_directory.h"

namespace kai {
namespace {

namespace fs = std::filesystem;

Registry open_registry(const std::string& path, std::uint32_t slots = 4) {
  auto registry = Registry::open(path, slots);
  REQUIRE_MESSAGE(registry, (registry ? "" : registry.error().message()));
  return std::move(*registry);
}

RegisteredVersion version(const std::string& number, std::int64_t at = 1000) {
  return {number, std::string(64, 'a'), R"({"id":"x"})", "", at};
}

TEST_CASE("an agent is registered, found, listed and forgotten") {
  const TempDirectory directory;
  auto registry = open_registry(directory / "registry.db");
  CHECK(registry.list().value().empty());
  CHECK_FALSE(registry.get("calendar").value());

  const auto put = registry.put("calendar", {"1.0.3", "hash", "{}", ".kai/main.mjs", 1234});
  REQUIRE(put);
  CHECK(put->id == "calendar");
  CHECK(put->active.version == "1.0.3");
  CHECK(put->active.package == "hash");
  CHECK(put->active.manifest_json == "{}");
  CHECK(put->active.entry_override == ".kai/main.mjs");
  CHECK(put->active.registered_at == 1234);
  CHECK(put->desired == Desired::kStopped);
  CHECK(put->state == "registered");
  CHECK(put->last_end.empty());
  CHECK(put->created_at > 0);

  REQUIRE(registry.put("alpha", version("1.0.0")));
  const auto list = registry.list().value();
  REQUIRE(list.size() == 2);
  CHECK(list[0].id == "alpha");
  CHECK(list[1].id == "calendar");

  CHECK(registry.remove("calendar").value());
  CHECK_FALSE(registry.remove("calendar").value());
  CHECK_FALSE(registry.get("calendar").value());
  CHECK(registry.versions("calendar").value().empty());
  CHECK(registry.list().value().size() == 1);
}

TEST_CASE("versions: a new one is added, the same one replaced, the last put is active") {
  const TempDirectory directory;
  auto registry = open_registry(directory / "registry.db");
  REQUIRE(registry.put("a", version("1.0.0", 1)));
  REQUIRE(registry.set_desired("a", Desired::kRunning));
  REQUIRE(registry.set_state("a", "stopped"));
  REQUIRE(registry.put("a", version("1.1.0", 2)));
  RegisteredVersion again = version("1.0.0", 3);
  again.package = "other";
  const auto put = registry.put("a", again);
  REQUIRE(put);
  CHECK(put->active.version == "1.0.0");
  CHECK(put->active.package == "other");
  CHECK(put->desired == Desired::kRunning);
  CHECK(put->state == "stopped");
  const auto versions = registry.versions("a").value();
  REQUIRE(versions.size() == 2);
  CHECK(versions[0].version == "1.1.0");
  CHECK(versions[1].version == "1.0.0");
  CHECK(registry.packages_in_use().value() == std::set<std::string>{"a/other", "a/" + std::string(64, 'a')});
}

RegisteredVersion signed_version(const std::string& number, const std::string& package, const std::string& signer) {
  RegisteredVersion made = version(number);
  made.package = package;
  made.signer = signer;
  return made;
}

TEST_CASE("the archive: versions beside the active one, and the one before it") {
  const TempDirectory directory;
  auto registry = open_registry(directory / "registry.db");
  CHECK_FALSE(registry.add_version("a", version("1.0.0")));
  const auto first = registry.put("a", signed_version("1.0.0", "p1", "RWkey"));
  REQUIRE(first);
  CHECK(first->active.signer == "RWkey");
  CHECK(first->previous_version.empty());
  CHECK(first->upgrade.empty());
  REQUIRE(registry.add_version("a", signed_version("1.1.0", "p2", "")));
  CHECK(registry.get("a").value()->active.version == "1.0.0");
  CHECK_FALSE(registry.add_version("a", signed_version("1.0.0", "p3", "")));
  CHECK(registry.get("a").value()->active.package == "p1");

  const auto second = registry.activate("a", "1.1.0", R"({"phase":"probation"})");
  REQUIRE(second);
  CHECK(second->active.version == "1.1.0");
  CHECK(second->active.package == "p2");
  CHECK(second->previous_version == "1.0.0");
  CHECK(second->upgrade == R"({"phase":"probation"})");
  const auto missing = registry.activate("a", "9.9.9", "");
  REQUIRE_FALSE(missing);
  CHECK(missing.error().message() == "agent a has no version 9.9.9");
  CHECK_FALSE(registry.activate("nobody", "1.0.0", ""));
  CHECK(registry.get("a").value()->upgrade == R"({"phase":"probation"})");

  REQUIRE(registry.set_upgrade("a", ""));
  CHECK(registry.get("a").value()->upgrade.empty());
  // The same one again changes nothing.
  CHECK(registry.activate("a", "1.1.0", "")->previous_version == "1.0.0");
  CHECK(registry.put("a", signed_version("1.1.0", "p2", ""))->previous_version == "1.0.0");
  const auto back = registry.activate("a", "1.0.0", "");
  CHECK(back->previous_version == "1.1.0");
  CHECK(registry.put("a", version("2.0.0"))->previous_version == "1.0.0");
}

TEST_CASE("versions leave the archive one by one, but for the active one and the one before it") {
  const TempDirectory directory;
  auto registry = open_registry(directory / "registry.db");
  for (const char* number : {"1.0.0", "1.1.0", "1.2.0"}) REQUIRE(registry.put("a", version(number)));
  const auto active = registry.remove_version("a", "1.2.0");
  REQUIRE_FALSE(active);
  CHECK(active.error().message().find("is the active one or the one before it") != std::string::npos);
  CHECK_FALSE(registry.remove_version("a", "1.1.0"));
  REQUIRE(registry.remove_version("a", "1.0.0"));
  const auto gone = registry.remove_version("a", "1.0.0");
  REQUIRE_FALSE(gone);
  CHECK(gone.error().message() == "agent a has no version 1.0.0");
  CHECK_FALSE(registry.remove_version("nobody", "1.0.0"));
  CHECK(registry.versions("a")->size() == 2);
}

TEST_CASE("a version that was taken back stays bad until its bytes change") {
  const TempDirectory directory;
  auto registry = open_registry(directory / "registry.db");
  REQUIRE(registry.put("a", signed_version("1.0.0", "p1", "")));
  REQUIRE(registry.add_version("a", signed_version("1.1.0", "p2", "")));
  REQUIRE(registry.mark_bad("a", "1.1.0", "it crashed"));
  CHECK_FALSE(registry.mark_bad("a", "9.9.9", "it crashed"));
  CHECK(registry.versions("a")->at(1).bad == "it crashed");
  REQUIRE(registry.add_version("a", signed_version("1.1.0", "p2", "")));
  CHECK(registry.versions("a")->at(1).bad == "it crashed");
  CHECK(registry.put("a", signed_version("1.1.0", "p2", ""))->active.bad == "it crashed");
  REQUIRE(registry.activate("a", "1.0.0", ""));
  REQUIRE(registry.add_version("a", signed_version("1.1.0", "p3", "")));
  CHECK(registry.versions("a")->at(1).bad.empty());
}

TEST_CASE("the saved state of an agent: one, until it is taken or the agent goes") {
  const TempDirectory directory;
  const std::string path = directory / "registry.db";
  auto registry = open_registry(path);
  CHECK_FALSE(registry.set_saved_state("a", "{}"));
  REQUIRE(registry.put("a", version("1.0.0")));
  CHECK(registry.saved_state("a").value().empty());
  REQUIRE(registry.set_saved_state("a", R"({"n":1})"));
  REQUIRE(registry.set_saved_state("a", R"({"n":2})"));
  REQUIRE(registry.sync());
  registry = open_registry(path);
  CHECK(registry.saved_state("a").value() == R"({"n":2})");
  REQUIRE(registry.set_saved_state("a", ""));
  REQUIRE(registry.set_saved_state("a", ""));
  CHECK(registry.saved_state("a").value().empty());
  REQUIRE(registry.set_saved_state("a", R"({"n":3})"));
  REQUIRE(registry.remove("a"));
  REQUIRE(registry.put("a", version("1.0.0")));
  CHECK(registry.saved_state("a").value().empty());
}

/// A registry as the kaid of schema 2 wrote it: with an agent that has two versions.
void write_schema_2(const std::string& path) {
  sqlite3* raw = nullptr;
  REQUIRE(sqlite3_open(path.c_str(), &raw) == SQLITE_OK);
  constexpr const char* kOld = R"sql(
    CREATE TABLE agents(
      id TEXT PRIMARY KEY NOT NULL, active_version TEXT NOT NULL,
      desired TEXT NOT NULL CHECK(desired IN ('stopped', 'running')), state TEXT NOT NULL,
      uid_slot INTEGER NOT NULL UNIQUE, created_at INTEGER NOT NULL, last_end TEXT NOT NULL,
      FOREIGN KEY(id, active_version) REFERENCES versions(agent_id, version) DEFERRABLE INITIALLY DEFERRED) STRICT;
    CREATE TABLE versions(
      agent_id TEXT NOT NULL REFERENCES agents(id) ON DELETE CASCADE, version TEXT NOT NULL, package TEXT NOT NULL,
      manifest TEXT NOT NULL, entry_override TEXT NOT NULL, registered_at INTEGER NOT NULL,
      PRIMARY KEY(agent_id, version)) STRICT;
    CREATE TABLE synced(row INTEGER PRIMARY KEY CHECK(row = 1), count INTEGER NOT NULL) STRICT;
    INSERT INTO synced VALUES(1, 0);
    ALTER TABLE agents ADD COLUMN quarantine TEXT NOT NULL DEFAULT '';
    ALTER TABLE agents ADD COLUMN ended_instance INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE agents ADD COLUMN public_key TEXT NOT NULL DEFAULT '';
    BEGIN;
    INSERT INTO agents VALUES('a', '1.1.0', 'running', 'active', 3, 5, '{}', '', 7, 'key');
    INSERT INTO versions VALUES('a', '1.0.0', 'p1', '{}', '', 1), ('a', '1.1.0', 'p2', '{}', '.kai/main.mjs', 2);
    COMMIT;
    PRAGMA user_version=2;
  )sql";
  REQUIRE(sqlite3_exec(raw, kOld, nullptr, nullptr, nullptr) == SQLITE_OK);
  sqlite3_close(raw);
}

TEST_CASE("a registry of an earlier kaid is brought up to date, and loses nothing") {
  const TempDirectory directory;
  const std::string path = directory / "registry.db";
  write_schema_2(path);
  auto registry = open_registry(path);
  const auto agent = registry.get("a").value();
  REQUIRE(agent);
  CHECK(agent->active.version == "1.1.0");
  CHECK(agent->active.entry_override == ".kai/main.mjs");
  CHECK(agent->active.signer.empty());
  CHECK(agent->active.bad.empty());
  CHECK(agent->previous_version.empty());
  CHECK(agent->upgrade.empty());
  CHECK(agent->uid_slot == 3);
  CHECK(agent->ended_instance == 7);
  CHECK(agent->public_key == "key");
  CHECK(registry.versions("a")->size() == 2);
  CHECK(registry.activate("a", "1.0.0", "")->previous_version == "1.1.0");
  REQUIRE(registry.set_saved_state("a", "{}"));
}

TEST_CASE("everything survives being closed and opened") {
  const TempDirectory directory;
  const std::string path = directory / "registry.db";
  {
    auto registry = open_registry(path);
    REQUIRE(registry.put("a", version("1.0.0")));
    REQUIRE(registry.set_desired("a", Desired::kRunning));
    REQUIRE(registry.set_state("a", "terminated"));
    REQUIRE(registry.set_last_end("a", R"({"cause":"oom"})"));
    REQUIRE(registry.sync());
  }
  struct stat status {};
  REQUIRE(stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  auto registry = open_registry(path);
  const auto agent = registry.get("a").value();
  REQUIRE(agent);
  CHECK(agent->desired == Desired::kRunning);
  CHECK(agent->state == "terminated");
  CHECK(agent->last_end == R"({"cause":"oom"})");
}

TEST_CASE("what was written survives a kill of the process, synced or not") {
  const TempDirectory directory;
  const std::string path = directory / "registry.db";
  auto registry = open_registry(path);
  REQUIRE(registry.put("a", version("1.0.0")));
  REQUIRE(registry.set_desired("a", Desired::kRunning));
  // The files as they are now, without a close: what a kill -9 leaves.
  const std::string copy = directory / "copy.db";
  fs::copy_file(path, copy);
  fs::copy_file(path + "-wal", copy + "-wal");
  auto after = open_registry(copy);
  const auto agent = after.get("a").value();
  REQUIRE(agent);
  CHECK(agent->desired == Desired::kRunning);
}

TEST_CASE("a write that changes nothing writes nothing") {
  const TempDirectory directory;
  const std::string path = directory / "registry.db";
  auto registry = open_registry(path);
  REQUIRE(registry.put("a", version("1.0.0")));
  REQUIRE(registry.set_desired("a", Desired::kRunning));
  REQUIRE(registry.sync());
  const auto before = fs::file_size(path + "-wal");
  for (int at = 0; at < 10; ++at) {
    REQUIRE(registry.set_desired("a", Desired::kRunning));
    REQUIRE(registry.set_state("a", "registered"));
    REQUIRE(registry.sync());
  }
  CHECK(fs::file_size(path + "-wal") == before);
}

TEST_CASE("what is not registered cannot be changed") {
  const TempDirectory directory;
  auto registry = open_registry(directory / "registry.db");
  CHECK_FALSE(registry.set_desired("nobody", Desired::kRunning));
  CHECK_FALSE(registry.set_state("nobody", "stopped"));
  const auto end = registry.set_last_end("nobody", "{}");
  REQUIRE_FALSE(end);
  CHECK(end.error().message() == "agent nobody is not registered");
}

TEST_CASE("uid slots: the lowest free one, kept for life, never shared") {
  const TempDirectory directory;
  const std::string path = directory / "registry.db";
  auto registry = open_registry(path, 3);
  CHECK(registry.put("a", version("1.0.0"))->uid_slot == 0);
  CHECK(registry.put("b", version("1.0.0"))->uid_slot == 1);
  CHECK(registry.lease_slot().value() == 2);
  const auto full = registry.put("c", version("1.0.0"));
  REQUIRE_FALSE(full);
  CHECK(full.error().message().find("all 3 id ranges") != std::string::npos);
  CHECK_FALSE(registry.get("c").value());
  CHECK_FALSE(registry.lease_slot());
  CHECK(registry.put("b", version("2.0.0"))->uid_slot == 1);  // needs no new one
  registry.return_slot(2);
  CHECK(registry.put("c", version("1.0.0"))->uid_slot == 2);
  REQUIRE(registry.remove("a"));
  CHECK(registry.lease_slot().value() == 0);
  registry.return_slot(0);
  registry = open_registry(path, 3);
  CHECK(registry.get("b").value()->uid_slot == 1);
  CHECK(registry.put("d", version("1.0.0"))->uid_slot == 0);
}

TEST_CASE("text is data, never SQL") {
  const TempDirectory directory;
  auto registry = open_registry(directory / "registry.db");
  const std::string hostile = "x'; DROP TABLE agents; --\n\0y";
  REQUIRE(registry.put("a", {hostile, hostile, hostile, hostile, 1}));
  REQUIRE(registry.set_last_end("a", hostile));
  const auto agent = registry.get("a").value();
  REQUIRE(agent);
  CHECK(agent->active.manifest_json == hostile);
  CHECK(agent->last_end == hostile);
}

TEST_CASE("a database that is damaged, empty, newer or no file is refused and left as it is") {
  const TempDirectory directory;
  const std::string path = directory / "registry.db";
  const auto refused_with = [&](const std::string& words) {
    const auto before = fs::is_regular_file(path) ? read_file(path, 1 << 26).value() : "";
    const auto registry = Registry::open(path, 4);
    REQUIRE_FALSE(registry);
    CHECK_MESSAGE(registry.error().message().find(words) != std::string::npos, registry.error().message());
    CHECK(registry.error().message().find(path) != std::string::npos);
    if (fs::is_regular_file(path)) CHECK(read_file(path, 1 << 26).value() == before);
  };
  SUBCASE("not a database") {
    std::ofstream(path) << std::string(8192, 'x');
    refused_with("the file is damaged");
  }
  SUBCASE("empty") {
    std::ofstream(path).flush();
    refused_with("is empty, so it is damaged");
  }
  SUBCASE("a page overwritten") {
    open_registry(path);
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(4096);
    file << std::string(3000, 'x');
    file.close();
    refused_with("damaged");
  }
  SUBCASE("cut short") {
    {
      auto registry = open_registry(path);
      REQUIRE(registry.put("a", {"1.0.0", "p", std::string(100'000, 'm'), "", 1}));
    }
    fs::resize_file(path, fs::file_size(path) / 2);
    refused_with("damaged");
  }
  SUBCASE("newer") {
    open_registry(path);
    sqlite3* raw = nullptr;
    REQUIRE(sqlite3_open(path.c_str(), &raw) == SQLITE_OK);
    REQUIRE(sqlite3_exec(raw, "PRAGMA user_version=99", nullptr, nullptr, nullptr) == SQLITE_OK);
    sqlite3_close(raw);
    refused_with("written by a newer kaid (schema 99");
  }
  SUBCASE("a directory") {
    fs::create_directory(path);
    refused_with("not a regular file");
  }
  SUBCASE("a symlink") {
    fs::create_symlink("elsewhere", path);
    refused_with("not a regular file");
  }
}

TEST_CASE("a directory that cannot be written is an error that names the file") {
  const auto registry = Registry::open("/proc/registry.db", 4);
  REQUIRE_FALSE(registry);
  CHECK(registry.error().message().find("/proc/registry.db") != std::string::npos);
}

TEST_CASE("a full disk is an error, and what was there stays") {
  const TempDirectory directory;
  const std::string path = directory / "registry.db";
  auto registry = open_registry(path);
  REQUIRE(registry.put("a", version("1.0.0")));
  // RLIMIT_FSIZE refuses the growth of a file as a full disk does.
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit tight{256 << 10, old.rlim_max};
  REQUIRE(setrlimit(RLIMIT_FSIZE, &tight) == 0);
  const auto put = registry.put("b", {"1.0.0", "p", std::string(1 << 20, 'm'), "", 1});
  REQUIRE(setrlimit(RLIMIT_FSIZE, &old) == 0);
  REQUIRE_FALSE(put);
  CHECK(put.error().message().find(path) != std::string::npos);
  CHECK(registry.get("a").value());
  CHECK_FALSE(registry.get("b").value());
  REQUIRE(registry.put("b", version("1.0.0")));
  registry = open_registry(path);
  CHECK(registry.list().value().size() == 2);
}

}  // namespace
}  // namespace kai
