// The life of a registered agent as a complete table: (state, event) → (state, effects). Pure: agent.cc carries out the
// effects.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

namespace kai {

enum class State {
  kRegistered,
  kStarting,
  kRunning,
  kStopping,
  kStopped,
  kBackoff,
  kUpgrading,  ///< another version takes its place; it serves on, or its messages wait (upgrade.h)
  kQuarantined,
  kTerminated,
};
inline constexpr std::size_t kStates = 9;
std::string_view to_string(State state);
/// The spec's AgentStatus: active, quarantined, terminated.
std::string_view status_of(State state);

enum class Event {
  kStart,  ///< the operator's, or kaid's own start
  kStop,
  kTerminate,
  kUnregister,
  kQuarantine,  ///< the operator's, or kaid's own judgement on one that lives
  kRecover,     ///< the operator's; nothing of the instance before is left
  kReady,       ///< the instance is started
  kEnded,       ///< it ended as it should: stopped as asked, or exit status 0
  kCrashed,     ///< it ended otherwise, and policy starts it again
  kGaveUp,      ///< it ended otherwise, and stays down
  kCondemned,   ///< it ended in a way that quarantines it, or its recovery failed
  kBackoffOver,
  kUpgrade,   ///< another version takes its place
  kUpgraded,  ///< that is over: it serves, the new version or the one before
  kFellBack,  ///< its process ended in an upgrade, or on probation: the version before is started in its place
};
inline constexpr std::size_t kEvents = 15;
std::string_view to_string(Event event);

enum class Effect {
  kNone,
  kSpawn,          ///< a new instance
  kStopInstance,   ///< stop it, with grace
  kIsolate,        ///< freeze or end what runs, as policy says, and keep evidence; nothing where nothing runs
  kArmBackoff,     ///< the timer that ends in kBackoffOver
  kThenStart,      ///< remembered until the instance is gone: start again
  kThenStop,       ///< … stay stopped (takes a kThenStart back)
  kThenTerminate,  ///< … terminate
  kFollowUp,       ///< the instance is gone: do what was remembered
  kRemove,         ///< out of the registry
};

struct Transition {
  State next = State::kRegistered;
  std::array<Effect, 2> effects{};  ///< in order; kNone: nothing
  std::string_view refused;         ///< klp.md's error code for the operator; empty: done, or already so
  bool impossible = false;          ///< an event that this state has no source for; nothing is done
};

Transition transition(State state, Event event);

}  // namespace kai
