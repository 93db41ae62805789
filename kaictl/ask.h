// A request that is answered by one document: how long it may take, and what it becomes.
#pragma once

#include <chrono>
#include <span>
#include <string>

#include "kaictl/client.h"
#include "kaictl/commands.h"
#include "kaictl/output.h"

namespace kai {

// Looking something up; what changes an agent; registering, which may compile TypeScript.
inline constexpr Milliseconds kLookUpLimit{10'000};
inline constexpr Milliseconds kChangeLimit{30'000};
inline constexpr Milliseconds kRegisterLimit{120'000};

/// `activity`: what a person is told that is being waited for.
CallOptions call_options(const Context& context, std::string activity, Milliseconds limit);

/// `fallback`: the document where kaid gave none. The answer has no text yet.
Outcome<Answer> ask(const Context& context, const control::Request& request, const CallOptions& options,
                    std::span<const int> fds, std::string fallback);

/// {"id":ID}
std::string id_document(const std::string& id);
std::vector<std::string> warnings_of(const control::Done& done);

/// kaid is given the operator's time, we wait a little longer so that its own answer comes first.
struct Times {
  std::uint32_t daemon_ms = 0;  ///< 0: kaid's default
  Milliseconds limit{0};
};
Times times_of(const Context& context, Milliseconds default_limit);

/// A mistake on the command line that only this command can see: exit code 2.
[[nodiscard]] tl::unexpected<Failure> usage_failure(std::string message, std::string hint = {});

}  // namespace kai
