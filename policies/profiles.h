// The table that policies/profiles/generate.cc makes of policies/profiles/*.yaml at build time.
#pragma once

#include <vector>

#include "policies/compile.h"

namespace kai {

const std::vector<SeccompProfile>& all_profiles();

}  // namespace kai
