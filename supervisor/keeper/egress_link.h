// kai-egress as the keeper holds it: started when the first agent may reach somebody, and kept; started anew whenever
// it ends, and told everything again. What it is to know is here, and packets are made of that when its socket has room
// for them: nothing piles up, and nothing blocks.
#pragma once

#include <signal.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "proto/egress.pb.h"
#include "supervisor/keeper/egress_process.h"
#include "supervisor/keeper/resolv_conf.h"

namespace kai::keeper {

/// What kai-egress serves an agent with.
struct AgentNetwork {
  std::vector<Fd> descriptors;  ///< as sandbox/network.h orders them
  std::string rules;            ///< egress.Rules, serialized
};

class EgressLink {
 public:
  using Clock = std::chrono::steady_clock;

  EgressLink(const Identity& identity, const Programs& programs) : identity_(identity), programs_(programs) {}

  /// An agent that needs it is about to come: it is there by then.
  void prepare() { wanted_ = true; }

  // What it is to know. Told by serve(), as soon as there is room.
  void add(std::uint64_t instance, AgentNetwork network);
  /// False: the instance has no network. `request`, unless it is 0, is in answered() when it has been told.
  bool set_rules(std::uint64_t instance, std::string rules, std::uint64_t request);
  void remove(std::uint64_t instance);
  /// kaid.yaml's upstreamDns; none: those of resolv.conf, followed while it changes.
  void use_upstream(const std::vector<std::string>& servers);
  /// There is another control, which needs a socket to it.
  void join_control();
  /// Whoever asked is gone.
  void forget_requests() { waiting_.clear(); }

  /// nullptr: the instance has no network.
  [[nodiscard]] const AgentNetwork* find(std::uint64_t instance) const;
  [[nodiscard]] std::size_t descriptors() const;  ///< that it holds for its agents
  /// An egress of the keeper before this one served these agents.
  void take_over() { started_before_ = true; }

  /// Starts, tells, ends as needed; never blocks. To be called again when `epoll` has what it owns(), and after
  /// wake_in().
  void serve(const Fd& epoll, Clock::time_point now);
  [[nodiscard]] bool owns(int fd) const { return process_.pidfd && fd == process_.pidfd.get(); }
  /// nullopt: no need.
  [[nodiscard]] std::optional<std::chrono::milliseconds> wake_in(Clock::time_point now) const;

  /// Requests whose rules it has been told since this was last called.
  std::vector<std::uint64_t> answered() { return std::exchange(answered_, {}); }
  struct ControlEnd {
    Fd socket;
    bool again = false;  ///< it is another egress than the one before
  };
  /// For control, once.
  std::optional<ControlEnd> control_end() { return std::exchange(control_end_, std::nullopt); }

  /// Ends it, in bounded time. What is returned could not be waited for: empty, as a rule. The next serve() starts
  /// another, if there are agents.
  Fd end();

 private:
  enum class Sent { kYes, kNoRoom, kBroken };

  void start(const Fd& epoll, Clock::time_point now);
  void on_end(const siginfo_t& end, const Fd& epoll, Clock::time_point now);
  void forget_process();
  void look_at_resolv_conf(Clock::time_point now);
  bool is_stuck(Clock::time_point now);
  Sent tell_all();
  Sent tell_upstream();
  Sent tell_control();
  Sent tell_agent(std::uint64_t instance);
  Sent send(const egress::Command& command, std::span<const int> beside);

  Identity identity_;
  Programs programs_;
  UnprivilegedProcess process_;
  bool wanted_ = false;  // there was an agent that needs it
  bool started_before_ = false;
  std::map<std::uint64_t, AgentNetwork> networks_;
  std::vector<std::string> servers_;
  ResolvConf resolv_conf_;

  // What this egress has not been told yet.
  bool upstream_due_ = false;
  Fd control_due_;  // its end of the socket
  std::deque<std::uint64_t> removed_;
  std::set<std::uint64_t> due_;
  std::set<std::uint64_t> known_;  // what it has been told of

  std::multimap<std::uint64_t, std::uint64_t> waiting_;  // instance → request
  std::vector<std::uint64_t> answered_;
  std::optional<ControlEnd> control_end_;
  std::optional<Clock::time_point> full_since_;
  std::optional<Clock::time_point> told_at_;  // the last command; until it has certainly read that
  std::deque<Clock::time_point> ends_;
  std::optional<Clock::time_point> start_at_;
  Clock::time_point next_look_{};  // at resolv.conf
};

}  // namespace kai::keeper
