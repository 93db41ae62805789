// Control's side of the connection to the keeper (proto/keeper.proto): requests answered by id, and events.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "proto/egress.pb.h"
#include "proto/keeper.pb.h"
#include "supervisor/loop/event_loop.h"

namespace kai {

class KeeperClient {
 public:
  using Answer = std::function<void(const keeper::Reply&, std::vector<Fd> descriptors)>;
  struct Events {
    std::function<void()> stopping;
    std::function<void(const keeper::Reload&, Fd policies)> reload;
    std::function<void(Fd socket, bool again)> egress;    ///< there is one now (proto/keeper.proto, EgressSocket)
    std::function<void(const std::string& reason)> lost;  ///< the keeper is gone: control has no reason to live on
  };

  /// `socket` is SOCK_SEQPACKET.
  KeeperClient(EventLoop& loop, Fd socket);
  void set_events(Events events) { events_ = std::move(events); }

  /// What the keeper sees of one instance.
  struct InstanceEvents {
    std::function<void(const keeper::AgentExited&)> exited;  ///< once, last
    std::function<void(const keeper::LimitHit&)> limit;
    std::function<void(const keeper::FileDenied&)> file_denied;
    std::function<void(const egress::Event&)> network;
  };
  /// An instance that outlived the control before (proto/keeper.proto says which descriptors there are).
  struct Adoption {
    keeper::Adoptable instance;
    std::vector<Fd> descriptors;
  };
  struct Greeting {
    keeper::Hello hello;
    Fd policies;  ///< sealed memfd: kai.keeper.Policies
    std::vector<Adoption> adoptions;
  };

  /// Blocks for the keeper's first packets. Before the loop runs.
  static Result<Greeting> receive_hello(int socket);

  /// Sends a request (its id is set here); the descriptors go with it. `answer` (may be null) is called once, later;
  /// where the request cannot be sent, with Failed.
  void request(keeper::Request request, std::vector<Fd> descriptors, Answer answer);

  /// A number for Spawn.instance that was never used before, by an earlier control either. Nothing is called after
  /// forget().
  std::uint64_t new_instance(InstanceEvents events);
  /// Numbers up to this one were used: a clock that was set back brings none again.
  void skip_to(std::uint64_t instance) { last_instance_ = std::max(last_instance_, instance); }
  /// The same for one that is adopted.
  void adopt(std::uint64_t instance, InstanceEvents events) { instances_.emplace(instance, std::move(events)); }
  /// SIGKILL to the tree of an instance.
  void kill(std::uint64_t instance);
  /// What egress saw of one. false: that instance is gone by now.
  bool tell_network(std::uint64_t instance, const egress::Event& event);
  void forget(std::uint64_t instance) { instances_.erase(instance); }

 private:
  struct Packet {
    std::uint64_t id;
    std::string bytes;
    std::vector<Fd> descriptors;
  };

  void readable();
  void dispatch(const keeper::Reply& reply, std::vector<Fd> descriptors);
  void flush();
  void answer(std::uint64_t id, const keeper::Reply& reply, std::vector<Fd> descriptors);

  Fd socket_;
  EventLoop& loop_;
  Events events_;
  std::uint64_t last_id_ = 0;
  std::uint64_t last_instance_;
  std::unordered_map<std::uint64_t, Answer> answers_;
  std::unordered_map<std::uint64_t, InstanceEvents> instances_;
  std::deque<Packet> queue_;  // bounded by what control itself has in progress
  std::unique_ptr<Poll> poll_;
};

}  // namespace kai
