// `kaictl net`: what an agent is connected to, which names it has looked up, and what it was refused.
#pragma once

#include <string>
#include <string_view>

#include "kaictl/commands.h"

namespace kai {

Outcome<Answer> net(const Context& context, const std::string& id);

/// docs/schema/net.schema.json in words.
std::string net_text(std::string_view json);

}  // namespace kai
