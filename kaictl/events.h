// `kaictl events`: what happened to the agents, as the audit has it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "kaictl/commands.h"

namespace kai {

struct EventsOptions {
  std::string id;  ///< empty: all agents and kaid itself
  bool follow = false;
  std::optional<std::uint32_t> lines;
};

/// Without --follow nothing is printed before all of it came; with it each event as it comes, until a signal.
Outcome<Answer> events(const Context& context, const EventsOptions& options);

/// One event, or one record of the audit, as a line for a person, with its LF: time, level, agent, event, what it was
/// about. What is neither is shown escaped, as it is.
std::string render_event(std::string_view json, bool colour);

}  // namespace kai
