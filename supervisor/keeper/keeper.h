// The keeper: starts control, makes agents for it, waits for all of them, and cleans up. One thread, one epoll, no
// allocation worth a name in its steady state. It is the only privileged part; check.h says what it believes.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "proto/keeper.pb.h"
#include "proto/starter.pb.h"
#include "sandbox/cgroup.h"
#include "sandbox/namespaces.h"
#include "supervisor/keeper/config.h"
#include "supervisor/keeper/control_process.h"
#include "supervisor/keeper/directories.h"
#include "supervisor/keeper/service_manager.h"
#include "supervisor/keeper/starters.h"

namespace kai::keeper {

class Keeper {
 public:
  static Result<Keeper> create(Config config, Identity identity, Programs programs);

  /// Until SIGTERM or SIGINT. The exit status of kaid.
  int run();

 private:
  using Clock = std::chrono::steady_clock;

  /// One agent, from its request until its processes and groups are gone.
  struct Agent {
    std::uint64_t instance = 0;
    std::uint64_t request = 0;  // of its Spawn, until that is answered
    std::uint32_t uid_slot = 0;
    Starter starter;  // until set-up is over
    pid_t pid = 0;
    Fd pidfd;
    std::optional<sandbox::AgentCgroup> cgroup;
    std::uint64_t memory_limit = 0;    // watched here where there is no cgroup
    std::uint32_t watchdog_kills = 0;  // ended here for its memory, not by the kernel
    std::vector<std::string> degraded;
    Clock::time_point asked;
  };

  Keeper(Config config, Identity identity, Programs programs, Starters starters, sandbox::CgroupTree cgroups);

  Result<> prepare_loop();
  void dispatch(int fd);
  [[nodiscard]] int next_timeout_ms() const;
  void on_tick();

  // control
  Result<> launch_control();
  void greet_control();
  void on_control_packet();
  void on_control_exit();
  void reply(const kai::keeper::Reply& message);
  void flush_replies();
  void fail(std::uint64_t request, const std::string& step, const Error& error);

  // requests
  void on_spawn(std::uint64_t id, const kai::keeper::Spawn& spawn, std::vector<Fd> fds);
  Result<> begin_spawn(Agent& agent, const Fd& spec, std::vector<Fd> fds, std::string& step);
  Result<> add_spare_group();
  void refill();
  Result<> use_cgroup(Agent& agent, const spec::SandboxSpec& spec, std::string& step);
  void on_usage(std::uint64_t id, std::uint64_t instance);

  // agents
  void on_report(Agent& agent);
  void on_forked(Agent& agent, pid_t pid);
  void on_verified(Agent& agent);
  void set_up_failed(Agent& agent, const std::string& step, const Error& error);
  void on_agent_exit(Agent& agent);
  void on_oom(Agent& agent);
  void release(Agent& agent);
  void kill(const Agent& agent);
  void kill_all();
  void remove_groups();
  void watch_memory();
  void stop_watching_starter(Agent& agent);

  // signals and the end
  void on_signal();
  void begin_stop();
  [[nodiscard]] bool finished() const;

  Config config_;
  Identity identity_;
  Programs programs_;
  Starters starters_;
  sandbox::CgroupTree cgroups_;
  ServiceManager service_manager_;
  std::vector<std::string> missing_;

  Fd epoll_, signals_;
  ControlProcess control_;
  bool control_ready_ = false;
  std::deque<std::string> replies_;  // that the channel had no room for
  std::deque<Clock::time_point> control_deaths_;
  std::map<std::uint64_t, Agent> agents_;          // by instance
  std::map<int, std::uint64_t> instance_of_;       // by descriptor in the epoll: starter channel or pidfd
  std::deque<sandbox::AgentCgroup> spare_groups_;  // empty, ready for the next start
  std::uint64_t next_group_ = 0;
  std::vector<sandbox::AgentCgroup> dying_groups_;  // rmdir said EBUSY: the kernel still lets go
  std::optional<Clock::time_point> stop_deadline_;
  Clock::time_point stop_asked_;
  std::optional<Clock::time_point> refill_at_ = Clock::now();
  int exit_status_ = 0;
};

}  // namespace kai::keeper
