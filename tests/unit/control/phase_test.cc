#include "proto/phase.h"

#include <set>

#include <doctest/doctest.h>

namespace kai {
namespace {

using E = klp::Envelope;
using Kinds = std::set<int>;

constexpr Phase kPhases[] = {Phase::kHello,   Phase::kAccepted, Phase::kRefused,
                             Phase::kServing, Phase::kClosing,  Phase::kEnded};

Kinds legal(bool from_host, Phase phase) {
  Kinds kinds;
  // Beyond the last field too: an unknown kind is never legal.
  for (int kind = 0; kind <= 23; ++kind) {
    const auto which = static_cast<E::KindCase>(kind);
    if (from_host ? legal_from_host(phase, which) : legal_from_control(phase, which)) kinds.insert(kind);
  }
  return kinds;
}

TEST_CASE("what a host may say when") {
  CHECK(legal(true, Phase::kHello) == Kinds{E::kHello, E::kStartFailed, E::kResume});
  CHECK(legal(true, Phase::kAccepted) == Kinds{E::kRunnerHello, E::kStarted, E::kStartFailed, E::kMessage,
                                               E::kMemoryRequest, E::kHookDone, E::kLog, E::kExit});
  CHECK(legal(true, Phase::kServing) ==
        Kinds{E::kMessage, E::kMemoryRequest, E::kHealthReport, E::kHookDone, E::kLog, E::kExit});
  CHECK(legal(true, Phase::kClosing) == Kinds{E::kRunnerHello, E::kStarted, E::kStartFailed, E::kMessage,
                                              E::kMemoryRequest, E::kHealthReport, E::kHookDone, E::kLog, E::kExit});
  CHECK(legal(true, Phase::kRefused).empty());
  CHECK(legal(true, Phase::kEnded).empty());
}

TEST_CASE("what control may say when") {
  CHECK(legal(false, Phase::kHello) == Kinds{E::kAccepted, E::kRefused, E::kResumed});
  CHECK(legal(false, Phase::kAccepted) == Kinds{E::kMessage, E::kMemoryAnswer, E::kHookCall, E::kStop, E::kSignal});
  CHECK(legal(false, Phase::kServing) ==
        Kinds{E::kMessage, E::kMemoryAnswer, E::kHealthRequest, E::kHookCall, E::kStop, E::kSignal});
  CHECK(legal(false, Phase::kClosing) == Kinds{E::kMessage, E::kMemoryAnswer, E::kSignal});
  CHECK(legal(false, Phase::kRefused).empty());
  CHECK(legal(false, Phase::kEnded).empty());
}

TEST_CASE("but for messages, no kind goes both ways") {
  for (const Phase phase : kPhases) {
    for (const int kind : legal(true, phase)) {
      if (kind == E::kMessage) continue;
      for (const Phase other : kPhases) CHECK_FALSE(legal_from_control(other, static_cast<E::KindCase>(kind)));
    }
  }
}

}  // namespace
}  // namespace kai
