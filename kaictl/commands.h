// kaictl's commands: each builds its request, waits for kaid, and gives what is to be printed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kaictl/client.h"
#include "kaictl/failure.h"
#include "kaictl/output.h"

namespace kai {

/// What every command needs to know.
struct Context {
  std::string socket;
  OutputFormat format = OutputFormat::kText;
  std::optional<Milliseconds> timeout;  ///< --timeout
  bool show_progress = false;           ///< text mode, and standard error is a terminal
};

/// What start, stop and restart are given beside the id.
enum class Change { kStart, kStop, kRestart };

Outcome<Answer> list(const Context& context);
Outcome<Answer> status(const Context& context, const std::string& id);
Outcome<Answer> register_package(const Context& context, const std::string& path);
Outcome<Answer> unregister(const Context& context, const std::string& id);
Outcome<Answer> change(const Context& context, Change what, const std::string& id, bool no_wait);
Outcome<Answer> terminate(const Context& context, const std::string& id, bool purge);
/// `payload`: JSON as typed; "-": read from standard input; empty: {}.
Outcome<Answer> send(const Context& context, const std::string& id, const std::string& capability,
                     const std::string& payload);
/// The version of kaictl, and of kaid where it is reachable.
Outcome<Answer> version(const Context& context);

/// Becomes kai-doctor, which stands beside kaictl or in ../libexec/kai or ../lib/kai. Returns only on failure.
Failure doctor(const Context& context);

}  // namespace kai
