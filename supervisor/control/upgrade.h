// Another version takes an agent's place while it runs. Whatever fails, at whatever step, the version before goes on.
//
//   soft  load beside the serving version · drain · saveState | init restoreState upgrade start health · commit
//   hard  sandbox · load, in a second instance · drain · saveState | init restoreState upgrade start health · commit,
//         then messages go to the second instance, and the first is stopped by onShutdown
//
// From drain on requests wait (Agent::hold); up to there the agent serves. What is left of | is asked of the version
// that serves, what is right of it of the new one. Neither writes the agent's memory while the other may.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "policies/manifest.h"
#include "supervisor/control/hook_sequence.h"
#include "supervisor/control/output_pipes.h"
#include "supervisor/control/registry.h"
#include "supervisor/control/upgrade_record.h"

namespace kai {

class Agent;

struct UpgradeOrder {
  UpgradeReport report;  ///< what is known before it begins: id, from, to, type, soft, the steps up to here, …
  RegisteredVersion version;
  Manifest manifest;
};

// What a runner that works has for dropping what it loaded, or what it was asked. One that does not answer in it hangs.
inline constexpr std::chrono::milliseconds kDiscardDeadline{2'000};

class Upgrade {
 public:
  using Done = std::function<void(const UpgradeReport&)>;

  /// `agent` runs, and outlives it. `done` once: when messages go on, to whichever version.
  Upgrade(Agent& agent, UpgradeOrder order, Done done);
  ~Upgrade();
  Upgrade(const Upgrade&) = delete;
  Upgrade& operator=(const Upgrade&) = delete;

  void begin();
  /// Something else becomes of the agent: the version that serves is as it was, but for requests, which wait on.
  void abandon(const std::string& why);
  /// The instance that served has ended. The agent starts it again, with saved_state().
  void serving_ended(const End& end);

  /// What saveState gave, JSON; empty: it was not asked yet, or has nothing.
  [[nodiscard]] const std::string& saved_state() const { return saved_state_; }
  /// Of a hard one, once it is begun.
  [[nodiscard]] Instance* standby() const { return standby_.get(); }
  /// Why it failed, where the new version is at fault: it is not tried again until its bytes change. Else empty.
  [[nodiscard]] const std::string& bad() const { return bad_; }
  /// Whose memory requests may write now.
  [[nodiscard]] bool handed_over() const { return handed_over_; }

 private:
  void load();
  void go_hard(const Failure& failure);
  void spawn_standby();
  void on_standby_activated();
  void on_standby_ended(const End& end);
  void drain();
  void save();
  void hand_over(std::string state);
  void run_hooks();
  void commit();
  enum class Fault { kNewVersion, kElsewhere };
  [[nodiscard]] Fault fault_of_hooks() const;
  void fail(const Failure& failure, Fault fault = Fault::kElsewhere);
  void take_back();
  void drop_standby();
  void discarded(const Outcome<klp::HookDone>& outcome);
  void reverted();
  void finish(bool serves = true);
  void step(std::string name);
  void keep_record(std::uint64_t standby);
  [[nodiscard]] Instance& next() const;

  Agent& agent_;
  EventLoop& loop_;
  UpgradeOrder order_;
  UpgradeReport& report_;
  Done done_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::optional<PreparedSandbox> sandbox_;  // of the new version
  std::unique_ptr<OutputPipes> standby_output_;
  std::unique_ptr<Instance> standby_;
  std::unique_ptr<HookSequence> hooks_;
  std::string saved_state_, bad_;
  bool discards_ = false;     // the version that serves has to be told when it fails
  bool held_ = false;         // requests wait for it
  bool handed_over_ = false;  // the new version may write, the old one only read
  bool over_ = false;
  double step_began_ = 0, pause_began_ = 0;
};

}  // namespace kai
