// docs/lifecycle.md, made from the table that control runs by (supervisor/control/lifecycle.h), so that the diagram
// cannot say something else.
//
// usage: lifecycle-doc            prints the document
//        lifecycle-doc --check FILE   exit 1 when FILE says something else
#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/control/lifecycle.h"

namespace {

using kai::Effect;
using kai::Event;
using kai::State;

// No default in these switches: whoever adds an event or an effect is told by the compiler to describe it.
std::string meaning(Effect effect) {
  switch (effect) {
    case Effect::kNone:
      return "";
    case Effect::kSpawn:
      return "make a new instance";
    case Effect::kStopInstance:
      return "stop the instance, with grace";
    case Effect::kIsolate:
      return "freeze or kill what runs, keep evidence";
    case Effect::kArmBackoff:
      return "wait before the restart";
    case Effect::kThenStart:
      return "start again once it is gone";
    case Effect::kThenStop:
      return "stay stopped once it is gone";
    case Effect::kThenTerminate:
      return "terminate once it is gone";
    case Effect::kFollowUp:
      return "do what was remembered";
    case Effect::kRemove:
      return "remove from the registry";
  }
  return "";
}

std::string meaning(Event event) {
  switch (event) {
    case Event::kStart:
      return "`kaictl start`, or kaid's own start";
    case Event::kStop:
      return "`kaictl stop`";
    case Event::kTerminate:
      return "`kaictl terminate`";
    case Event::kUnregister:
      return "`kaictl unregister`";
    case Event::kQuarantine:
      return "`kaictl quarantine`, or kaid's judgement on an agent that lives";
    case Event::kRecover:
      return "`kaictl recover`";
    case Event::kReady:
      return "onInit and onStart have returned";
    case Event::kEnded:
      return "it ended as asked, or by itself with exit code 0";
    case Event::kCrashed:
      return "it ended otherwise, and policy starts it again";
    case Event::kGaveUp:
      return "it ended otherwise, and stays down";
    case Event::kCondemned:
      return "it ended in a way that quarantines it, or its recovery failed";
    case Event::kBackoffOver:
      return "the pause before a restart is over";
    case Event::kUpgrade:
      return "`kaictl upgrade` or `kaictl rollback` of an agent that runs";
    case Event::kUpgraded:
      return "that is over: the new version serves, or the one before goes on";
    case Event::kFellBack:
      return "its process ended in an upgrade or on probation, and the version before is started in its place";
  }
  return "";
}

template <typename Visit>
void for_each_cell(const Visit& visit) {
  for (std::size_t state = 0; state < kai::kStates; ++state) {
    for (std::size_t event = 0; event < kai::kEvents; ++event) {
      visit(static_cast<State>(state), static_cast<Event>(event));
    }
  }
}

bool removes(const kai::Transition& decided) {
  return decided.effects[0] == Effect::kRemove || decided.effects[1] == Effect::kRemove;
}

std::string diagram() {
  // Events that lead the same way share an arrow. What leaves an agent as it is, or is refused, is in the table only.
  std::vector<std::pair<std::string, std::string>> arrows;  // "from --> to", events
  for_each_cell([&](State state, Event event) {
    const auto decided = kai::transition(state, event);
    const bool moves = decided.next != state || removes(decided);
    if (decided.impossible || !decided.refused.empty() || !moves) return;
    const std::string to = removes(decided) ? "[*]" : std::string(kai::to_string(decided.next));
    const std::string arrow = std::string(kai::to_string(state)) + " --> " + to;
    const auto known = std::find_if(arrows.begin(), arrows.end(), [&](const auto& one) { return one.first == arrow; });
    if (known == arrows.end()) {
      arrows.emplace_back(arrow, kai::to_string(event));
    } else {
      known->second += ", " + std::string(kai::to_string(event));
    }
  });
  std::string text = "```mermaid\nstateDiagram-v2\n    [*] --> registered: register\n";
  for (const auto& [arrow, events] : arrows) text += "    " + arrow + ": " + events + "\n";
  return text + "```\n";
}

/// The next state alone.
std::string next(const kai::Transition& decided, State state) {
  if (decided.impossible) return "—";
  if (!decided.refused.empty()) return "refused: " + std::string(decided.refused);
  if (removes(decided)) return "**gone**";
  return decided.next == state ? "stays" : "**" + std::string(kai::to_string(decided.next)) + "**";
}

std::string overview() {
  std::string text = "| event |";
  std::string rule = "\n|---|";
  for (std::size_t at = 0; at < kai::kStates; ++at) {
    text += " " + std::string(kai::to_string(static_cast<State>(at))) + " |";
    rule += "---|";
  }
  text += rule + "\n";
  for (std::size_t at = 0; at < kai::kEvents; ++at) {
    const auto event = static_cast<Event>(at);
    text += "| " + std::string(kai::to_string(event)) + " |";
    for (std::size_t state = 0; state < kai::kStates; ++state) {
      const auto from = static_cast<State>(state);
      text += " " + next(kai::transition(from, event), from) + " |";
    }
    text += "\n";
  }
  return text;
}

/// What is done besides, event by event.
std::string effects() {
  std::string text;
  for (std::size_t at = 0; at < kai::kEvents; ++at) {
    const auto event = static_cast<Event>(at);
    text += "- **" + std::string(kai::to_string(event)) + "**: " + meaning(event) + "\n";
    for (std::size_t state = 0; state < kai::kStates; ++state) {
      std::string done;
      for (const Effect effect : kai::transition(static_cast<State>(state), event).effects) {
        if (effect != Effect::kNone) done += (done.empty() ? "" : ", then ") + meaning(effect);
      }
      if (!done.empty()) text += "  - " + std::string(kai::to_string(static_cast<State>(state))) + ": " + done + "\n";
    }
  }
  return text;
}

std::string states() {
  std::string text = "| State | `status` says |\n|---|---|\n";
  for (std::size_t at = 0; at < kai::kStates; ++at) {
    const auto state = static_cast<State>(at);
    text += "| " + std::string(kai::to_string(state)) + " | " + std::string(kai::status_of(state)) + " |\n";
  }
  return text;
}

std::string document() {
  return "# Lifecycle of an agent\n\n"
         "<!-- Generated from supervisor/control/lifecycle.cc by tests/docs/lifecycle_doc.cc. Do not edit: build the\n"
         "     target lifecycle, which writes it anew. The test docs.lifecycle holds the two together. -->\n\n"
         "kaid decides by a table: in every state there is an answer to every event. Each transition is in the audit\n"
         "before its effects are begun.\n\n" +
         diagram() + "\n" + states() +
         "\n## Every state and event\n\n"
         "**Bold**: the next state. *stays*: the state is the same. *refused*: the operator gets that error. —: the\n"
         "event has no source in this state.\n\n" +
         overview() + "\n## What is done\n\n" + effects();
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty()) {
    std::cout << document();
    return std::cout.flush() ? 0 : 1;
  }
  if (words.size() != 2 || words[0] != "--check") {
    std::cerr << "usage: lifecycle-doc [--check FILE]\n";
    return 2;
  }
  std::ifstream file(words[1], std::ios::binary);
  const std::string written((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (written == document()) return 0;
  std::cerr << words[1] << " does not say what supervisor/control/lifecycle.cc does. Write it anew with: "
            << "cmake --build BUILD --target lifecycle\n";
  return 1;
}
