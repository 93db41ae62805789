// What a new version asks for beyond the one before it, and what becomes of its memory: the findings kWidened and
// kMemory of upgrade_path.h. Internal to policies/.
#pragma once

#include <vector>

#include "policies/upgrade_path.h"

namespace kai {

void find_widened(const UpgradePath& path, std::vector<UpgradeFinding>& findings);
void find_memory(const UpgradePath& path, std::vector<UpgradeFinding>& findings);

}  // namespace kai
