// Everything that egress does for one agent: its DNS server, its listeners and what comes in on them, and what its own
// kernel refused.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "proto/egress.pb.h"
#include "supervisor/egress/connection.h"
#include "supervisor/egress/dns_server.h"
#include "supervisor/egress/names.h"
#include "supervisor/egress/pipes.h"
#include "supervisor/egress/reactor.h"
#include "supervisor/egress/refusal_log.h"
#include "supervisor/egress/refusals.h"
#include "supervisor/egress/resolver.h"

namespace kai::egress {

/// What all agents share.
struct Shared {
  Reactor& reactor;
  Resolver& resolver;
  PipePool& pipes;
  std::function<void(egress::Event&& event)> tell;
};

class AgentNetwork {
 public:
  /// `descriptors`: as sandbox/network.h orders them.
  static Result<std::unique_ptr<AgentNetwork>> create(Shared& shared, std::uint64_t instance, egress::Rules rules,
                                                      std::vector<Fd> descriptors);
  AgentNetwork(const AgentNetwork&) = delete;
  AgentNetwork& operator=(const AgentNetwork&) = delete;

  /// What is open and not allowed by them is reset before this returns.
  void use(egress::Rules rules);
  /// The agent has ended: what is open is reset, and told.
  void end() { traffic_->close_all("the agent ended"); }
  void describe(egress::Snapshot& snapshot) const;

 private:
  struct Listener {
    Fd socket;
    Reactor::Watch watch;
    bool again = false;  // it goes on in the next round
  };

  static constexpr int kAcceptedInOneTurn = 32;

  AgentNetwork(Shared& shared, std::uint64_t instance, egress::Rules rules);
  template <typename What>
  void tell(What* (egress::Event::*member)(), What&& what);
  Result<> listen(std::vector<Fd> descriptors);
  void accept_from(Listener& listener);
  void accept_later(Listener& listener, bool pause);
  void on_refused_lookup(const RefusedLookup& lookup);
  void on_refused_port(const RefusedPort& port);

  Shared& shared_;
  std::uint64_t instance_;
  egress::Rules rules_;
  SyntheticNames names_;
  std::unique_ptr<AgentTraffic> traffic_;
  std::unique_ptr<DnsServer> dns_;
  std::vector<RefusalTap> taps_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  Reactor::Timer accept_timer_;
  RefusalLog refusals_;  // of questions and ports; connections are traffic_'s
};

}  // namespace kai::egress
