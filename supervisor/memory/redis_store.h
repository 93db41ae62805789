// Contexts on an operator's redis server, through one connection of control's (hiredis, on the loop). An agent reaches
// nothing of another's: every redis key begins with the agent's id, which control alone chooses.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "supervisor/loop/event_loop.h"
#include "supervisor/memory/expiry_clock.h"
#include "supervisor/memory/store.h"

namespace kai {

/// `redis: {url: …}` of kaid.yaml: redis://[USER:PASSWORD@]HOST[:PORT][/DB], or unix:/PATH[?db=N] (unix:///PATH too).
struct RedisUrl {
  std::string path;  ///< of a Unix socket; empty: TCP
  std::string host;
  std::uint16_t port = 6379;
  std::string user, password;
  int database = 0;
};
/// An error says what is wrong with it; never the password.
Result<RedisUrl> parse_redis_url(const std::string& url);

/// The connection, shared by all contexts: made when it is first needed, made again after a loss with a growing pause.
/// What the operator should know is told once per change: lost, back, refused, evicting.
class RedisServer {
 public:
  using Report = std::function<void(bool good, const std::string& message)>;

  /// Who connects to a Unix socket, as control sees none: answers once, later, with a connected non-blocking socket.
  using Connector = std::function<void(std::function<void(Result<Fd>)>)>;

  /// `connector` is asked where the url is a Unix socket's.
  RedisServer(EventLoop& loop, RedisUrl url, Connector connector, Report report);
  ~RedisServer();
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;

  class Link;  // redis_server.cc; what stores use
  [[nodiscard]] Link& link() { return *link_; }

 private:
  std::unique_ptr<Link> link_;
};

/// Of a context that is to last: what control knows of it when it begins anew.
struct RedisFile {
  std::string path;  ///< has the generation (redis_script.cc); empty: a volatile context has none
};

/// `server` and `clock` must outlive it.
std::unique_ptr<MemoryStore> make_redis_store(EventLoop& loop, RedisServer& server, const ExpiryClock& clock,
                                              MemoryTerms terms, RedisFile file = {});

}  // namespace kai
