// What an agent's KLP channel may carry when: hello → (accepted | refused) → serving → closing → ended. A pure table;
// control checks both directions against it, so that a hostile agent-host cannot reach code that its phase does not
// have.
#pragma once

#include "proto/klp.pb.h"

namespace kai {

enum class Phase {
  kHello,     ///< connected; the host owes its hello
  kAccepted,  ///< hello accepted; the runner comes up and may already ask for things (onInit)
  kRefused,   ///< hello refused; the channel closes
  kServing,   ///< onInit and onStart returned
  kClosing,   ///< stop sent, or the start failed; answers in flight may still arrive
  kEnded,     ///< the host said how the runner ended: its last word
};

[[nodiscard]] constexpr std::string_view to_string(Phase phase) {
  switch (phase) {
    case Phase::kHello:
      return "hello";
    case Phase::kAccepted:
      return "accepted";
    case Phase::kRefused:
      return "refused";
    case Phase::kServing:
      return "serving";
    case Phase::kClosing:
      return "closing";
    case Phase::kEnded:
      return "ended";
  }
  return "?";
}

/// The phase that an accepted Resume leads to.
[[nodiscard]] constexpr Phase phase_after(klp::Resume::Phase resumed) {
  switch (resumed) {
    case klp::Resume::SERVING:
      return Phase::kServing;
    case klp::Resume::STOPPING:
      return Phase::kClosing;
    default:
      return Phase::kAccepted;
  }
}

/// Whether agent-host may say `kind` in `phase`.
[[nodiscard]] constexpr bool legal_from_host(Phase phase, klp::Envelope::KindCase kind) {
  using E = klp::Envelope;
  switch (phase) {
    case Phase::kHello:
      // A program that cannot be exec'd says so instead of a hello. Resume: on a channel in the place of a lost one.
      return kind == E::kHello || kind == E::kStartFailed || kind == E::kResume;
    case Phase::kAccepted:
      return kind == E::kRunnerHello || kind == E::kStarted || kind == E::kStartFailed || kind == E::kMessage ||
             kind == E::kMemoryRequest || kind == E::kHookDone || kind == E::kLog || kind == E::kExit;
    case Phase::kServing:
      return kind == E::kMessage || kind == E::kMemoryRequest || kind == E::kHealthReport || kind == E::kHookDone ||
             kind == E::kLog || kind == E::kExit;
    case Phase::kClosing:
      // A stop may cross the last steps of a start.
      return kind == E::kRunnerHello || kind == E::kStarted || kind == E::kStartFailed || kind == E::kMessage ||
             kind == E::kMemoryRequest || kind == E::kHealthReport || kind == E::kHookDone || kind == E::kLog ||
             kind == E::kExit;
    case Phase::kRefused:
    case Phase::kEnded:
      return false;
  }
  return false;
}

/// Whether control may say `kind` in `phase`.
[[nodiscard]] constexpr bool legal_from_control(Phase phase, klp::Envelope::KindCase kind) {
  using E = klp::Envelope;
  switch (phase) {
    case Phase::kHello:
      return kind == E::kAccepted || kind == E::kRefused || kind == E::kResumed;
    case Phase::kAccepted:
      return kind == E::kMessage || kind == E::kMemoryAnswer || kind == E::kHookCall || kind == E::kStop ||
             kind == E::kSignal;
    case Phase::kServing:
      return kind == E::kMessage || kind == E::kMemoryAnswer || kind == E::kHealthRequest || kind == E::kHookCall ||
             kind == E::kStop || kind == E::kSignal;
    case Phase::kClosing:
      return kind == E::kMessage || kind == E::kMemoryAnswer || kind == E::kSignal;
    case Phase::kRefused:
    case Phase::kEnded:
      return false;
  }
  return false;
}

}  // namespace kai
