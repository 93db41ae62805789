// An answer of many records: what is stored, read on the thread pool in pieces that the client has read before the next
// is made; then, where it follows, what comes. `logs`, `events`, `audit list` and `export` are each one of these.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "supervisor/control/connection.h"
#include "supervisor/loop/event_loop.h"

namespace kai {

class RecordStream : public std::enable_shared_from_this<RecordStream> {
 public:
  struct Piece {
    std::vector<std::string> records;
    bool done = false;
  };
  struct Source {
    std::function<Result<Piece>()> next;  ///< on the thread pool, one call at a time
    std::function<Failure(const Error&)> unreadable;
    /// When all that was stored is told; `any`: there was something. A failure is the answer then.
    std::function<std::optional<Failure>(bool any)> finish = [](bool) { return std::nullopt; };
    std::string last_word;  ///< document of the answer that ends it
    /// Of one that follows: begins to call add() for what comes, and stops.
    std::function<std::function<void()>(const std::shared_ptr<RecordStream>&)> follow;
    std::string too_fast;  ///< why a follower is given up
  };

  /// It lives as long as the request: until the client goes, or everything is said.
  static void begin(EventLoop& loop, Source source, const Responder& responder);
  ~RecordStream();
  RecordStream(const RecordStream&) = delete;
  RecordStream& operator=(const RecordStream&) = delete;

  /// A record that came after begin().
  void add(std::string record);

 private:
  RecordStream(EventLoop& loop, Source source, Responder responder)
      : loop_(loop), source_(std::move(source)), responder_(std::move(responder)) {}
  void pump();
  void deliver(Result<Piece>& piece);
  void finish();

  EventLoop& loop_;
  Source source_;
  Responder responder_;
  std::function<void()> unfollow_;
  bool reading_ = false, done_ = false;
  bool any_ = false;
  std::deque<std::string> held_;  // came while what is stored was still being read
};

}  // namespace kai
