// The link to a redis server: which connection there is, when it is made again, what waits for it, and what the
// operator is told. Stores give it scripts to run; nothing of theirs is lost without an answer.
#pragma once

#include <sys/socket.h>

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/memory/redis_connection.h"
#include "supervisor/memory/redis_store.h"

namespace kai {

/// What all contexts together may have on their way; beyond it: BUSY.
inline constexpr std::size_t kMaxRedisLinkBytes = 128 << 20;

/// The server's address as messages name it: "redis at unix:/run/redis.sock". Never the password.
std::string redis_name(const RedisUrl& url);

class RedisServer::Link {
 public:
  Link(EventLoop& loop, RedisUrl url, Connector connector, Report report);
  /// Whoever waits is answered first.
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  /// Runs the script of redis_script.h: `keys` of its arguments are keys. Calls of one moment run in their order.
  /// `done` is called from the loop, never from within.
  void run_script(std::size_t keys, std::span<const std::string_view> arguments, RedisCommand::Done done);
  /// The answer to a script was not one: the server cannot be believed, and the connection is dropped.
  void distrust(const std::string& why);
  void report(bool good, const std::string& message) { report_(good, message); }
  [[nodiscard]] const std::string& name() const { return name_; }
  /// Somebody waits for it now: a pause between attempts ends.
  void hurry() {
    if (state_ != State::kPaused) return;
    retry_.stop();
    begin();
  }

 private:
  enum class State { kIdle, kConnecting, kReady, kPaused };
  enum class Health { kGood, kLost, kRefused };
  struct Address {
    sockaddr_storage address{};
    socklen_t size = 0;
  };
  struct Resolved {
    std::vector<Address> addresses;
    std::string error;
  };

  static Resolved resolve(const RedisUrl& url);
  void begin();
  void begin_unix();
  void use(Fd socket);
  void resolved(Resolved found);
  void try_next_address(std::string why);
  void connected();
  void introduce();
  void introduced(bool ok, const std::string& refusal);
  void became_ready();
  void check_eviction();
  void told_policy(const std::string& policy);
  void command(std::span<const std::string_view> arguments, RedisCommand::Done done);
  void replied(RedisCommand&& command, const redisReply& reply);
  void enqueue(RedisCommand command);
  void dispatch(RedisCommand command);
  void load_again();
  /// Drops what there is, fails whoever waits, and tries again after a pause.
  void lose(const std::string& why, Health health);
  void tell(Health health, const std::string& why);
  [[nodiscard]] std::chrono::milliseconds pause();
  [[nodiscard]] RedisCommand counted(RedisCommand command);

  EventLoop& loop_;
  RedisUrl url_;
  std::string name_;
  Connector connector_;
  Report report_;
  State state_ = State::kIdle;
  Health health_ = Health::kGood;
  std::string why_lost_, evicting_policy_;
  std::shared_ptr<RedisConnection> connection_;
  std::deque<Address> addresses_;     // still to be tried
  std::deque<RedisCommand> waiting_;  // for the connection, or for the script to be loaded again
  std::deque<RedisCommand> not_run_;  // the server did not know the script any more
  std::size_t bytes_ = 0;             // of all commands that were given and not answered
  std::string sha1_;
  unsigned attempts_ = 0;  // that failed, one after another
  bool resolving_ = false;
  Timer deadline_, retry_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace kai
