// Control's side of the socket to kai-egress (proto/egress.proto): what happened comes in and goes to the instance that
// it is about; questions go out. Egress may end and come back at any time.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <utility>

#include "base/fd.h"
#include "proto/egress.pb.h"
#include "supervisor/control/audit_log.h"
#include "supervisor/control/keeper_client.h"
#include "supervisor/control/log.h"
#include "supervisor/loop/event_loop.h"

namespace kai {

class EgressClient {
 public:
  /// null: there is no egress, or it did not answer in time.
  using Answer = std::function<void(const egress::Snapshot* snapshot)>;

  EgressClient(EventLoop& loop, KeeperClient& keeper, Log& log, AuditLog& audit)
      : loop_(loop), keeper_(keeper), log_(log), audit_(audit) {}

  /// The socket to the egress of now. `again`: there was one before, whose connections are gone.
  void use(Fd socket, bool again);
  void snapshot(std::uint64_t instance, Answer answer);
  /// The agent's instance is over. What egress says of its last connections may come later than the keeper's word of
  /// it.
  void ended(std::uint64_t instance, const std::string& agent);

 private:
  static constexpr std::size_t kMostEnded = 64;
  struct Question {
    Question(std::uint64_t number, Answer action, EventLoop& loop)
        : id(number), answer(std::move(action)), deadline(loop) {}
    std::uint64_t id;
    Answer answer;
    Timer deadline;
  };

  void readable();
  void dispatch(const egress::Event& event);
  void log_late(std::uint64_t instance, const egress::Event& event);
  void answer(std::uint64_t id, const egress::Snapshot* snapshot);
  void drop();

  EventLoop& loop_;
  KeeperClient& keeper_;
  Log& log_;
  AuditLog& audit_;
  Fd socket_;
  std::unique_ptr<Poll> poll_;
  bool garbled_ = false;  // this egress has said so already
  std::uint64_t last_id_ = 0;
  std::list<Question> questions_;
  std::deque<std::pair<std::uint64_t, std::string>> ended_;  // the last kMostEnded: instance, agent
};

}  // namespace kai
