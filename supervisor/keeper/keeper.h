// The keeper: starts control, makes agents for it, waits for all of them, and cleans up. One thread, one epoll, no
// allocation worth a name in its steady state. It is the only privileged part; check.h says what it believes.
// keeper.cc has the loop and the end, keeper_control.cc what control asks and is told, keeper_spawn.cc how an agent is
// made, keeper_agents.cc what becomes of it, keeper_limits.cc what is watched meanwhile, keeper_adoption.cc how agents
// outlive control, keeper_network.cc whom they reach, keeper_freeze.cc how they are stopped and looked at,
// keeper_services.cc what they depend on, keeper_handover.cc how one version of this program follows another,
// keeper_store.cc how agents outlive the keeper itself.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "proto/handover.pb.h"
#include "proto/keeper.pb.h"
#include "proto/starter.pb.h"
#include "sandbox/cgroup.h"
#include "sandbox/namespaces.h"
#include "supervisor/keeper/config.h"
#include "supervisor/keeper/control_process.h"
#include "supervisor/keeper/directories.h"
#include "supervisor/keeper/directory_watch.h"
#include "supervisor/keeper/disks.h"
#include "supervisor/keeper/egress_link.h"
#include "supervisor/keeper/evidence.h"
#include "supervisor/keeper/handover.h"
#include "supervisor/keeper/kernel_audit.h"
#include "supervisor/keeper/limit_watch.h"
#include "supervisor/keeper/open_files.h"
#include "supervisor/keeper/policies.h"
#include "supervisor/keeper/say.h"
#include "supervisor/keeper/service_manager.h"
#include "supervisor/keeper/socket_probe.h"
#include "supervisor/keeper/starters.h"

namespace kai::keeper {

/// As a kaid wrote them down.
sandbox::CgroupTree::Places places_of(const handover::Groups& groups);

class Keeper {
 public:
  /// `state`: of the kaid that this one takes over from; null: there is none.
  /// `useless`: what of the service manager's store is not wanted any more.
  static Result<Keeper> create(Config config, Identity identity, Programs programs, LoadedPolicies policies,
                               Locks locks, const handover::State* state, std::vector<std::string> useless = {});

  /// Until SIGTERM or SIGINT. The exit status of kaid.
  int run();

 private:
  using Clock = std::chrono::steady_clock;

  /// Why a start came to nothing.
  struct Failure {
    std::string step;
    Error error;
    Clock::time_point since;
  };
  /// A Freeze that the kernel has not confirmed yet.
  struct Freezing {
    std::uint64_t request = 0;
    Fd events;  // cgroup.events
    Clock::time_point deadline;
  };
  /// One agent, from its request until its processes and groups are gone.
  struct Agent {
    std::uint64_t instance = 0;
    std::string id;
    std::uint64_t request = 0;  // of its Spawn, until that is answered
    std::uint32_t uid_slot = 0;
    std::optional<Failure> failure;  // what is left of it is being ended
    Starter starter;                 // until set-up is over
    bool ephemeral = false;          // ends with the control that asked for it
    bool untold = false;             // the control that knew it is gone: nobody hears of its end
    Fd channel;                      // to its agent-host, once it is up: written to, never read
    std::array<Fd, 2> output;        // reading ends of its output and error, for the next control
    std::uint32_t setup_us = 0;
    std::uint64_t verified_ms = 0;  // CLOCK_MONOTONIC
    pid_t pid = 0;
    Fd pidfd;
    std::optional<sandbox::AgentCgroup> cgroup;
    spec::SandboxSpec held;          // what it is held to meanwhile: cgroup, disk and rlimits of its spec, nothing else
    std::uint64_t memory_limit = 0;  // watched here where there is no cgroup
    std::uint32_t watchdog_kills = 0;  // ended here for its memory, not by the kernel
    std::vector<std::string> degraded;
    std::string rules;             // egress.Rules, until its starter has made its network; empty: it has none
    std::size_t network_size = 0;  // how many descriptors that is
    // There are other policies since its rules were held against some: it is to have others by then, or these are
    // again.
    std::optional<Clock::time_point> check_rules_at;
    Clock::time_point asked;
    bool has_disk = false;
    bool outlives_keeper = false;  // no parent-death signal: what it needs is in the service manager's store
    bool stored = false;           // its descriptors are
    bool orphan = false;           // an earlier keeper's child, and not this one's
    Fd listener;                   // of its filter's notifications: a duplicate, so that it lives as long as the agent
    LimitWatch limits;
    ino_t pid_namespace = 0;
    std::optional<OpenFilesLook> open_files;  // under way
    std::optional<DirectoryWatch> directory;  // of its private data, where that has no file system of its own
    Budget audit{kDenialsPerSecond};
    bool frozen = false;  // asked for, and not taken back
    std::optional<Freezing> freezing;

    [[nodiscard]] bool runs() const { return request == 0 && !failure; }
    /// By the next control.
    [[nodiscard]] bool adoptable() const { return runs() && !ephemeral && !untold; }
  };
  /// An instance whose end was told a moment ago: to a control that may have died before it took that in.
  struct Ended {
    kai::keeper::Adoptable told;
    std::array<Fd, 2> output;
    Clock::time_point when;
  };
  /// An answer or event with what goes beside it, until the channel has room for it.
  struct Outgoing {
    std::string bytes;
    std::vector<Fd> fds;
  };
  /// How an agent's first process ended.
  struct End {
    bool unknown = false;  // only its parent was told
    bool signaled = false;
    int code = 0;
  };
  /// A socket that is being tried, for all who want to know at this moment.
  struct Probing {
    SocketProbe probe;
    std::vector<std::uint64_t> requests;
  };
  struct ControlDeath {
    Clock::time_point when;
    bool killed = false;  // by somebody's SIGKILL, not by a fault of its own
  };

  static constexpr std::size_t kMaxRequestBytes = 64 << 10;
  static constexpr std::size_t kMaxAgents = 4096;
  // Of one agent while it is offered to a control: pidfd, channel, two ends of output, listener, events of its group
  // (v1 has two) and directory; and in what is on its way its output, listener and KLP socket once more. Its network
  // comes on top.
  static constexpr std::size_t kDescriptorsPerAgent = 12;
  static constexpr std::size_t kOwnDescriptors = 512;  // ended agents' output, starters, spare groups, disks
  static constexpr double kDenialsPerSecond = 20;      // of files, told of one agent; more are counted
  static constexpr auto kStopDeadline = std::chrono::seconds(30);  // control's own deadlines are shorter
  // New starters are made when no start was asked for in this time: making one takes a millisecond of a cpu, which an
  // agent that has just been started needs more.
  static constexpr auto kRefillDelay = std::chrono::milliseconds(3);
  // Agents' id ranges: 1,024 ids each from 0x70000000, above every range that Debian, systemd or containers use, and
  // below 2^31, where some programs stop to understand uids.
  static constexpr std::uint32_t kUidBase = 0x70000000;
  static constexpr std::uint32_t kUidsPerAgent = 1024;
  static constexpr std::uint32_t kUidSlots = (0x7FFF0000 - kUidBase) / kUidsPerAgent;

  Keeper(Config config, Identity identity, Programs programs, Starters starters, sandbox::CgroupTree cgroups,
         LoadedPolicies policies, Locks locks);

  Result<> prepare_loop();
  void dispatch(int fd);
  [[nodiscard]] int next_timeout_ms() const;
  void on_tick();

  // control
  Result<> launch_control();
  Result<> greet_control();
  void on_control_packet();
  void on_control_exit();
  void reply(const kai::keeper::Reply& message, std::vector<Fd> fds = {});
  void done(std::uint64_t request);
  void flush_replies();
  void fail(std::uint64_t request, const std::string& step, const Error& error);

  void reload(std::uint64_t request);
  Result<Fd> read_policies_again(Config& config);
  void on_usage(std::uint64_t id, std::uint64_t instance);
  void on_describe(std::uint64_t id, const kai::keeper::Describe& describe);
  void on_drop_data(std::uint64_t id, const std::string& agent_id);

  void end_control(const std::string& why);
  [[nodiscard]] std::optional<int> give_up(const siginfo_t& end);

  // agents that outlive control
  void part_from_control();
  void remember(const Agent& agent, const kai::keeper::AgentExited& exited, std::array<Fd, 2> output);
  void forget_ended();
  void offer_ended();
  static kai::keeper::Adoptable description(const Agent& agent);
  void offer(Agent& agent);
  Fd reconnect(Agent& agent);

  // agents that outlive the keeper's program
  void hand_over();
  void leave_control();
  handover::State state(Inheritance* inheritance) const;
  handover::Agent state_of(const Agent& agent, Inheritance* inheritance) const;
  Result<> take_over(const handover::State& state);
  Result<> take_over(const handover::Agent& kept);
  Result<> take_over_network(Agent& agent, const handover::Agent& kept);
  Result<> take_over_group(Agent& agent, const handover::Agent& kept);

  // agents that outlive the keeper itself
  [[nodiscard]] bool outlives(const Agent& agent) const;
  void store_soon();
  Result<> store_descriptors(Agent& agent) const;
  Result<> store();
  handover::State stored_state() const;
  void look_at_store(Clock::time_point now);
  void empty_store();
  void unstore(const Agent& agent);
  void end_unknown_groups();

  // freezing, evidence
  void on_freeze(std::uint64_t id, const kai::keeper::Freeze& freeze);
  void look_at_freezing(Agent& agent, Clock::time_point now);
  void end_freezing(Agent& agent);
  void on_evidence(std::uint64_t id, std::uint64_t instance);
  void begin_evidence(std::uint64_t id, std::uint64_t instance);
  void look_at_evidence(Clock::time_point now);
  void tell_evidence(std::uint64_t id, Result<EvidenceLook::Text> text);

  // whom agents reach
  void prepare_network(Agent& agent, const spec::SandboxSpec& spec, starter::Job& job);
  void on_network(Agent& agent, std::vector<Fd> descriptors);
  void on_set_network(std::uint64_t id, std::uint64_t instance, const std::vector<Fd>& fds);
  bool use_rules(Agent& agent, const egress::Rules& rules, std::uint64_t request);
  void expect_new_rules();
  void look_at_rules(Agent& agent);
  void serve_egress();
  [[nodiscard]] bool has_descriptors(std::size_t more) const;

  // services
  void on_probe_service(std::uint64_t id, const std::string& address);
  void look_at_services(Clock::time_point now);
  void on_connect_redis(std::uint64_t id);
  void look_at_redis(Clock::time_point now);

  // starting an agent
  void on_spawn(std::uint64_t id, const kai::keeper::Spawn& spawn, std::vector<Fd> fds);
  Result<> begin_spawn(Agent& agent, const Fd& spec, std::vector<Fd> fds, std::string& step);
  Result<> add_spare_group();
  void refill();
  Result<> use_cgroup(Agent& agent, const spec::SandboxSpec& spec);
  [[nodiscard]] bool may_use_slot(const Agent& agent) const;
  Result<> take_layers(Agent& agent, const spec::SandboxSpec& spec, std::string& step);
  Result<PrivateData> open_private_data(Agent& agent, const spec::SandboxSpec& spec);
  void on_report(Agent& agent);
  void on_forked(Agent& agent, pid_t pid);
  void on_verified(Agent& agent);
  void set_up_failed(Agent& agent, const std::string& step, const Error& error);
  void look_at_failed(Agent& agent, Clock::time_point now);
  void keep_channel(Agent& agent);
  void end_starter(Agent& agent);
  Result<> watch(Agent& agent, int fd, std::uint32_t events);
  void unwatch(int fd);
  void wake_at_end(const Fd& pidfd);

  // agents
  static std::optional<End> end_of(const Agent& agent);
  void on_agent_exit(Agent& agent);
  void on_oom(Agent& agent);
  void release(Agent& agent);
  void kill(const Agent& agent);
  void kill_all();
  void remove_groups();

  // limits
  void watch_memory();
  void look_at_end(Agent& agent);
  void look_at_limits();
  void look_at_open_files(Clock::time_point now, LimitWatch::Hits& hits);
  void measure_directories();
  void tell(LimitWatch::Hits& hits);
  void watch_audit();
  void tell(const std::vector<LandlockDenial>& denials);

  // signals and the end
  void on_signal();
  void begin_stop();
  [[nodiscard]] bool finished() const;

  Config config_;
  Identity identity_;
  Programs programs_;
  Starters starters_;
  sandbox::CgroupTree cgroups_;
  LoadedPolicies policies_;
  Disks disks_;
  EgressLink egress_;
  std::optional<KernelAudit> audit_;
  bool audit_watched_ = false;
  Locks locks_;
  ServiceManager service_manager_;
  std::vector<std::string> missing_;

  Fd epoll_, signals_;
  UnprivilegedProcess control_;
  std::uint32_t controls_ = 0;  // how many there have been
  bool control_ready_ = false;
  bool greeted_ = false;          // a control of this keeper, or of the one whose place it took
  std::deque<Outgoing> replies_;  // that the channel had no room for
  std::deque<ControlDeath> control_deaths_;
  bool control_ended_here_ = false;  // by end_control
  std::deque<Ended> ended_;
  std::size_t max_descriptors_ = 0;           // for agents
  std::map<std::uint64_t, Agent> agents_;     // by instance
  std::map<int, std::uint64_t> instance_of_;  // by descriptor in the epoll: starter channel or pidfd
  std::vector<Fd> ending_children_;           // starters whose agents run, and others: killed, until reaped
  std::vector<std::pair<std::uint64_t, EvidenceLook>> evidence_;          // under way, by request
  std::deque<std::pair<std::uint64_t, std::uint64_t>> evidence_waiting_;  // request, instance
  std::map<std::string, Probing> probing_;                                // by address
  std::optional<Probing> redis_;                                          // for at most one request
  std::deque<sandbox::AgentCgroup> spare_groups_;                         // empty, ready for the next start
  std::uint64_t next_group_ = 0;
  std::vector<sandbox::AgentCgroup> dying_groups_;  // rmdir said EBUSY: the kernel still lets go
  bool stores_ = false;                             // the service manager keeps descriptors, and groups are apart
  std::optional<Clock::time_point> store_at_;
  std::uint64_t stored_states_ = 0;
  std::deque<std::string> to_unstore_;  // names in the store that are not wanted any more
  std::optional<Clock::time_point> stop_deadline_;
  Clock::time_point stop_asked_;
  std::optional<Clock::time_point> refill_at_ = Clock::now();
  Clock::time_point next_look_{};      // at the limits
  std::uint64_t next_open_files_ = 0;  // instance to go on with
  int exit_status_ = 0;
};

}  // namespace kai::keeper
