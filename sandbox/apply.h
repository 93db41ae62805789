// The ordered list of steps that turns a fresh clone into a confined process. No step is best-effort.
#pragma once

#include <span>

#include "sandbox/setup.h"

namespace kai::sandbox {

/// Which sandboxes a step is for: the grant `unsandboxed` leaves out the host-facing layers.
enum class For { kEvery, kSandboxed, kUnsandboxed };

struct Step {
  const char* name;  ///< what kaictl and the log call it when it fails
  For which;
  Result<> (*run)(Setup& setup);
  const char* why_here;

  [[nodiscard]] bool applies(const Setup& setup) const;
};

/// The table, in order.
std::span<const Step> steps();

/// A step that failed: its name, and what the kernel said.
struct StepFailure {
  const char* step;
  Error error;
};

/// Runs every step and then verifies the result. Nothing of the agent has run when this returns.
tl::expected<void, StepFailure> apply(Setup& setup);

}  // namespace kai::sandbox
