// A start with what it depends on: services that must answer, agents that must run first, each in its order
// (dependencies.h). What a manifest does not require is tried and only warned about.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "supervisor/control/agents.h"
#include "supervisor/control/service_probe.h"

namespace kai {

class StartPlan : public std::enable_shared_from_this<StartPlan> {
 public:
  enum class By { kOperator, kBoot };

  /// Whether `agent` depends on agents or services at all: one that does not is simply started.
  static bool needed(const Agent& agent);

  StartPlan(Environment& environment, Agents& agents, std::string id, By by, std::chrono::milliseconds timeout,
            Agent::Done done);
  /// `done` is called once, later or at once. The plan holds itself until then.
  void run();

 private:
  void next();
  void check_services(std::size_t dependency);
  void start();
  void waited(const Outcome<>& outcome);
  void give_up(Failure failure);
  [[nodiscard]] Agent* current();
  [[nodiscard]] std::string version_fault(const Agent& needed) const;
  [[nodiscard]] bool is_required(const std::string& needed) const;

  Environment& environment_;
  Agents& agents_;
  std::string id_;
  By by_;
  std::chrono::milliseconds timeout_;
  Agent::Done done_;
  std::vector<std::string> order_;
  std::size_t at_ = 0;
  std::uint64_t stops_ = 0;  // of the agent, when the plan began
  std::unique_ptr<ServiceProbe> probe_;
};

}  // namespace kai
