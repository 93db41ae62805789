// `kaictl snapshot` and `restore`: all that an agent is, in one file.
#pragma once

#include <string>

#include "kaictl/commands.h"

namespace kai {

struct SnapshotOptions {
  std::string file;        ///< empty: ID-VERSION-TIME.kai in the working directory
  bool overwrite = false;  ///< what has that name is replaced
};

/// The file is written whole or not at all, readable by its owner only.
Outcome<Answer> snapshot(const Context& context, const std::string& id, const SnapshotOptions& options);
Outcome<Answer> restore(const Context& context, const std::string& file);

}  // namespace kai
