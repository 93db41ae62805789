// One operator's connection: requests in, responses out, several at a time. Requests answer through a Responder, which
// outlives the connection if it has to.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proto/control.pb.h"
#include "supervisor/control/failure.h"
#include "supervisor/control/stream.h"

namespace kai {

/// Everything of `failure` as kaictl gets it.
void fill_in(const Failure& failure, control::Failed& failed);

class Responder;

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  struct Handlers {
    std::function<void(const control::Request&, std::vector<Fd>, Responder)> request;
    std::function<void(const std::string& reason)> closed;  ///< once; its owner lets it go
  };

  /// `uid`: of the peer, by SO_PEERCRED.
  Connection(EventLoop& loop, Fd socket, std::uint32_t uid, Handlers handlers);

  [[nodiscard]] bool idle() const { return requests_.empty(); }
  /// Loop time of the last request, or of the connection itself.
  [[nodiscard]] std::int64_t last_used() const { return last_used_; }
  /// Answers with a failure that belongs to no request, and closes.
  void refuse(const Failure& failure);
  /// Closes, as if the peer had.
  void evict(const std::string& reason);

 private:
  friend class Responder;
  struct Open {
    std::function<void()> gone;  // the client went before the answer
    std::function<void()> drained;
  };

  void receive(std::string_view body);
  void send(control::Response response, std::uint64_t id);
  void finish(std::uint64_t id);
  void on_closed(const std::string& reason);
  void on_drained();
  void arm_idle_timer();

  EventLoop& loop_;
  std::uint32_t uid_;
  Handlers handlers_;
  std::map<std::uint64_t, Open> requests_;  // in progress
  bool drain_watched_ = false;
  std::int64_t last_used_;
  Timer idle_timer_;
  FrameStream stream_;
};

/// The answer to one request. Copies stand for the same answer; after its last word nothing more is sent.
class Responder {
 public:
  Responder(std::weak_ptr<Connection> connection, std::uint64_t id, std::uint32_t uid)
      : connection_(std::move(connection)), id_(id), uid_(uid) {}

  // Last words.
  void done(std::string json = {}, const std::vector<std::string>& warnings = {}, std::string text = {}) const;
  void fail(const Failure& failure, std::string document = {}) const;
  void run_exited(bool signaled, int code, const std::string& message) const;

  void record(std::string_view json) const;
  void run_started(int pid) const;
  void progress(const std::string& text) const;

  /// The client went before the last word.
  void on_gone(std::function<void()> action) const;
  /// Everything sent so far has been written. Called again and again; not from within a send.
  void on_drained(std::function<void()> action) const;
  [[nodiscard]] bool open() const;
  [[nodiscard]] std::size_t queued_bytes() const;
  /// Who asks.
  [[nodiscard]] std::uint32_t uid() const { return uid_; }
  /// Requests of one connection have this in common (Signal finds its run by it).
  [[nodiscard]] const void* connection_key() const { return connection_.lock().get(); }

 private:
  [[nodiscard]] std::shared_ptr<Connection> live() const;
  std::weak_ptr<Connection> connection_;
  std::uint64_t id_;
  std::uint32_t uid_;
};

}  // namespace kai
