// One life of one sandbox, from the request to the keeper until nothing of it is left: an agent's, a `kaictl run`, or a
// job of kAI's own. It holds the deadlines of a start and of a stop; what an end means is its owner's business.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "policies/compile.h"
#include "supervisor/control/denials.h"
#include "supervisor/control/ending.h"
#include "supervisor/control/keeper_client.h"
#include "supervisor/control/klp_channel.h"
#include "supervisor/control/policies.h"
#include "supervisor/control/syscall_watch.h"

namespace kai {

/// A sandbox's description, made once and launched any number of times.
struct PreparedSandbox {
  Fd spec;  ///< sealed memfd: a kai.spec.SandboxSpec
  KlpTerms terms;
  Deadlines deadlines;
  std::uint64_t memory_limit_mb = 0;
  std::uint32_t process_limit = 0;
  bool network = false;                      ///< it may reach somebody (spec.network)
  std::vector<std::uint16_t> network_ports;  ///< that egress listens at for it
  std::string profile;                       ///< of the seccomp filter
  std::vector<std::string> grants;           ///< the powers of the policy that it uses
  PolicyRef policy;                          ///< that it was made under
};
Result<PreparedSandbox> prepare_sandbox(const Compiled& compiled, PolicyRef policy);

class Instance;
/// One line for each layer that is missing and for each power that the operator's policy gave: at every start.
void log_layers(Log& log, const std::string& agent, const Instance& instance);

class Instance {
 public:
  /// Only `ended` may destroy the instance; the others are never called after it.
  struct Handlers {
    std::function<void()> activated = [] {};  ///< sandbox verified and hello accepted
    std::function<void()> started = [] {};    ///< onInit and onStart returned; without a runner protocol: exec'd
    /// Of one that was adopted, instead of activated: it said in what phase it is.
    std::function<void(const klp::Resume&)> resumed = [](const klp::Resume&) {};
    std::function<void(klp::Message&&)> message = [](klp::Message&&) {};
    std::function<void(klp::MemoryRequest&&)> memory;  ///< empty: it has none, and is told so
    /// The keeper did not take its new rules: it is cut off.
    std::function<void(const std::string& why)> network_refused = [](const std::string&) {};
    std::function<void(const egress::Event&)> network = [](const egress::Event&) {};  ///< but for denials
    std::function<void(const klp::AgentLog&)> log = [](const klp::AgentLog&) {};
    std::function<void(klp::HealthReport&&)> health = [](klp::HealthReport&&) {};
    std::function<void(const End&)> ended;  ///< once, last
  };

  /// Whether it lives on when control dies.
  enum class Lasts { kOutlivesControl, kEndsWithControl };
  /// kHeld: it is not started by itself; `activated` comes as ever, then whoever holds it calls its hooks and, last,
  /// commit(), which takes the place of `started`. The deadlines are the holder's, but for the hello's.
  enum class Begin { kBySelf, kHeld };

  /// `descriptors`: standard input, output, error; where it outlives control, the reading ends of output and error for
  /// the keeper to keep; then one for each DESCRIPTOR mount. `denials` must outlive it.
  Instance(EventLoop& loop, KeeperClient& keeper, const PreparedSandbox& sandbox, std::uint32_t uid_slot,
           std::vector<Fd> descriptors, DenialLog& denials, Handlers handlers, Lasts lasts = Lasts::kOutlivesControl,
           Begin begin = Begin::kBySelf);
  /// One that runs already. `other`: the version that it may have come to meanwhile (KlpTerms::other).
  /// `adoption.descriptors`: KLP socket and listener, as proto/keeper.proto has them. `key`: that its hello had, where
  /// it is known.
  Instance(EventLoop& loop, KeeperClient& keeper, const PreparedSandbox& sandbox, KeeperClient::Adoption adoption,
           std::optional<std::string> key, std::optional<KlpIdentity> other, DenialLog& denials, Handlers handlers);
  ~Instance();
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  /// Nothing was called yet, or somebody else listens from now on.
  void set_handlers(Handlers handlers) { handlers_ = std::move(handlers); }
  /// It failed in a hook that its holder called.
  void fail_start(const std::string& step, const std::string& message);

  /// onShutdown, SIGTERM, SIGKILL after `grace`; a sandbox that is not up yet is killed.
  void stop(std::chrono::milliseconds grace);
  /// SIGKILL to the whole tree, counted as asked for.
  void kill();
  /// SIGKILL to the whole tree for what was found: kHung, or kSignal for its health.
  void fail(Cause cause, const std::string& why);
  /// One of its hooks: KlpChannel::call_hook.
  void call_hook(klp::HookCall call, std::chrono::milliseconds deadline, HookCalls::Done done);
  /// Another version serves in it from now on, or one that was held serves: what its holder's last step led to.
  void committed(const PreparedSandbox& sandbox);
  /// Freezes the tree and looks at it. `done` once: whether it stands still now, the keeper's text about its processes,
  /// and why there is none. Nothing that it says is listened to any more.
  using Isolated = std::function<void(bool frozen, const std::string& processes, const std::string& missing)>;
  void isolate(Isolated done);
  /// Its rules are these from now on, or none at all; nothing where it began without a network. What is open and not
  /// allowed any more is reset at once.
  void set_network(const egress::Rules* rules);
  void signal(int number);

  /// Answered with known = false where the keeper cannot tell.
  void usage(std::function<void(const keeper::UsageResult&)> answer);
  /// Null when there were no descriptors left for it; then `ended` is about to be called.
  [[nodiscard]] KlpChannel* channel() { return channel_.get(); }

  /// It began with a network: egress listens for it.
  [[nodiscard]] bool has_network() const { return network_; }
  /// Where: a port that its policy allows since then needs another start.
  [[nodiscard]] const std::vector<std::uint16_t>& network_ports() const { return network_ports_; }
  /// The keeper's name for it.
  [[nodiscard]] std::uint64_t number() const { return number_; }
  [[nodiscard]] int pid() const { return pid_; }
  [[nodiscard]] std::uint32_t setup_us() const { return setup_us_; }
  [[nodiscard]] const std::vector<std::string>& degraded() const { return degraded_; }
  [[nodiscard]] const std::vector<std::string>& grants() const { return grants_; }
  [[nodiscard]] const std::vector<Permission>& permissions() const { return permissions_; }
  /// The one it was started under, which may have been replaced since.
  [[nodiscard]] const PolicyRef& policy() const { return policy_; }
  [[nodiscard]] const EndFacts& facts() const { return facts_; }

 private:
  Instance(EventLoop& loop, KeeperClient& keeper, const PreparedSandbox& sandbox, DenialLog& denials,
           Handlers handlers);
  KeeperClient::InstanceEvents events();
  Result<> spawn(const PreparedSandbox& sandbox, std::uint32_t uid_slot, std::vector<Fd> descriptors, Lasts lasts);
  void collect_evidence(const Isolated& done);
  void on_resumed(const klp::Resume& resume);
  void on_spawn_answer(const keeper::Reply& reply, std::vector<Fd> descriptors);
  void on_limit(const keeper::LimitHit& hit);
  void on_file_denied(const keeper::FileDenied& denied);
  void on_exited(const keeper::AgentExited& exited);
  void on_memory(klp::MemoryRequest&& request);
  void on_network(const egress::Event& event);
  void on_rejected(const klp::Message& message, const Failure& failure);
  void on_channel_closed(const std::string& why, bool by_peer);
  KlpChannel::Handlers channel_handlers();
  void on_accepted();
  void check_progress();
  void arm_hello_deadline();
  void kill_tree();
  void finish();

  EventLoop& loop_;
  KeeperClient& keeper_;
  DenialLog& denials_;
  Handlers handlers_;
  Deadlines deadlines_;
  std::string profile_;
  std::vector<std::string> grants_;
  std::vector<Permission> permissions_;
  PolicyRef policy_;
  Begin begin_ = Begin::kBySelf;
  bool runner_protocol_ = false;
  bool network_ = false;
  std::vector<std::uint16_t> network_ports_;
  std::uint64_t number_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  EndFacts facts_;
  int pid_ = 0;
  std::uint32_t setup_us_ = 0;
  std::vector<std::string> degraded_;
  bool spawned_ = false, accepted_ = false, activated_ = false;
  bool started_word_ = false, started_ = false;
  bool kill_wanted_ = false, isolated_ = false, frozen_ = false, over_ = false;
  Timer hello_timer_, start_timer_, kill_timer_;
  std::unique_ptr<SyscallWatch> syscalls_;
  std::unique_ptr<KlpChannel> channel_;
};

}  // namespace kai
