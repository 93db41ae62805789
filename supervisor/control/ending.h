// How one life of an agent ended, in words for the operator (contracts.md, lastEnd). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "proto/keeper.pb.h"
#include "proto/klp.pb.h"

namespace kai {

enum class Cause { kExit, kSignal, kOom, kPids, kSeccomp, kHung, kSetup, kHelloRefused, kHelloTimeout, kStopped };
std::string_view to_string(Cause cause);

struct End {
  Cause cause = Cause::kExit;
  std::optional<int> exit_code;
  std::optional<int> signal;
  std::string message;     ///< one sentence, without a full stop
  bool hopeless = false;   ///< another start would end in the same way at once
  bool for_now = false;    ///< what it needs is not there at the moment: no crash of its own
  bool over_disk = false;  ///< for its private data, which this machine can only measure

  /// Exit status 0 by itself: stopped, not crashed.
  [[nodiscard]] bool clean() const { return cause == Cause::kExit && exit_code == 0; }
};

/// {"cause":…,"exitCode":…,"signal":…,"message":…}; what does not apply is absent.
std::string to_json(const End& end);
/// The name of a signal, "SIGKILL"; "signal 77" for one without.
std::string signal_name(int signal);

/// What was seen of one life, by whoever saw it.
struct EndFacts {
  bool stop_requested = false;               ///< by the operator or by kaid's own end
  std::optional<keeper::Failed> setup;       ///< the keeper could not make the sandbox
  std::optional<std::string> refused;        ///< hello refused: why
  std::optional<std::string> hello_timeout;  ///< what did not come in time
  std::optional<std::string> hung;           ///< what did not return in time
  std::optional<klp::StartFailed> start_failed;
  std::optional<std::string> unhealthy;   ///< what it said of itself; kaid killed it
  std::optional<std::string> over_limit;  ///< a limit that this machine can only watch: the keeper killed it
  std::optional<std::string> broken;      ///< how agent-host broke the protocol; kaid killed it
  std::optional<klp::Exit> runner;        ///< agent-host's own account
  keeper::AgentExited tree;               ///< the keeper's account
  std::uint64_t memory_limit_mb = 0;
  std::uint32_t process_limit = 0;
};
End classify(const EndFacts& facts);

}  // namespace kai
