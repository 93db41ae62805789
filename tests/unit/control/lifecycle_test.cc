// Every cell of the table, written down a second time: state by state, what each event does.
#include "supervisor/control/lifecycle.h"

#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace kai {
namespace {

std::string name(Effect effect) {
  switch (effect) {
    case Effect::kNone:
      return "";
    case Effect::kSpawn:
      return "spawn";
    case Effect::kStopInstance:
      return "stop_instance";
    case Effect::kIsolate:
      return "isolate";
    case Effect::kArmBackoff:
      return "arm_backoff";
    case Effect::kThenStart:
      return "then_start";
    case Effect::kThenStop:
      return "then_stop";
    case Effect::kThenTerminate:
      return "then_terminate";
    case Effect::kFollowUp:
      return "follow_up";
    case Effect::kRemove:
      return "remove";
  }
  return "?";
}

std::string cell(State state, Event event) {
  const Transition decided = transition(state, event);
  if (decided.impossible) return "-";
  if (!decided.refused.empty()) return "!" + std::string(decided.refused);
  std::string text(to_string(decided.next));
  for (const Effect effect : decided.effects) {
    if (effect != Effect::kNone) text += " " + name(effect);
  }
  return text;
}

struct Expected {
  State state;
  // start, stop, terminate, unregister, quarantine, recover, ready, ended, crashed, gave up, condemned, backoff over,
  // upgrade, upgraded, fell back
  std::vector<std::string> cells;
};

const std::vector<Expected> kExpected = {
    {State::kRegistered,
     {"starting spawn", "registered", "terminated", "registered remove", "quarantined", "!CONFLICT", "-", "-", "-", "-",
      "-", "-", "!CONFLICT", "-", "-"}},
    {State::kStarting,
     {"starting", "stopping stop_instance", "stopping then_terminate stop_instance", "!CONFLICT", "quarantined isolate",
      "!CONFLICT", "running", "stopped", "backoff arm_backoff", "stopped", "quarantined isolate", "-", "!CONFLICT", "-",
      "upgrading spawn"}},
    {State::kRunning,
     {"running", "stopping stop_instance", "stopping then_terminate stop_instance", "!CONFLICT", "quarantined isolate",
      "!CONFLICT", "-", "stopped", "backoff arm_backoff", "stopped", "quarantined isolate", "-", "upgrading", "-",
      "upgrading spawn"}},
    {State::kStopping,
     {"stopping then_start", "stopping then_stop", "stopping then_terminate", "!CONFLICT", "quarantined isolate",
      "!CONFLICT", "stopping", "stopped follow_up", "stopped follow_up", "stopped follow_up",
      "quarantined isolate follow_up", "-", "!CONFLICT", "-", "-"}},
    {State::kStopped,
     {"starting spawn", "stopped", "terminated", "stopped remove", "quarantined", "!CONFLICT", "-", "-", "-", "-", "-",
      "-", "!CONFLICT", "-", "-"}},
    {State::kBackoff,
     {"starting spawn", "stopped", "terminated", "!CONFLICT", "quarantined", "!CONFLICT", "-", "-", "-", "-", "-",
      "starting spawn", "!CONFLICT", "-", "-"}},
    {State::kUpgrading,
     {"upgrading", "stopping stop_instance", "stopping then_terminate stop_instance", "!UPGRADING",
      "quarantined isolate", "!CONFLICT", "running", "stopped", "backoff arm_backoff", "stopped", "quarantined isolate",
      "-", "!UPGRADING", "running", "upgrading spawn"}},
    {State::kQuarantined,
     {"!QUARANTINED", "quarantined", "terminated", "!CONFLICT", "quarantined", "starting spawn", "-",
      "quarantined follow_up", "quarantined follow_up", "quarantined follow_up", "quarantined follow_up", "-",
      "!QUARANTINED", "-", "-"}},
    {State::kTerminated,
     {"starting spawn", "terminated", "terminated", "terminated remove", "quarantined", "!CONFLICT", "-", "-", "-", "-",
      "-", "-", "!CONFLICT", "-", "-"}},
};

TEST_CASE("every cell of the lifecycle") {
  REQUIRE(kExpected.size() == kStates);
  for (std::size_t state = 0; state < kStates; ++state) {
    const Expected& expected = kExpected[state];
    REQUIRE(expected.state == static_cast<State>(state));
    REQUIRE(expected.cells.size() == kEvents);
    for (std::size_t event = 0; event < kEvents; ++event) {
      CAPTURE(to_string(expected.state));
      CAPTURE(to_string(static_cast<Event>(event)));
      CHECK(cell(expected.state, static_cast<Event>(event)) == expected.cells[event]);
    }
  }
}

TEST_CASE("nothing is spawned where an instance may still live, and none is stopped where there is none") {
  for (std::size_t at = 0; at < kStates * kEvents; ++at) {
    const auto state = static_cast<State>(at / kEvents);
    const auto event = static_cast<Event>(at % kEvents);
    const bool lives = state == State::kStarting || state == State::kRunning || state == State::kStopping ||
                       state == State::kUpgrading;
    for (const Effect effect : transition(state, event).effects) {
      // It fell back because its process had ended.
      if (effect == Effect::kSpawn) CHECK((!lives || event == Event::kFellBack));
      if (effect == Effect::kStopInstance) CHECK(lives);
    }
  }
}

TEST_CASE("AgentStatus follows from the state") {
  CHECK(status_of(State::kRunning) == "active");
  CHECK(status_of(State::kStarting) == "active");
  CHECK(status_of(State::kStopping) == "active");
  CHECK(status_of(State::kUpgrading) == "active");
  CHECK(status_of(State::kQuarantined) == "quarantined");
  for (const State state : {State::kRegistered, State::kStopped, State::kBackoff, State::kTerminated}) {
    CHECK(status_of(state) == "terminated");
  }
}

}  // namespace
}  // namespace kai
