#include "supervisor/memory/redis_link.h"

#include <netdb.h>
#include <sodium.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/text.h"
#include "supervisor/memory/redis_script.h"

namespace kai {

namespace {

constexpr std::chrono::milliseconds kFirstPause{100}, kLongestPause{10'000};
constexpr std::size_t kSha1Digits = 40;
constexpr unsigned kMaxNotRun = 3;

std::string text_of(const redisReply& reply) {
  const bool text =
      reply.type == REDIS_REPLY_ERROR || reply.type == REDIS_REPLY_STRING || reply.type == REDIS_REPLY_STATUS;
  return text ? std::string(reply.str, reply.len) : std::string();
}

/// For a message to an operator: a server's text is nobody's to believe.
std::string shown(const std::string& text) {
  return escape_for_terminal(clip_utf8(text, 200));
}

bool is_refusal(const std::string& error) {
  return error.starts_with("WRONGPASS") || error.starts_with("NOAUTH") || error.starts_with("NOPERM") ||
         error.starts_with("ERR AUTH") || error.starts_with("ERR Client sent AUTH") ||
         error.starts_with("ERR invalid password");
}

/// "maxmemory_policy:allkeys-lru" in the lines of INFO.
std::string policy_of_info(const std::string& info) {
  constexpr std::string_view kField = "maxmemory_policy:";
  const auto at = info.find(kField);
  if (at == info.npos) return {};
  const auto from = at + kField.size();
  return info.substr(from, info.find_first_of("\r\n", from) - from);
}

}  // namespace

std::string redis_name(const RedisUrl& url) {
  if (!url.path.empty()) return "redis at unix:" + escape_for_terminal(url.path);
  const bool ipv6 = url.host.find(':') != url.host.npos;
  const std::string host = escape_for_terminal(url.host);
  return "redis at " + (ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(url.port);
}

RedisServer::RedisServer(EventLoop& loop, RedisUrl url, Connector connector, Report report)
    : link_(std::make_unique<Link>(loop, std::move(url), std::move(connector), std::move(report))) {}
RedisServer::~RedisServer() = default;

RedisServer::Link::Link(EventLoop& loop, RedisUrl url, Connector connector, Report report)
    : loop_(loop),
      url_(std::move(url)),
      name_(redis_name(url_)),
      connector_(std::move(connector)),
      report_(std::move(report)),
      deadline_(loop),
      retry_(loop) {}

RedisServer::Link::~Link() {
  state_ = State::kPaused;
  std::deque<RedisCommand> left = connection_ == nullptr ? std::deque<RedisCommand>{} : connection_->close();
  for (auto* queue : {&not_run_, &waiting_})
    for (auto& command : *queue) left.push_back(std::move(command));
  for (auto& command : left)
    if (command.done) command.done(tl::unexpected(memory_error("UNAVAILABLE", "kaid is being stopped")));
}

void RedisServer::Link::run_script(std::size_t keys, std::span<const std::string_view> arguments,
                                   RedisCommand::Done done) {
  static const std::string kAnySha1(kSha1Digits, '0');
  const std::string key_count = std::to_string(keys);
  std::vector<std::string_view> words{"EVALSHA", kAnySha1, key_count};
  words.insert(words.end(), arguments.begin(), arguments.end());
  RedisCommand command{encode_redis_command(words), 0, std::move(done)};
  command.sha1_at = command.bytes.find(kAnySha1);
  enqueue(std::move(command));
}

void RedisServer::Link::enqueue(RedisCommand command) {
  std::optional<klp::MemoryError> refused;
  if (state_ == State::kPaused)
    refused = memory_error("UNAVAILABLE", name_ + " is not reachable: " + why_lost_ + "; it is tried again by itself");
  else if (bytes_ + command.bytes.size() > kMaxRedisLinkBytes)
    refused = memory_error("BUSY", name_ + " has more to do than it keeps up with; ask again later");
  if (refused) {
    loop_.defer([done = std::move(command.done), error = *refused] { done(tl::unexpected(error)); });
    return;
  }
  command = counted(std::move(command));
  if (state_ == State::kReady && not_run_.empty()) return dispatch(std::move(command));
  waiting_.push_back(std::move(command));
  if (state_ == State::kIdle) begin();
}

RedisCommand RedisServer::Link::counted(RedisCommand command) {
  bytes_ += command.bytes.size();
  command.done = [this, size = command.bytes.size(), done = std::move(command.done)](auto&& outcome) {
    bytes_ -= size;
    done(std::forward<decltype(outcome)>(outcome));
  };
  return command;
}

void RedisServer::Link::dispatch(RedisCommand command) {
  command.bytes.replace(command.sha1_at, kSha1Digits, sha1_);
  connection_->send(std::move(command));
}

void RedisServer::Link::begin() {
  state_ = State::kConnecting;
  deadline_.start(kRedisDeadline, [this] {
    lose("no connection within " + std::to_string(kRedisDeadline.count() / 1000) + " s", Health::kLost);
  });
  // Either may take as long as it likes: longer than this attempt, then it is for the next one.
  if (std::exchange(resolving_, true)) return;
  if (!url_.path.empty()) return begin_unix();
  auto found = std::make_shared<Resolved>();
  loop_.work([url = url_, found] { *found = resolve(url); },
             [this, found, alive = std::weak_ptr(alive_)] {
               if (alive.lock() == nullptr) return;
               resolving_ = false;
               if (state_ == State::kConnecting) resolved(std::move(*found));
             });
}

void RedisServer::Link::begin_unix() {
  connector_([this, alive = std::weak_ptr(alive_)](Result<Fd> socket) {
    if (alive.expired()) return;
    resolving_ = false;
    if (state_ != State::kConnecting) return;
    if (!socket) return lose(socket.error().message(), Health::kLost);
    use(std::move(*socket));
  });
}

RedisServer::Link::Resolved RedisServer::Link::resolve(const RedisUrl& url) {
  Resolved result;
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  const int error = getaddrinfo(url.host.c_str(), std::to_string(url.port).c_str(), &hints, &found);
  if (error != 0) {
    result.error = std::string("its name is not resolved: ") + gai_strerror(error);
    return result;
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, freeaddrinfo);
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    if (one->ai_addrlen > sizeof(sockaddr_storage)) continue;
    auto& entry = result.addresses.emplace_back();
    std::memcpy(&entry.address, one->ai_addr, one->ai_addrlen);
    entry.size = one->ai_addrlen;
  }
  return result;
}

void RedisServer::Link::resolved(Resolved found) {
  addresses_.assign(found.addresses.begin(), found.addresses.end());
  try_next_address(found.error.empty() ? "its name has no address" : found.error);
}

void RedisServer::Link::try_next_address(std::string why) {
  while (!addresses_.empty()) {
    const Address to = addresses_.front();
    addresses_.pop_front();
    Fd socket(::socket(to.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket ||
        (connect(socket.get(), reinterpret_cast<const sockaddr*>(&to.address), to.size) < 0 && errno != EINPROGRESS)) {
      why = std::strerror(errno);
      continue;
    }
    return use(std::move(socket));
  }
  lose(why, Health::kLost);
}

void RedisServer::Link::use(Fd socket) {
  connection_ = RedisConnection::make(
      loop_, std::move(socket),
      {.connected = [this] { connected(); },
       .replied = [this](RedisCommand&& command, const redisReply& reply) { replied(std::move(command), reply); },
       .ended =
           [this](const std::string& reason) {
             // Of a host with several addresses the next one may be the right one.
             if (state_ == State::kConnecting && !addresses_.empty()) return try_next_address(reason);
             lose(reason, Health::kLost);
           }});
}

void RedisServer::Link::connected() {
  addresses_.clear();
  introduce();
}

/// One of the link's own; `done` holds for as long as the connection does.
void RedisServer::Link::command(std::span<const std::string_view> arguments, RedisCommand::Done done) {
  connection_->send({encode_redis_command(arguments), 0, std::move(done)});
}

void RedisServer::Link::introduce() {
  const auto must_be_taken = [this](MemoryOutcome<const redisReply*>&& outcome) {
    if (!outcome) introduced(false, outcome.error().message());
  };
  if (!url_.password.empty()) {
    std::vector<std::string_view> words{"AUTH"};
    if (!url_.user.empty()) words.push_back(url_.user);
    words.push_back(url_.password);
    command(words, must_be_taken);
  }
  if (url_.database != 0) {
    const std::string number = std::to_string(url_.database);
    command(std::array<std::string_view, 2>{"SELECT", number}, must_be_taken);
  }
  command(std::array<std::string_view, 3>{"SCRIPT", "LOAD", kRedisScript},
          [this](MemoryOutcome<const redisReply*>&& outcome) {
            if (!outcome) return introduced(false, outcome.error().message());
            sha1_ = text_of(**outcome);
            introduced(sha1_.size() == kSha1Digits, "SCRIPT LOAD was not answered by a SHA-1");
          });
}

void RedisServer::Link::introduced(bool ok, const std::string& refusal) {
  if (state_ != State::kConnecting) return;
  if (ok) return became_ready();
  lose(refusal, is_refusal(refusal) ? Health::kRefused : Health::kLost);
}

void RedisServer::Link::became_ready() {
  state_ = State::kReady;
  attempts_ = 0;
  deadline_.stop();
  tell(Health::kGood, {});
  check_eviction();
  for (auto& command : std::exchange(waiting_, {})) dispatch(std::move(command));
}

void RedisServer::Link::check_eviction() {
  command(std::array<std::string_view, 3>{"CONFIG", "GET", "maxmemory-policy"},
          [this](MemoryOutcome<const redisReply*>&& outcome) {
            if (outcome && (*outcome)->type == REDIS_REPLY_ARRAY && (*outcome)->elements == 2)
              return told_policy(text_of(*(*outcome)->element[1]));
            if (state_ != State::kReady) return;
            // Hosted servers refuse CONFIG, but have INFO.
            command(std::array<std::string_view, 2>{"INFO", "memory"}, [this](MemoryOutcome<const redisReply*>&& info) {
              if (state_ == State::kReady) told_policy(info ? policy_of_info(text_of(**info)) : std::string());
            });
          });
}

/// Once per change. volatile-* evicts keys that have redis' own expiry, and ours have none.
void RedisServer::Link::told_policy(const std::string& policy) {
  const std::string evicting = policy == "noeviction" || policy.starts_with("volatile-") ? std::string()
                               : policy.empty()                                          ? "unknown"
                                                                                         : policy;
  if (evicting == evicting_policy_) return;
  evicting_policy_ = evicting;
  if (evicting.empty()) return report_(true, name_ + " does not evict any more: its maxmemory-policy is " + policy);
  report_(false, policy.empty()
                     ? "whether " + name_ + " evicts is not known, as it refuses CONFIG GET and INFO; see to it that " +
                           "its maxmemory-policy is noeviction, as agents lose memory else"
                     : name_ + " may evict agents' memory: its maxmemory-policy is " + shown(policy) +
                           "; set it to noeviction, in its configuration and by " +
                           "\"redis-cli config set maxmemory-policy noeviction\"");
}

void RedisServer::Link::replied(RedisCommand&& command, const redisReply& reply) {
  const std::string error = reply.type == REDIS_REPLY_ERROR ? text_of(reply) : std::string();
  // All that were under way with it were not run either; they are given again, in their order, when the last of them
  // was answered. Nothing else goes out in between.
  if (command.sha1_at != 0 && error.starts_with("NOSCRIPT")) {
    if (++command.not_run > kMaxNotRun) {
      not_run_.push_back(std::move(command));
      return lose("it forgets its scripts at once", Health::kLost);
    }
    not_run_.push_back(std::move(command));
  } else if (reply.type == REDIS_REPLY_ERROR) {
    std::string message = state_ == State::kReady ? name_ + " refused: " + shown(error) : shown(error);
    command.done(tl::unexpected(memory_error("UNAVAILABLE", std::move(message))));
  } else {
    command.done(&reply);
  }
  if (!not_run_.empty() && connection_ != nullptr && connection_->idle()) load_again();
}

void RedisServer::Link::load_again() {
  command(std::array<std::string_view, 3>{"SCRIPT", "LOAD", kRedisScript},
          [this](MemoryOutcome<const redisReply*>&& outcome) {
            // Without it every one of them fails, and is not given again.
            if (!outcome) lose("SCRIPT LOAD was refused: " + outcome.error().message(), Health::kLost);
          });
  for (auto* queue : {&not_run_, &waiting_})
    for (auto& command : std::exchange(*queue, {})) dispatch(std::move(command));
}

void RedisServer::Link::distrust(const std::string& why) {
  if (state_ == State::kReady) lose(why, Health::kLost);
}

void RedisServer::Link::lose(const std::string& why, Health health) {
  if (state_ != State::kReady && state_ != State::kConnecting) return;
  const bool was_ready = state_ == State::kReady;
  state_ = State::kPaused;
  why_lost_ = why;
  deadline_.stop();
  addresses_.clear();
  std::deque<RedisCommand> failed = connection_ == nullptr ? std::deque<RedisCommand>{} : connection_->close();
  connection_.reset();
  for (auto* queue : {&not_run_, &waiting_})
    for (auto& command : std::exchange(*queue, {})) failed.push_back(std::move(command));
  retry_.start(pause(), [this] { begin(); });
  ++attempts_;
  tell(health, why);
  const auto error = memory_error(
      "UNAVAILABLE", was_ready ? name_ + " was lost: " + why + "; whether this was carried out is not known"
                               : name_ + " is not reachable: " + why);
  for (auto& command : failed) command.done(tl::unexpected(error));
}

std::chrono::milliseconds RedisServer::Link::pause() {
  const auto whole = std::min(kFirstPause * (1U << std::min(attempts_, 10U)), kLongestPause);
  // ±20 %: many supervisors that lost one server do not come back at one moment.
  const auto fifth = static_cast<std::uint32_t>(whole.count() / 5);
  return whole - std::chrono::milliseconds(fifth) + std::chrono::milliseconds(randombytes_uniform(2 * fifth + 1));
}

void RedisServer::Link::tell(Health health, const std::string& why) {
  if (health == health_) return;
  health_ = health;
  switch (health) {
    case Health::kGood:
      return report_(true, name_ + " is back");
    case Health::kLost:
      return report_(false, name_ + (sha1_.empty() ? " cannot be reached: " : " is lost: ") + why +
                                "; requests to agents' memory there are answered " +
                                "UNAVAILABLE until it is back; see to it that redis-server runs there, or correct " +
                                "redis.url in kaid.yaml; it is tried again by itself");
    case Health::kRefused:
      return report_(false, name_ + " refuses this kaid: " + why + "; correct the user and password of redis.url in " +
                                "kaid.yaml, or the user's rights on the server; it is tried again by itself");
  }
}

}  // namespace kai
