// The keeper's end of control's socket, and agent-hosts that are as good or as hostile as a test wants, on the same
// loop as control itself: nothing is started, nothing is waited for but events.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "proto/egress.pb.h"
#include "proto/keeper.pb.h"
#include "proto/klp.pb.h"
#include "proto/sandbox_spec.pb.h"
#include "supervisor/control/stream.h"
#include "supervisor/loop/event_loop.h"

namespace kai::test {

/// The other end of one agent's KLP channel. Without a script it is a well-behaved agent that answers every request
/// with its own payload.
class FakeHost {
 public:
  FakeHost(EventLoop& loop, std::vector<Fd> descriptors, spec::SandboxSpec spec);

  void say_hello();
  void send(const klp::Envelope& envelope);
  void send_raw(std::string_view bytes);
  void answer(const klp::Message& request, klp::Message answer);
  void hang_up();
  /// For a host that writes by itself and never reads: its descriptor is the caller's from now on.
  Fd take_socket();
  void write_output(int stream, std::string_view text);

  /// Gets every envelope from control instead of the well-behaved agent.
  std::function<void(const klp::Envelope&)> script;
  /// What a well-behaved agent does about Stop; the keeper sets it.
  std::function<void(int code)> exit;

  /// What a well-behaved agent's saveState gives, JSON; its other hooks return.
  std::string state = "null";
  /// Gets its calls of hooks instead.
  std::function<void(const klp::HookCall&)> on_hook;

  spec::SandboxSpec spec;
  std::vector<Fd> descriptors;  ///< standard streams, then mounts
  std::vector<klp::Envelope> received;
  bool closed = false;

 private:
  void behave(const klp::Envelope& envelope);
  EventLoop& loop_;
  std::unique_ptr<FrameStream> stream_;
};

class FakeKeeper {
 public:
  FakeKeeper(EventLoop& loop, Fd socket);

  void stop_control();
  /// SIGHUP: these policies, or `error`.
  void reload_control(const std::vector<std::pair<std::string, std::string>>& files, const std::string& error = {});
  void limit(std::uint64_t instance, const std::string& limit, std::uint64_t value);
  void file_denied(std::uint64_t instance, const std::string& access, const std::string& path);
  /// There is an egress now: its end of the socket to control.
  Fd bring_egress(bool again = false);
  void exited(std::uint64_t instance, bool signaled, int code, std::uint32_t oom_kills = 0,
              std::uint32_t pids_refused = 0);

  /// Called for each sandbox once it is up; without it the host says hello and behaves.
  std::function<void(FakeHost&)> on_spawn;
  Fd listener;                                                ///< goes with the next Spawned
  std::vector<std::pair<std::string, std::string>> policies;  ///< what ReadPolicies finds: name, text
  std::string policies_error;
  std::vector<std::string> dropped;  ///< ids of DropData
  std::vector<int> described;        ///< pids of Describe
  std::set<std::string> services;    ///< addresses at which somebody takes a connection
  std::string fail_step;             ///< not empty: the next spawns fail at this step
  bool ready = false;
  /// SetNetwork, in order; without rules: nothing is allowed any more.
  std::vector<std::pair<std::uint64_t, std::optional<egress::Rules>>> networks;
  std::vector<std::uint64_t> killed;
  std::vector<std::uint64_t> frozen;
  std::string freeze_error;                                  ///< not empty: this machine cannot freeze
  std::map<std::uint64_t, std::unique_ptr<FakeHost>> hosts;  ///< alive
  std::size_t spawned = 0;

  /// The host of an instance that outlived the control before. `descriptors`: its KLP socket, then as FakeHost's.
  FakeHost& stand_in(std::uint64_t instance, std::vector<Fd> descriptors, const std::string& agent);

  /// The instance of the only host that there is.
  [[nodiscard]] std::uint64_t instance() const { return hosts.begin()->first; }
  [[nodiscard]] FakeHost& host() const { return *hosts.begin()->second; }

 private:
  void receive();
  void set_network(std::uint64_t instance, const std::vector<Fd>& descriptors);
  void spawn(const keeper::Request& request, std::vector<Fd> descriptors);
  void send(const keeper::Reply& reply, const Fd& descriptor = {});

  EventLoop& loop_;
  Fd socket_;
  std::unique_ptr<Poll> poll_;
};

}  // namespace kai::test
