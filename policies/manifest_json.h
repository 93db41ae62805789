// A checked manifest as JSON again. Internal to policies/manifest*.cc.
#pragma once

#include <string>

#include "policies/manifest.h"

namespace kai::manifest {

/// Compact, in the specification's order of fields; what has its default value (runtime's follows from entry) is left
/// out.
std::string canonical_json(const Manifest& manifest);

}  // namespace kai::manifest
