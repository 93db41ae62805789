#include "supervisor/control/memory_context.h"

#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "policies/manifest_names.h"
#include "supervisor/control/log.h"

namespace kai {
namespace {

// Of each hybrid memory, and never more than it may have at all.
constexpr std::size_t kCacheBytes = 1 << 20;
// Requests that wait for the store to open.
constexpr std::size_t kMaxWaiting = 1024;

klp::MemoryAnswer failed(std::uint64_t id, const klp::MemoryError& error) {
  klp::MemoryAnswer answer;
  answer.set_id(id);
  *answer.mutable_error() = error;
  return answer;
}

bool same_terms(const MemoryConfig& memory, const Policy& policy, const MemoryConfig& other, const Policy& others) {
  return memory.type == other.type && memory.backend == other.backend && memory.ttl == other.ttl &&
         memory.max_size == other.max_size && policy.limits.memory_store_mb == others.limits.memory_store_mb &&
         policy.memory_encryption == others.memory_encryption;
}

double megabytes(std::uint64_t bytes) {
  return static_cast<double>(bytes) / static_cast<double>(1 << 20);
}

}  // namespace

MemoryContext::MemoryContext(MemoryManager& manager, std::string agent_id, const MemoryConfig& memory, PolicyRef policy)
    : manager_(manager), agent_id_(std::move(agent_id)) {
  configure(memory, std::move(policy));
}

MemoryContext::~MemoryContext() {
  *alive_ = false;
  store_.reset();
}

void MemoryContext::configure(const MemoryConfig& memory, PolicyRef policy) {
  if (policy_ && !same_terms(memory_, *policy_, memory, *policy)) close();
  memory_ = memory;
  policy_ = std::move(policy);
  max_bytes_ = MemoryManager::quota(memory_, *policy_);
}

// Whoever is answered by the store's end may ask again at once.
void MemoryContext::close() {
  const std::unique_ptr<MemoryStore> gone = std::move(store_);
  cache_.reset();
  phase_ = Phase::kClosed;
  settle(tl::unexpected(memory_error("UNAVAILABLE", "the agent's memory was closed; try again")));
}

void MemoryContext::prepare(Done done) {
  if (phase_ == Phase::kOpen) return done({});
  waiting_.push_back(std::move(done));
  if (phase_ == Phase::kOpening) return;
  phase_ = Phase::kOpening;
  look_for_damage();
  if (!damage_) return open_store();
  manager_.loop().defer([this, alive = alive_] {
    if (*alive && damage_) opened(tl::unexpected(*damage_));
  });
}

/// Of a control before, which set its file aside and did not live to refuse it.
void MemoryContext::look_for_damage() {
  if (damage_ || accepted_ || memory_.type == MemoryType::kVolatile || store_file_exists()) return;
  const std::string aside = manager_.damaged_file(agent_id_);
  if (aside.empty()) return;
  damage_ = memory_error("INTERNAL", "it was damaged and is set aside as " + aside +
                                         ": start the agent once more to begin with an empty memory, or bring an "
                                         "export back with 'kaictl memory import'");
}

void MemoryContext::start_by_operator() {
  if (damage_ && damage_told_) {
    damage_.reset();
    accepted_ = true;
  }
}

void MemoryContext::open_store() {
  auto made = manager_.make_store(agent_id_, memory_, *policy_);
  if (!made) {
    return manager_.loop().defer([this, alive = alive_, error = std::move(made.error())] {
      if (*alive) opened(tl::unexpected(error));
    });
  }
  store_ = std::move(*made);
  store_->open([this, alive = alive_](MemoryOutcome<>&& outcome) {
    if (!*alive) return;
    // A volatile memory on a server outlives the kaid that it was to end with.
    const bool left = !cleared_ && memory_.backend == MemoryBackend::kRedis && !manager_.keeps_volatile();
    const bool stale = outcome && memory_.type == MemoryType::kVolatile && (left || must_clear_);
    if (!stale) return opened(std::move(outcome));
    store_->clear([this, alive](MemoryOutcome<>&& cleared) {
      if (*alive) opened(std::move(cleared));
    });
  });
}

void MemoryContext::opened(MemoryOutcome<>&& outcome) {
  if (phase_ != Phase::kOpening) return;  // closed meanwhile
  phase_ = outcome ? Phase::kOpen : Phase::kClosed;
  fault_ = outcome ? std::string() : outcome.error().message();
  if (outcome) {
    cleared_ = true;
    must_clear_ = false;
    // Of damage that is found later the operator has heard nothing.
    accepted_ = damage_told_ = false;
    if (memory_.type == MemoryType::kHybrid) cache_ = std::make_unique<MemoryCache>(kCacheBytes);
  } else {
    const klp::MemoryError& error = outcome.error();
    const bool damaged = error.code() == "INTERNAL" || (error.code() == "UNAVAILABLE" && !error.retryable());
    if (damaged && !damage_) manager_.log().write(LogLevel::kError, agent_id_, "error", "its memory: " + fault_);
    if (damaged && !damage_ && memory_.type != MemoryType::kVolatile) damage_ = error;
    // A store is not destroyed from within its own callback.
    manager_.loop().defer([store = std::shared_ptr<MemoryStore>(std::move(store_))] {});
  }
  settle(outcome);
}

void MemoryContext::settle(const MemoryOutcome<>& outcome) {
  const std::vector<Done> waiting = std::move(waiting_);
  waiting_.clear();
  for (const Done& done : waiting) done(MemoryOutcome<>(outcome));
}

void MemoryContext::perform(klp::MemoryRequest&& request, Answer answer) {
  if (phase_ == Phase::kOpen) return carry_out(std::move(request), std::move(answer));
  if (waiting_.size() >= kMaxWaiting) {
    return manager_.loop().defer([answer = std::move(answer), id = request.id()] {
      answer(failed(id, memory_error("BUSY", "the agent's memory is being opened, and too much waits for it")));
    });
  }
  const auto kept = std::make_shared<klp::MemoryRequest>(std::move(request));
  prepare([this, kept, answer = std::move(answer)](MemoryOutcome<>&& ready) mutable {
    if (!ready) return answer(failed(kept->id(), ready.error()));
    carry_out(std::move(*kept), std::move(answer));
  });
}

MemoryContext::Answer MemoryContext::counted(Answer answer) {
  ++under_way_;
  return [this, alive = alive_, answer = std::move(answer)](klp::MemoryAnswer&& said) {
    if (*alive) {
      --under_way_;
      note(said);
    }
    answer(std::move(said));
  };
}

MemoryContext::Done MemoryContext::counted_done(Done done) {
  ++under_way_;
  return [this, alive = alive_, done = std::move(done)](MemoryOutcome<>&& outcome) {
    if (*alive) --under_way_;
    done(std::move(outcome));
  };
}

void MemoryContext::carry_out(klp::MemoryRequest&& request, Answer to) {
  Answer answer = counted(std::move(to));
  if (!cache_) return store_->perform(std::move(request), std::move(answer));
  if (request.has_get()) {
    if (auto got = cache_->find(request.get(), manager_.clock().now_ms())) {
      klp::MemoryAnswer found;
      found.set_id(request.id());
      *found.mutable_got() = std::move(*got);
      return manager_.loop().defer(
          [answer = std::move(answer), found = std::move(found)]() mutable { answer(std::move(found)); });
    }
    return store_->perform(std::move(request),
                           [this, alive = alive_, answer = std::move(answer)](klp::MemoryAnswer&& got) {
                             if (*alive && cache_ && got.has_got()) cache_->learn(got.got());
                             answer(std::move(got));
                           });
  }
  if (!request.has_set() && !request.has_delete_()) return store_->perform(std::move(request), std::move(answer));
  const auto write = std::make_shared<klp::MemoryRequest>(request);
  cache_->begin(*write);
  store_->perform(std::move(request),
                  [this, alive = alive_, write, answer = std::move(answer)](klp::MemoryAnswer&& written) {
                    if (*alive && cache_) {
                      cache_->finish(*write, written, [this](const klp::MemoryWrite& value) { return expires(value); });
                    }
                    answer(std::move(written));
                  });
}

/// When what is written now expires, as its store reckons.
std::int64_t MemoryContext::expires(const klp::MemoryWrite& write) const {
  const double fallback = memory_.ttl.value_or(0) * 1000;
  const double ttl = write.has_ttl() ? static_cast<double>(write.ttl_ms()) : fallback;
  // The store reckoned a moment earlier: what is here ends no later than there.
  constexpr std::int64_t kMargin = 1'000;
  if (ttl <= 0) return 0;
  return std::max<std::int64_t>(1,
                                manager_.clock().now_ms() + static_cast<std::int64_t>(std::min(ttl, 1e15)) - kMargin);
}

void MemoryContext::end_session() {
  if (!store_) return;
  store_->end_session();
  release();
}

void MemoryContext::new_session() {
  if (store_) store_->end_session();
}

// What control knows of a context on redis tells a loss from an empty one: it stays.
void MemoryContext::release() {
  if (phase_ == Phase::kOpen && under_way_ == 0 && memory_.backend != MemoryBackend::kRedis) close();
}

void MemoryContext::touch() {
  last_accessed_ = unix_ms();
}

/// What the store cannot do by now is what the operator sees of it.
void MemoryContext::note(const klp::MemoryAnswer& said) {
  if (!said.has_error()) return fault_.clear();
  const std::string& code = said.error().code();
  if (code != "UNAVAILABLE" && code != "INTERNAL") return;
  const bool news = fault_.empty();
  fault_ = said.error().message();
  if (news) manager_.log().write(LogLevel::kError, agent_id_, "error", "its memory: " + fault_);
}

void MemoryContext::clear(Cleared cleared) {
  prepare([this, cleared = std::move(cleared)](MemoryOutcome<>&& ready) {
    if (!ready) return cleared(tl::unexpected(std::move(ready.error())));
    const MemoryUsage had = store_->usage();
    if (cache_) cache_->clear();
    store_->clear(counted_done([cleared, had](MemoryOutcome<>&& done) {
      if (!done) return cleared(tl::unexpected(std::move(done.error())));
      cleared(MemoryUsage(had));
    }));
  });
}

void MemoryContext::terminate(Cleared cleared) {
  if (memory_.type != MemoryType::kVolatile || !exists()) return cleared(MemoryUsage{});
  clear([this, alive = alive_, cleared = std::move(cleared)](MemoryOutcome<MemoryUsage>&& outcome) {
    if (*alive) must_clear_ = !outcome;
    cleared(std::move(outcome));
  });
}

void MemoryContext::purge(Cleared purged) {
  damage_.reset();
  accepted_ = true;
  const bool unreachable = memory_.backend == MemoryBackend::kRedis && !manager_.has_redis();
  if (!exists() || unreachable) {
    // Another backend, or a type, of a version before may have left something.
    return purged(remove_files(MemoryUsage{}));
  }
  clear([this, alive = alive_, purged = std::move(purged)](MemoryOutcome<MemoryUsage>&& cleared) {
    if (!*alive) return purged(tl::unexpected(memory_error("NOT_FOUND", "the agent was unregistered meanwhile")));
    // What cannot be opened can still be removed; what is on a server that does not answer cannot.
    const bool file = memory_.backend != MemoryBackend::kRedis;
    if (!cleared && !file) return purged(std::move(cleared));
    std::shared_ptr<MemoryStore> keep(std::move(store_));
    close();
    manager_.loop().defer(
        [this, alive, keep = std::move(keep), purged, had = cleared.value_or(MemoryUsage{})]() mutable {
          keep.reset();
          if (!*alive) return purged(tl::unexpected(memory_error("NOT_FOUND", "the agent was unregistered meanwhile")));
          purged(remove_files(had));
        });
  });
}

MemoryOutcome<MemoryUsage> MemoryContext::remove_files(const MemoryUsage& had) const {
  const auto removed = manager_.remove_files(agent_id_);
  if (!removed) return tl::unexpected(memory_error("INTERNAL", removed.error().message()));
  return had;
}

void MemoryContext::save(Fd file, Done done) {
  const auto kept = std::make_shared<Fd>(std::move(file));
  prepare([this, kept, done = std::move(done)](MemoryOutcome<>&& ready) mutable {
    if (!ready) return done(std::move(ready));
    store_->save(std::move(*kept), iso_now(), counted_done(std::move(done)));
  });
}

void MemoryContext::restore(Fd file, Done done) {
  damage_.reset();
  accepted_ = true;
  const auto kept = std::make_shared<Fd>(std::move(file));
  prepare([this, kept, done = std::move(done)](MemoryOutcome<>&& ready) mutable {
    if (!ready) return done(std::move(ready));
    store_->restore(std::move(*kept), counted_done([this, alive = alive_, done](MemoryOutcome<>&& restored) {
                      // A read that was under way may have brought what was there before.
                      if (*alive && cache_) cache_->clear();
                      done(std::move(restored));
                    }));
  });
}

MemoryUsage MemoryContext::usage() const {
  return phase_ == Phase::kOpen ? store_->usage() : MemoryUsage{};
}

bool MemoryContext::exists() const {
  return phase_ != Phase::kClosed || store_file_exists();
}

bool MemoryContext::store_file_exists() const {
  if (memory_.backend == MemoryBackend::kRedis) return true;
  struct stat found {};
  return ::stat(manager_.file_of(agent_id_, memory_).c_str(), &found) == 0;
}

// Before it was opened by this control, the files know.
std::int64_t MemoryContext::last_accessed() const {
  if (last_accessed_ != 0 || memory_.backend == MemoryBackend::kRedis) return last_accessed_;
  std::int64_t latest = 0;
  for (const char* suffix : {"", "-wal"}) {
    struct stat found {};
    if (::stat((manager_.file_of(agent_id_, memory_) + suffix).c_str(), &found) < 0) continue;
    latest = std::max(latest, static_cast<std::int64_t>(found.st_mtim.tv_sec) * 1000);
  }
  return latest;
}

std::string memory_stats_document(const std::vector<std::pair<std::string, const MemoryContext*>>& contexts) {
  nlohmann::ordered_json document = {{"totalAllocated", 0.0}, {"activeContexts", contexts.size()}};
  auto& list = document["contexts"] = nlohmann::ordered_json::array();
  std::uint64_t total = 0;
  for (const auto& [id, context] : contexts) {
    const MemoryUsage usage = context->usage();
    total += usage.bytes;
    nlohmann::ordered_json stats = {
        {"id", id},
        {"type", manifest::name_of<MemoryType>(manifest::kMemoryTypes, context->config().type)},
        {"backend", manifest::name_of<MemoryBackend>(manifest::kMemoryBackends, context->config().backend)},
        {"size", megabytes(usage.bytes)},
        {"entryCount", usage.entries}};
    if (context->last_accessed() != 0) stats["lastAccessed"] = iso_time(context->last_accessed());
    stats["limit"] = megabytes(context->max_bytes());
    stats["encrypted"] = context->encrypted();
    if (!context->fault().empty()) stats["fault"] = context->fault();
    list.push_back(std::move(stats));
  }
  document["totalAllocated"] = megabytes(total);
  return document.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace kai
