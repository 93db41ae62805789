// Everything of control that begins after the keeper's hello: made in order, run, and taken apart in reverse.
#pragma once

#include <string>

#include "supervisor/control/agents.h"
#include "supervisor/control/egress_client.h"
#include "supervisor/control/operator_api.h"
#include "supervisor/control/requests.h"
#include "supervisor/control/router.h"

namespace kai {

class Control {
 public:
  /// All of it is borrowed. `adoptions`: what outlived the control before this one.
  Control(const Environment& environment, const std::string& log_directory,
          std::vector<KeeperClient::Adoption> adoptions = {});
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  /// Loads the agents, opens kaid.sock, tells the keeper, and starts what is desired running.
  Result<> start();
  /// Stops agents and runs, keeping `desired`, takes the socket away, and ends the loop.
  void stop();

  [[nodiscard]] int exit_status() const { return exit_status_; }

 private:
  void announce(const std::string& socket);
  void lost_keeper(const std::string& reason);

  Environment environment_;
  std::vector<KeeperClient::Adoption> adoptions_;
  Agents agents_;
  Router router_;
  EgressClient egress_;
  Runs runs_;
  Operations operations_;
  OperatorApi api_;
  int exit_status_ = 0;
};

}  // namespace kai
