// What a keeper that was killed left in the service manager's store: its last state, and its agents' descriptors, each
// under the name of its agent's instance and of what it is.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "base/fd.h"
#include "proto/handover.pb.h"

namespace kai::keeper {

enum class Kept { kPidfd, kChannel, kOutput, kError, kListener, kDirectory };
inline constexpr std::array kAllKept = {Kept::kPidfd, Kept::kChannel,  Kept::kOutput,
                                        Kept::kError, Kept::kListener, Kept::kDirectory};

/// Names in the store.
std::string stored_name(std::uint64_t instance, Kept what);
std::string stored_network_name(std::uint64_t instance, std::size_t at);  ///< one of its network's descriptors
std::string stored_state_name(std::uint64_t number);

/// What of `stored` is still of use.
struct Stored {
  std::optional<handover::State> state;  ///< with the numbers of descriptors, for inherited(); none: nothing to take
  std::vector<std::string> useless;      ///< names to be taken out of the store
};

/// Agents that are not in the newest state that can be read are killed, and waited for a moment.
Stored sort_stored(std::multimap<std::string, Fd> stored);

}  // namespace kai::keeper
