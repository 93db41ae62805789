// `kaictl versions` and `prune`: the archive of an agent's versions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kaictl/commands.h"

namespace kai {

Outcome<Answer> versions(const Context& context, const std::string& id);
/// `keep`: versions beside the active one and the one before it, the newest first.
Outcome<Answer> prune(const Context& context, const std::string& id, std::uint32_t keep);

/// The archive as a table, with why a version was taken back below it.
std::string versions_text(std::string_view json);
std::string prune_text(std::string_view json);

}  // namespace kai
