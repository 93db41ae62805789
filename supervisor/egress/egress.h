// kai-egress: what the keeper says, carried out. One thread; nothing in here waits for anybody.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "base/fd.h"
#include "base/result.h"
#include "supervisor/egress/agent_network.h"
#include "supervisor/egress/control_link.h"
#include "supervisor/egress/pipes.h"
#include "supervisor/egress/reactor.h"
#include "supervisor/egress/resolver.h"

namespace kai::egress {

class Egress {
 public:
  /// `keeper`: SOCK_SEQPACKET; proto/egress.proto, Command.
  static Result<std::unique_ptr<Egress>> create(Reactor& reactor, Fd keeper);

 private:
  Egress(Reactor& reactor, Fd keeper);
  void on_commands();
  Result<> carry_out(const egress::Command& command, std::vector<Fd> descriptors);
  Result<> add(std::uint64_t instance, std::vector<Fd> descriptors);
  Result<> set_rules(std::uint64_t instance, const std::vector<Fd>& descriptors);
  Result<> use_servers(const egress::Upstream& upstream, const std::vector<Fd>& descriptors);
  void answer(const egress::Query& query);

  Reactor& reactor_;
  Fd keeper_;
  Reactor::Watch watch_;
  Resolver resolver_;
  PipePool pipes_;
  ControlLink control_;
  Shared shared_;
  std::unordered_map<std::uint64_t, std::unique_ptr<AgentNetwork>> agents_;
};

}  // namespace kai::egress
