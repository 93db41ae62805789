// make_redis_store: a context's queue, and what opens and clears it. What each request asks of the script:
// redis_requests.cc; save and restore: redis_transfer.cc.
#include "supervisor/memory/redis_store.h"

#include <sodium.h>

#include <array>
#include <utility>

#include "base/text.h"
#include "supervisor/memory/redis_context.h"
#include "supervisor/memory/redis_generation.h"

namespace kai {

namespace {

constexpr std::size_t kAnswerHead = 7;

std::vector<std::string> context_keys(const std::string& agent_id, std::string_view part,
                                      std::initializer_list<std::string_view> names) {
  std::vector<std::string> keys;
  for (const auto name : names) keys.push_back("kai:{" + agent_id + "}:" + std::string(part) + std::string(name));
  return keys;
}

std::string random_hex() {
  std::array<unsigned char, 16> bytes{};
  randombytes_buf(bytes.data(), bytes.size());
  std::string hex(2 * bytes.size() + 1, '\0');
  sodium_bin2hex(hex.data(), hex.size(), bytes.data(), bytes.size());
  hex.pop_back();
  return hex;
}

bool is_string(const redisReply* reply) {
  return reply->type == REDIS_REPLY_STRING;
}

std::optional<ScriptAnswer> parse_answer(const redisReply& reply) {
  if (reply.type != REDIS_REPLY_ARRAY || reply.elements < kAnswerHead || !is_string(reply.element[0]))
    return std::nullopt;
  for (std::size_t i = 1; i < kAnswerHead; ++i)
    if (reply.element[i]->type != REDIS_REPLY_INTEGER || reply.element[i]->integer < 0) return std::nullopt;
  const auto number = [&reply](std::size_t i) { return static_cast<std::uint64_t>(reply.element[i]->integer); };
  ScriptAnswer answer;
  answer.status = {reply.element[0]->str, reply.element[0]->len};
  answer.exists = number(1) != 0;
  answer.usage = {.bytes = number(3), .entries = number(2)};
  answer.version = number(4);
  answer.changes = number(5);
  answer.due = number(6) != 0;
  answer.rest = {reply.element + kAnswerHead, reply.elements - kAnswerHead};
  return answer;
}

}  // namespace

bool ScriptAnswer::is_text(std::size_t i) const {
  return i < rest.size() && is_string(rest[i]);
}

std::string_view ScriptAnswer::text(std::size_t i) const {
  return is_text(i) ? std::string_view(rest[i]->str, rest[i]->len) : std::string_view();
}

std::int64_t ScriptAnswer::number(std::size_t i) const {
  return i < rest.size() && rest[i]->type == REDIS_REPLY_INTEGER ? rest[i]->integer : 0;
}

std::unique_ptr<MemoryStore> make_redis_store(EventLoop& loop, RedisServer& server, const ExpiryClock& clock,
                                              MemoryTerms terms, RedisFile file) {
  return std::make_unique<RedisContext>(loop, server.link(), clock, std::move(terms), std::move(file));
}

RedisContext::RedisContext(EventLoop& loop, RedisServer::Link& link, const ExpiryClock& clock, MemoryTerms terms,
                           RedisFile file)
    : loop_(loop),
      link_(link),
      clock_(clock),
      terms_(std::move(terms)),
      keys_(context_keys(terms_.agent_id, "", {"values", "keys", "expiry", "meta"})),
      stage_keys_(context_keys(terms_.agent_id, "new:", {"values", "keys", "expiry"})),
      aside_keys_(context_keys(terms_.agent_id, "aside:", {"values", "keys", "expiry", "meta"})),
      file_(std::move(file.path)),
      generation_(random_hex()) {}

RedisContext::~RedisContext() {
  alive_.reset();
  const auto ended = memory_error("UNAVAILABLE", "the agent's memory is being closed");
  const auto answer = [&ended](std::uint64_t id, const Answer& to) {
    klp::MemoryAnswer message;
    message.set_id(id);
    *message.mutable_error() = ended;
    to(std::move(message));
  };
  if (alone_) std::exchange(alone_, nullptr)(tl::unexpected(ended));
  for (const auto& flight : std::exchange(flights_, {})) answer(flight->result.id(), flight->answer);
  for (const auto& job : std::exchange(queue_, {})) {
    if (job.done) {
      job.done(tl::unexpected(ended));
    } else {
      answer(job.request.id(), job.answer);
    }
  }
}

void RedisContext::open(Done done) {
  if (!is_agent_id(terms_.agent_id)) {
    // Else it could be the name of another agent's keys.
    give_alone([this] { end_alone(tl::unexpected(memory_error("INVALID", "this is no agent's id"))); },
               std::move(done));
    return;
  }
  link_.hurry();
  give_alone(
      [this] {
        if (file_.empty()) return open_on_redis();
        const auto found = std::make_shared<Result<std::optional<std::string>>>();
        loop_.work([path = file_, found] { *found = load_redis_generation(path); },
                   [this, found, alive = std::weak_ptr(alive_)] {
                     if (alive.expired()) return;
                     if (!*found) return end_alone(tl::unexpected(memory_error("INTERNAL", found->error().message())));
                     noted_ = known_ = found->value().has_value();
                     if (noted_) generation_ = *found->value();
                     open_on_redis();
                   });
      },
      std::move(done));
}

void RedisContext::open_on_redis() {
  run(
      "open", {},
      [this](MemoryOutcome<ScriptAnswer>&& answer) {
        if (!answer) {
          const auto refuse = [this, error = answer.error()] { end_alone(tl::unexpected(error)); };
          // What was lost is told once, and the next start begins empty.
          return told_lost_ && noted_ ? forget_generation(refuse) : refuse();
        }
        if (!answer->text(0).empty()) generation_ = answer->text(0);
        opened_ = true;
        end_alone({});
      },
      aside_keys_);
}

/// Before the first answer that tells of the context goes out. Whoever is told of no write has lost none.
void RedisContext::note_generation() {
  noting_ = true;
  // Later in this round: open has taken redis' generation by then.
  loop_.defer([this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    const auto result = std::make_shared<Result<>>();
    loop_.work([path = file_, generation = generation_, result] { *result = save_redis_generation(path, generation); },
               [this, result, alive] {
                 if (!alive.expired()) noted(*result);
               });
  });
}

void RedisContext::noted(const Result<>& result) {
  noting_ = false;
  noted_ = result.has_value();
  std::optional<klp::MemoryError> error;
  if (!result) {
    error = memory_error("INTERNAL", "what was begun on redis cannot be noted, so that a loss would not be noticed: " +
                                         result.error().message() + "; whether this was carried out is not known");
    for (const auto& flight : flights_)
      if (flight->ready) *flight->result.mutable_error() = *error;
  }
  schedule();
  if (!alone_end_) return;
  auto end = std::move(*alone_end_);
  alone_end_.reset();
  if (error) end = tl::unexpected(*error);
  end_alone(std::move(end));
}

void RedisContext::forget_generation(std::function<void()> then) {
  if (file_.empty()) return then();
  const auto result = std::make_shared<Result<>>();
  loop_.work([path = file_, result] { *result = remove_redis_generation(path); },
             [this, result, then = std::move(then), alive = std::weak_ptr(alive_)] {
               if (alive.expired()) return;
               if (!*result) return end_alone(tl::unexpected(memory_error("INTERNAL", result->error().message())));
               noted_ = false;
               then();
             });
}

void RedisContext::clear(Done done) {
  give_alone(
      [this] {
        clearing_ = true;  // a sweep that is under way notes nothing again
        // First: what is on redis without it is found there, and what is not there is not missed.
        forget_generation([this] { clear_on_redis(); });
      },
      std::move(done));
}

void RedisContext::clear_on_redis() {
  std::vector<std::string> all = stage_keys_;
  all.insert(all.end(), aside_keys_.begin(), aside_keys_.end());
  // Whether it was carried out is not always known: nothing is a context too from here on.
  known_ = false;
  run(
      "clear", {},
      [this](MemoryOutcome<ScriptAnswer>&& answer) {
        if (!answer) return end_alone(tl::unexpected(answer.error()));
        told_lost_ = false;
        end_alone({});
      },
      all);
}

void RedisContext::perform(klp::MemoryRequest&& request, Answer answer) {
  const std::size_t bytes = request.ByteSizeLong();
  const std::size_t waiting = queue_.size() + flights_.size();
  if (waiting >= kMaxRedisQueue || (waiting > 0 && waiting_bytes_ + bytes > kMaxRedisQueueBytes)) {
    klp::MemoryAnswer busy;
    busy.set_id(request.id());
    *busy.mutable_error() = memory_error("BUSY", "too many requests of this agent to its memory are waiting (at most " +
                                                     std::to_string(kMaxRedisQueue) + ", and 16 MiB of them)");
    loop_.defer([busy, answer = std::move(answer)]() mutable { answer(std::move(busy)); });
    return;
  }
  waiting_bytes_ += bytes;
  queue_.push_back({.request = std::move(request), .answer = std::move(answer), .bytes = bytes});
  schedule();
}

void RedisContext::give_alone(std::function<void()> alone, Done done) {
  queue_.push_back({.alone = std::move(alone), .done = std::move(done)});
  schedule();
}

void RedisContext::end_alone(MemoryOutcome<>&& outcome) {
  schedule();
  if (noting_) {
    alone_end_ = std::move(outcome);
    return;
  }
  clearing_ = false;
  if (auto done = std::exchange(alone_, nullptr)) done(std::move(outcome));
}

/// Later in this round of the loop: nobody is answered from within a call.
void RedisContext::schedule() {
  if (std::exchange(scheduled_, true)) return;
  loop_.defer([this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    scheduled_ = false;
    pump();
  });
}

void RedisContext::pump() {
  const auto alive = std::weak_ptr(alive_);
  while (!queue_.empty() && !alone_) {
    Job& next = queue_.front();
    if (flights_.size() >= (next.done ? 1 : kMaxRedisInFlight) || (next.done && noting_)) break;
    Job job = std::move(next);
    queue_.pop_front();
    start(std::move(job));
    if (alive.expired()) return;
  }
  sweep_if_due();
  deliver();
}

void RedisContext::start(Job&& job) {
  if (job.done) {
    alone_ = std::move(job.done);
    return job.alone();
  }
  const auto flight = std::make_shared<Flight>();
  flight->result.set_id(job.request.id());
  flight->answer = std::move(job.answer);
  flight->bytes = job.bytes;
  flights_.push_back(flight);
  start_request(job.request, flight);
}

void RedisContext::deliver() {
  const auto alive = std::weak_ptr(alive_);
  while (!noting_ && !flights_.empty() && flights_.front()->ready) {
    const auto flight = std::move(flights_.front());
    flights_.pop_front();
    waiting_bytes_ -= flight->bytes;
    if (!queue_.empty()) schedule();
    // Whoever is answered may end this store.
    flight->answer(std::move(flight->result));
    if (alive.expired()) return;
  }
}

void RedisContext::sweep_if_due() {
  if (!due_ || sweeping_ || alone_) return;
  sweeping_ = true;
  run("sweep", {}, [this](MemoryOutcome<ScriptAnswer>&& answer) {
    sweeping_ = false;
    if (!answer) due_ = false;
    if (due_) schedule();
  });
}

void RedisContext::run(std::string_view operation, const Words& own, Then then, std::span<const std::string> keys,
                       std::uint64_t floor) {
  const std::string changes = std::to_string(changes_), now = std::to_string(clock_.now_ms());
  const std::string lowest = std::to_string(std::max(version_, floor));
  Words words(keys_.begin(), keys_.end());
  words.insert(words.end(), keys.begin(), keys.end());
  const std::size_t key_count = words.size();
  for (const std::string_view word : {operation, std::string_view(generation_), std::string_view(known_ ? "1" : "0"),
                                      std::string_view(changes), std::string_view(now), std::string_view(lowest)})
    words.push_back(word);
  words.insert(words.end(), own.begin(), own.end());
  link_.run_script(key_count, words, [this, alive = std::weak_ptr(alive_), then = std::move(then)](auto&& outcome) {
    if (!alive.expired()) then(understand(std::forward<decltype(outcome)>(outcome)));
  });
}

MemoryOutcome<ScriptAnswer> RedisContext::understand(MemoryOutcome<const redisReply*>&& outcome) {
  if (!outcome) return tl::unexpected(outcome.error());
  const auto answer = parse_answer(**outcome);
  if (!answer) {
    // Not now: the others' answers are being read.
    loop_.defer([this, alive = std::weak_ptr(alive_)] {
      if (!alive.expired()) link_.distrust("it answers what no script of kaid's answers");
    });
    return tl::unexpected(memory_error("UNAVAILABLE", link_.name() + " answered what is no answer"));
  }
  if (answer->status == "LOST") return tl::unexpected(lost(answer->text(0)));
  usage_ = answer->usage;
  version_ = std::max(version_, answer->version);
  changes_ = std::max(changes_, answer->changes);
  known_ = known_ || answer->exists;
  due_ = answer->due;
  if (answer->exists && !file_.empty() && !noted_ && !noting_ && !clearing_) note_generation();
  return *answer;
}

klp::MemoryError RedisContext::lost(std::string_view what) {
  const std::string& id = terms_.agent_id;
  const std::string next =
      opened_ ? "restore a snapshot with \"kaictl memory import " + id +
                    " FILE\", or begin anew with \"kaictl terminate " + id + " --purge\""
              : "what is left of it was set aside under kai:{" + id + "}:aside:*, and the next start begins empty";
  const std::string message = link_.name() + " evicted or lost data of agent " + id + ": missing is " +
                              escape_for_terminal(clip_utf8(what, 100)) +
                              " (evicted, deleted, or not on its disk when it stopped); " + next +
                              "; against it: maxmemory-policy noeviction, appendonly yes";
  if (!std::exchange(told_lost_, true)) link_.report(false, message);
  auto error = memory_error("UNAVAILABLE", message);
  error.set_retryable(false);
  return error;
}

}  // namespace kai
