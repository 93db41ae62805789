// `kaictl upgrade` and `rollback`: another version of an agent takes the place of the one that serves.
#pragma once

#include <string>
#include <string_view>

#include "kaictl/commands.h"

namespace kai {

struct UpgradeOptions {
  std::string type = "soft";  ///< soft, hard
  bool force = false;
  bool no_backup = false;
  bool dry_run = false;  ///< only what would be done, and what stands in the way
};

/// `target`: a version of the archive where it is the text of one, or nothing has that name; else the path of a
/// package, as is all that has a slash or ends in .tar.gz.
Outcome<Answer> upgrade(const Context& context, const std::string& id, const std::string& target,
                        const UpgradeOptions& options);
/// `version` empty: the one before the active one.
Outcome<Answer> rollback(const Context& context, const std::string& id, const std::string& version);

/// What happened, and what is next. Of an UpgradeResult.
std::string upgrade_text(std::string_view json);
/// What would happen, and why not. Of a plan; `forced`: made with --force.
std::string plan_text(std::string_view json, bool forced);

}  // namespace kai
