// One connection to a redis server: commands go out in order and their replies come in that order (RESP; hiredis'
// reader parses them). Whatever the server sends, it ends at worst with this connection. hiredis' own asynchronous
// context is not used: a reply that nobody asked for makes its version 0.14 abort the process (an assert).
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include <hiredis/hiredis.h>

#include "base/fd.h"
#include "supervisor/loop/event_loop.h"
#include "supervisor/memory/store.h"

namespace kai {

/// A server that does not answer its oldest command for so long has stalled.
inline constexpr std::chrono::milliseconds kRedisDeadline{2'000};
/// Of one reply: a page of a context, or an answer with its keys, is below half of it.
inline constexpr std::size_t kMaxRedisReplyBytes = 4 << 20;
inline constexpr int kMaxRedisReplyElements = 4'096;

struct RedisCommand {
  /// The reply, which holds during the call; or why there is none, or what the server refused with.
  using Done = std::function<void(MemoryOutcome<const redisReply*>&&)>;

  std::string bytes;        ///< as RESP
  std::size_t sha1_at = 0;  ///< of EVALSHA: where the 40 digits of the script stand; 0: another command
  Done done;
  unsigned not_run = 0;  ///< so often the server did not have the script
};
/// As an array of bulk strings.
std::string encode_redis_command(std::span<const std::string_view> arguments);

class RedisConnection : public std::enable_shared_from_this<RedisConnection> {
 public:
  struct Events {
    std::function<void()> connected;
    std::function<void(RedisCommand&& command, const redisReply& reply)> replied;
    /// Once; nothing comes afterwards. `why` is a clause: "it closed the connection".
    std::function<void(const std::string& why)> ended;
  };

  /// `socket` does not block, and is connected or about to be.
  static std::shared_ptr<RedisConnection> make(EventLoop& loop, Fd socket, Events events);
  ~RedisConnection();
  RedisConnection(const RedisConnection&) = delete;
  RedisConnection& operator=(const RedisConnection&) = delete;

  void send(RedisCommand command);
  /// No events any more. What was not answered is given back.
  std::deque<RedisCommand> close();
  [[nodiscard]] bool idle() const { return pending_.empty(); }

 private:
  RedisConnection(EventLoop& loop, Fd socket, Events events);
  void ready(int events);
  bool check_connected();
  void read();
  void parse();
  void flush();
  void write();
  void watch_deadline(std::chrono::milliseconds delay);
  void on_deadline();
  void end(const std::string& why);

  EventLoop& loop_;
  Fd socket_;
  Events events_;
  std::unique_ptr<redisReader, void (*)(redisReader*)> reader_;
  std::unique_ptr<Poll> poll_;
  Timer deadline_;
  std::deque<RedisCommand> pending_;  // in the order sent; the first written_ of them are with the server
  std::size_t written_ = 0, offset_ = 0;
  std::size_t unparsed_ = 0;       // bytes received since the last whole reply
  std::int64_t oldest_since_ = 0;  // since when the oldest one waits as such
  bool connected_ = false, closed_ = false, flush_due_ = false;
};

}  // namespace kai
