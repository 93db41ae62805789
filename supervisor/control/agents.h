// All registered agents: loaded from the registry, found by id, put in and taken out.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "supervisor/control/agent.h"
#include "supervisor/control/dependencies.h"

namespace kai {

class Agents {
 public:
  explicit Agents(Environment& environment) : environment_(environment) {}

  /// Everything that is registered. A row whose manifest this version cannot read is left out, with a line in the log.
  Result<> load();
  /// What outlived the control before this one. What belongs to nobody is ended.
  void adopt(std::vector<KeeperClient::Adoption> adoptions);
  /// Which agent depends on which.
  [[nodiscard]] DependencyGraph dependencies() const;
  /// Those that run, or are about to, and need this agent.
  [[nodiscard]] std::vector<std::string> dependents(const std::string& id) const;
  /// Starts those that are desired running, not quarantined and not running already, each behind what it depends on.
  /// `again`: kaid went on while control was started again: what had come to rest by itself stays there.
  void start_desired(bool again);
  /// Stops all, keeping `desired`; `done` is called when none runs any more.
  void shut_down(std::function<void()> done);

  /// The policies were read anew. The ids of those that run and will differ at their next start.
  std::vector<std::string> policies_changed();

  /// Null: not registered.
  Agent* find(std::string_view id);
  [[nodiscard]] const std::map<std::string, std::unique_ptr<Agent>, std::less<>>& all() const { return agents_; }

  /// A new agent, or a new active version of one that is idle.
  Result<Agent*> put(const Manifest& manifest, const RegisteredVersion& version);
  /// CONFLICT while it runs, NOT_FOUND.
  Outcome<> unregister(const std::string& id, std::uint32_t uid);
  [[nodiscard]] Outcome<> may_unregister(const std::string& id);

 private:
  void start_at_boot(const std::string& id);
  void shut_down(Agent& agent, const std::function<void()>& done);

  Environment& environment_;
  std::map<std::string, std::unique_ptr<Agent>, std::less<>> agents_;
  std::map<std::string, Timer> waiting_;  // desired running, and what they depend on is not there yet
  bool stopping_ = false;
};

/// The failure for an id that nobody registered.
Failure not_registered(std::string_view id);

}  // namespace kai
