// What the tests of redis_store ask: a redis-server of their own, and servers that are none.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "supervisor/memory/redis_store.h"
#include "tests/unit/control/temp_directory.h"
#include "tests/unit/memory/conformance.h"

namespace kai {

/// A real redis-server, on a Unix socket and on TCP (127.0.0.1).
class RedisProcess {
 public:
  explicit RedisProcess(std::vector<std::string> options = {"--save", "", "--appendonly", "no"});
  ~RedisProcess();
  RedisProcess(const RedisProcess&) = delete;
  RedisProcess& operator=(const RedisProcess&) = delete;

  /// Until it serves.
  void start();
  /// SIGKILL, and waits for its end.
  void kill();
  /// Asks it as an operator would; arrays as their elements, each on a line.
  std::string command(const std::vector<std::string>& words);
  [[nodiscard]] RedisUrl unix_url() const;
  [[nodiscard]] RedisUrl tcp_url(const std::string& host = "127.0.0.1") const;

 private:
  TempDirectory directory_;
  std::vector<std::string> options_;
  std::uint16_t port_;
  std::string password_;
  pid_t pid_ = -1;
  Fd output_;
};

/// Whoever connects is answered by `reply`, command for command; nullopt: the connection is closed.
class FakeRedis {
 public:
  using Command = std::vector<std::string>;
  using Reply = std::function<std::optional<std::string>(const Command&)>;

  explicit FakeRedis(Reply reply);
  ~FakeRedis();
  FakeRedis(const FakeRedis&) = delete;
  FakeRedis& operator=(const FakeRedis&) = delete;
  [[nodiscard]] RedisUrl url() const;

 private:
  void serve();
  void serve_one(int connection);
  TempDirectory directory_;
  Reply reply_;
  Fd listening_, ended_, end_;
  std::thread thread_;
};

/// What a server says to the commands that a connection begins with; scripts are answered by `to_script`.
FakeRedis::Reply greeting_then(std::function<std::optional<std::string>()> to_script);

struct RedisReport {
  bool good;
  std::string message;
};
/// A backend whose stores have a connection of their own each. What they report is added to `reports`.
/// `file`: where a context keeps its generation (RedisFile).
MemoryBackend redis_backend(RedisUrl url, std::vector<RedisReport>& reports, std::string file = {});

}  // namespace kai
