#include "supervisor/control/memory_manager.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <vector>

#include "base/unix.h"
#include "supervisor/control/keeper_client.h"
#include "supervisor/control/log.h"
#include "supervisor/memory/sqlite_store.h"

namespace kai {
namespace {

constexpr std::uint64_t kMegabyte = 1ULL << 20;
// So much of a key's life may be counted twice after a power failure.
constexpr std::chrono::milliseconds kKeepClockEvery{60'000};

Result<> make_directory(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return {};
  return errno_failure("mkdir", path);
}

/// What was volatile goes with the kaid that had it.
Result<> sweep(const std::string& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::opendir(directory.c_str()), ::closedir);
  if (!entries) return errno_failure("opendir", directory);
  while (const dirent* entry = ::readdir(entries.get())) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (::unlinkat(::dirfd(entries.get()), name.c_str(), 0) < 0) return errno_failure("unlink", directory + "/" + name);
  }
  return {};
}

/// Of this agent's: ID.db.damaged-TIME, with -wal and -shm. Another agent may be called ID.db.damaged-TIME; its files
/// end in .db.
std::vector<std::string> damaged_names(const std::string& directory, const std::string& agent_id) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::opendir(directory.c_str()), ::closedir);
  if (!entries) return names;
  const std::string beginning = agent_id + ".db.damaged-";
  while (const dirent* entry = ::readdir(entries.get())) {
    const std::string_view name = entry->d_name;
    if (!name.starts_with(beginning)) continue;
    std::string_view time = name.substr(beginning.size());
    if (time.ends_with("-wal") || time.ends_with("-shm")) time.remove_suffix(4);
    if (time.find_first_not_of("0123456789TZ-.") == std::string_view::npos) names.emplace_back(name);
  }
  return names;
}

/// By the keeper, which sees the host's directories as they are now.
void connect_redis(KeeperClient& keeper, std::function<void(Result<Fd>)> done) {
  keeper::Request request;
  request.mutable_connect_redis();
  keeper.request(std::move(request), {}, [done = std::move(done)](const keeper::Reply& reply, std::vector<Fd> fds) {
    if (reply.has_done() && fds.size() == 1) return done(std::move(fds.front()));
    done(tl::unexpected(Error{reply.failed().detail(), reply.failed().errno_value(), ""}));
  });
}

}  // namespace

MemoryManager::MemoryManager(EventLoop& loop, Log& log, MemoryPlaces places, ExpiryClock clock)
    : loop_(loop), log_(log), places_(std::move(places)), clock_(std::move(clock)), clock_timer_(loop) {}

MemoryManager::~MemoryManager() {
  loop_.finish_work();  // stores that are closed just now look at the clock
  if (const auto now = machine_time()) static_cast<void>(clock_.save(*now));
}

Result<std::unique_ptr<MemoryManager>> MemoryManager::open(EventLoop& loop, KeeperClient& keeper, Log& log,
                                                           MemoryPlaces places) {
  places.state_dir += "/memory";
  places.runtime_dir += "/memory";
  for (const std::string& directory : {places.state_dir, places.runtime_dir}) {
    if (auto made = make_directory(directory); !made) return tl::unexpected(made.error());
  }
  if (!places.keep_volatile) {
    if (auto swept = sweep(places.runtime_dir); !swept) return tl::unexpected(swept.error());
  }
  const auto now = machine_time();
  if (!now) return tl::unexpected(now.error());
  auto clock = ExpiryClock::load(places.state_dir + "/clock", *now);
  if (!clock) return tl::unexpected(clock.error());
  std::unique_ptr<MemoryManager> manager(new MemoryManager(loop, log, std::move(places), std::move(*clock)));
  if (!manager->places_.redis_url.empty()) {
    auto url = parse_redis_url(manager->places_.redis_url);
    if (!url) return tl::unexpected(url.error());
    auto connector = [&keeper](std::function<void(Result<Fd>)> done) { connect_redis(keeper, std::move(done)); };
    manager->redis_ = std::make_unique<RedisServer>(
        loop, std::move(*url), std::move(connector), [&log](bool good, const std::string& said) {
          log.write(good ? LogLevel::kInfo : LogLevel::kError, "", good ? "kai.memory" : "error", said);
        });
  }
  manager->keep_clock();
  return manager;
}

void MemoryManager::keep_clock() {
  const auto now = machine_time();
  const Result<> saved = now ? clock_.save(*now) : tl::unexpected(now.error());
  if (!saved) log_.write(LogLevel::kError, "", "error", "the clock of agents' memory: " + saved.error().message());
  clock_timer_.start(kKeepClockEvery, [this] { keep_clock(); });
}

std::uint64_t MemoryManager::quota(const MemoryConfig& memory, const Policy& policy) {
  const double ceiling = policy.limits.memory_store_mb;
  const double asked = memory.max_size.value_or(ceiling);
  return static_cast<std::uint64_t>(std::floor(std::min(asked, ceiling) * static_cast<double>(kMegabyte)));
}

std::string MemoryManager::file_of(const std::string& agent_id, const MemoryConfig& memory) const {
  const bool kept = memory.type != MemoryType::kVolatile;
  return (kept ? places_.state_dir : places_.runtime_dir) + "/" + agent_id + ".db";
}

Result<> MemoryManager::remove_files(const std::string& agent_id) const {
  for (const std::string& directory : {places_.state_dir, places_.runtime_dir}) {
    std::vector<std::string> names = damaged_names(directory, agent_id);
    for (const char* suffix : {".db", ".db-wal", ".db-shm", ".redis"}) names.push_back(agent_id + suffix);
    for (const std::string& name : names) {
      const std::string path = directory + "/" + name;
      if (::unlink(path.c_str()) < 0 && errno != ENOENT) return errno_failure("unlink", path);
    }
  }
  return {};
}

std::string MemoryManager::without_paths(std::string message) const {
  const auto replace = [&message](const std::string& path, std::string_view by) {
    if (path.empty()) return;
    for (std::size_t at = message.find(path); at != std::string::npos; at = message.find(path, at + by.size())) {
      message.replace(at, path.size(), by);
    }
  };
  replace(places_.state_dir, "STATE/memory");
  replace(places_.runtime_dir, "RUNTIME/memory");
  // unix:/PATH, unix:///PATH
  const std::size_t path =
      places_.redis_url.starts_with("unix:") ? places_.redis_url.find_first_not_of("/", 5) : std::string::npos;
  if (path != std::string::npos && path > 5) {
    replace(places_.redis_url.substr(path - 1, places_.redis_url.find('?') - (path - 1)), "its socket");
  }
  return message;
}

std::string MemoryManager::damaged_file(const std::string& agent_id) const {
  const std::vector<std::string> names = damaged_names(places_.state_dir, agent_id);
  return names.empty() ? "" : places_.state_dir + "/" + *std::max_element(names.begin(), names.end());
}

Result<std::optional<SealKey>> MemoryManager::key_of(const std::string& agent_id, bool make) const {
  const std::string path = places_.state_dir + "/node.key";
  if (!make && ::access(path.c_str(), F_OK) < 0) return std::optional<SealKey>{};
  const auto key = load_node_key(path, make);
  if (!key) return tl::unexpected(key.error());
  return std::optional<SealKey>(agent_key(*key, agent_id));
}

MemoryOutcome<std::unique_ptr<MemoryStore>> MemoryManager::make_store(const std::string& agent_id,
                                                                      const MemoryConfig& memory,
                                                                      const Policy& policy) {
  MemoryTerms terms;
  terms.agent_id = agent_id;
  terms.max_bytes = quota(memory, policy);
  terms.default_ttl_ms = static_cast<std::uint64_t>(memory.ttl.value_or(0) * 1000);
  auto key = key_of(agent_id, policy.memory_encryption);
  if (!key) {
    return tl::unexpected(memory_error("DENIED", "the key of the node's encrypted memory: " + key.error().message()));
  }
  terms.key_path = places_.state_dir + "/node.key";
  (policy.memory_encryption ? terms.key : terms.old_key) = std::move(*key);
  if (memory.backend == MemoryBackend::kRedis) {
    if (!redis_) {
      return tl::unexpected(memory_error(
          "DENIED",
          "its memory.backend is redis, and kaid.yaml names no server: add 'redis: {url: …}' and restart kaid"));
    }
    RedisFile file;
    if (memory.type != MemoryType::kVolatile) file.path = places_.state_dir + "/" + agent_id + ".redis";
    return make_redis_store(loop_, *redis_, clock_, std::move(terms), std::move(file));
  }
  SqliteFile file;
  file.path = file_of(agent_id, memory);
  file.durable = memory.type != MemoryType::kVolatile;
  file.indexed_db = memory.backend == MemoryBackend::kIndexedDb;
  return make_sqlite_store(loop_, clock_, std::move(terms), std::move(file));
}

}  // namespace kai
