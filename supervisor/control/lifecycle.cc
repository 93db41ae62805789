#include "supervisor/control/lifecycle.h"

namespace kai {
namespace {

constexpr Transition to(State next, Effect first = Effect::kNone, Effect second = Effect::kNone) {
  return {next, {first, second}, {}, false};
}
constexpr Transition refused(State state, std::string_view code) {
  return {state, {}, code, false};
}
constexpr Transition never(State state) {
  return {state, {}, {}, true};
}

using Row = std::array<Transition, kEvents>;

// One row a state; the columns are kStart, kStop, kTerminate, kUnregister, kQuarantine, kRecover | kReady, kEnded,
// kCrashed, kGaveUp, kCondemned, kBackoffOver | kUpgrade, kUpgraded, kFellBack.
constexpr Row kRegistered = {
    to(State::kStarting, Effect::kSpawn),
    to(State::kRegistered),
    to(State::kTerminated),
    to(State::kRegistered, Effect::kRemove),
    to(State::kQuarantined),
    refused(State::kRegistered, "CONFLICT"),
    never(State::kRegistered),
    never(State::kRegistered),
    never(State::kRegistered),
    never(State::kRegistered),
    never(State::kRegistered),
    never(State::kRegistered),
    refused(State::kRegistered, "CONFLICT"),
    never(State::kRegistered),
    never(State::kRegistered),
};
constexpr Row kStarting = {
    to(State::kStarting),
    to(State::kStopping, Effect::kStopInstance),
    to(State::kStopping, Effect::kThenTerminate, Effect::kStopInstance),
    refused(State::kStarting, "CONFLICT"),
    to(State::kQuarantined, Effect::kIsolate),
    refused(State::kStarting, "CONFLICT"),
    to(State::kRunning),
    to(State::kStopped),
    to(State::kBackoff, Effect::kArmBackoff),
    to(State::kStopped),
    to(State::kQuarantined, Effect::kIsolate),
    never(State::kStarting),
    refused(State::kStarting, "CONFLICT"),
    never(State::kStarting),
    to(State::kUpgrading, Effect::kSpawn),
};
constexpr Row kRunning = {
    to(State::kRunning),
    to(State::kStopping, Effect::kStopInstance),
    to(State::kStopping, Effect::kThenTerminate, Effect::kStopInstance),
    refused(State::kRunning, "CONFLICT"),
    to(State::kQuarantined, Effect::kIsolate),
    refused(State::kRunning, "CONFLICT"),
    never(State::kRunning),
    to(State::kStopped),
    to(State::kBackoff, Effect::kArmBackoff),
    to(State::kStopped),
    to(State::kQuarantined, Effect::kIsolate),
    never(State::kRunning),
    to(State::kUpgrading),
    never(State::kRunning),
    to(State::kUpgrading, Effect::kSpawn),
};
constexpr Row kStopping = {
    to(State::kStopping, Effect::kThenStart),
    to(State::kStopping, Effect::kThenStop),
    to(State::kStopping, Effect::kThenTerminate),
    refused(State::kStopping, "CONFLICT"),
    to(State::kQuarantined, Effect::kIsolate),
    refused(State::kStopping, "CONFLICT"),
    to(State::kStopping),  // the word that it is started crossed the stop
    to(State::kStopped, Effect::kFollowUp),
    to(State::kStopped, Effect::kFollowUp),
    to(State::kStopped, Effect::kFollowUp),
    to(State::kQuarantined, Effect::kIsolate, Effect::kFollowUp),
    never(State::kStopping),
    refused(State::kStopping, "CONFLICT"),
    never(State::kStopping),
    never(State::kStopping),
};
constexpr Row kStopped = {
    to(State::kStarting, Effect::kSpawn),
    to(State::kStopped),
    to(State::kTerminated),
    to(State::kStopped, Effect::kRemove),
    to(State::kQuarantined),
    refused(State::kStopped, "CONFLICT"),
    never(State::kStopped),
    never(State::kStopped),
    never(State::kStopped),
    never(State::kStopped),
    never(State::kStopped),
    never(State::kStopped),
    refused(State::kStopped, "CONFLICT"),
    never(State::kStopped),
    never(State::kStopped),
};
constexpr Row kBackoff = {
    to(State::kStarting, Effect::kSpawn),
    to(State::kStopped),
    to(State::kTerminated),
    refused(State::kBackoff, "CONFLICT"),
    to(State::kQuarantined),
    refused(State::kBackoff, "CONFLICT"),
    never(State::kBackoff),
    never(State::kBackoff),
    never(State::kBackoff),
    never(State::kBackoff),
    never(State::kBackoff),
    to(State::kStarting, Effect::kSpawn),
    refused(State::kBackoff, "CONFLICT"),
    never(State::kBackoff),
    never(State::kBackoff),
};
constexpr Row kUpgrading = {
    to(State::kUpgrading),
    to(State::kStopping, Effect::kStopInstance),
    to(State::kStopping, Effect::kThenTerminate, Effect::kStopInstance),
    refused(State::kUpgrading, "UPGRADING"),
    to(State::kQuarantined, Effect::kIsolate),
    refused(State::kUpgrading, "CONFLICT"),
    to(State::kRunning),  // what it fell back to
    to(State::kStopped),
    to(State::kBackoff, Effect::kArmBackoff),
    to(State::kStopped),
    to(State::kQuarantined, Effect::kIsolate),
    never(State::kUpgrading),
    refused(State::kUpgrading, "UPGRADING"),
    to(State::kRunning),
    to(State::kUpgrading, Effect::kSpawn),
};
constexpr Row kQuarantined = {
    refused(State::kQuarantined, "QUARANTINED"),
    to(State::kQuarantined),
    to(State::kTerminated),
    refused(State::kQuarantined, "CONFLICT"),
    to(State::kQuarantined),
    to(State::kStarting, Effect::kSpawn),
    never(State::kQuarantined),
    to(State::kQuarantined, Effect::kFollowUp),  // what was isolated is gone
    to(State::kQuarantined, Effect::kFollowUp),
    to(State::kQuarantined, Effect::kFollowUp),
    to(State::kQuarantined, Effect::kFollowUp),
    never(State::kQuarantined),
    refused(State::kQuarantined, "QUARANTINED"),
    never(State::kQuarantined),
    never(State::kQuarantined),
};
constexpr Row kTerminated = {
    to(State::kStarting, Effect::kSpawn),
    to(State::kTerminated),
    to(State::kTerminated),
    to(State::kTerminated, Effect::kRemove),
    to(State::kQuarantined),
    refused(State::kTerminated, "CONFLICT"),
    never(State::kTerminated),
    never(State::kTerminated),
    never(State::kTerminated),
    never(State::kTerminated),
    never(State::kTerminated),
    never(State::kTerminated),
    refused(State::kTerminated, "CONFLICT"),
    never(State::kTerminated),
    never(State::kTerminated),
};

constexpr std::array<Row, kStates> kTable = {kRegistered, kStarting,  kRunning,     kStopping,  kStopped,
                                             kBackoff,    kUpgrading, kQuarantined, kTerminated};

constexpr std::array<std::string_view, kStates> kStateNames = {
    "registered", "starting", "running", "stopping", "stopped", "backoff", "upgrading", "quarantined", "terminated"};
constexpr std::array<std::string_view, kEvents> kEventNames = {
    "start",   "stop",    "terminate", "unregister",   "quarantine", "recover",  "ready",    "ended",
    "crashed", "gave up", "condemned", "backoff over", "upgrade",    "upgraded", "fell back"};

}  // namespace

std::string_view to_string(State state) {
  return kStateNames[static_cast<std::size_t>(state)];
}
std::string_view to_string(Event event) {
  return kEventNames[static_cast<std::size_t>(event)];
}

std::string_view status_of(State state) {
  switch (state) {
    case State::kStarting:
    case State::kRunning:
    case State::kStopping:
    case State::kUpgrading:
      return "active";
    case State::kQuarantined:
      return "quarantined";
    case State::kRegistered:
    case State::kStopped:
    case State::kBackoff:
    case State::kTerminated:
      return "terminated";
  }
  return "terminated";
}

Transition transition(State state, Event event) {
  return kTable[static_cast<std::size_t>(state)][static_cast<std::size_t>(event)];
}

}  // namespace kai
