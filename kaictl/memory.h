// `kaictl memory`: what the agents keep, how much, and a file of it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kaictl/commands.h"

namespace kai {

struct MemoryListOptions {
  std::string prefix;
  std::uint32_t limit = 0;  ///< 0: as many as kaid gives
  std::string cursor;       ///< of the answer before
};

/// `id` empty: of every agent.
Outcome<Answer> memory_stats(const Context& context, const std::string& id);
Outcome<Answer> memory_get(const Context& context, const std::string& id, const std::string& key);
Outcome<Answer> memory_list(const Context& context, const std::string& id, const MemoryListOptions& options);
/// `file`: written whole or not at all, readable by its owner only; "-": standard output, once all is there.
Outcome<Answer> memory_export(const Context& context, const std::string& id, const std::string& file);
/// `file` "-": standard input.
Outcome<Answer> memory_import(const Context& context, const std::string& id, const std::string& file);

/// The spec's MemoryUsageStats as a table; every string is escaped.
std::string memory_stats_text(std::string_view json);

}  // namespace kai
